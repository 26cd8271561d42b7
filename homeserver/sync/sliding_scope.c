/* Of which rooms an extension speaks. Spec: MSC4508, "Common per-room extension semantics". */
#include "homeserver/sync/sliding_priv.h"

static bool names_have(const struct sync_names *names, struct slice name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (slice_eq(names->items[i], name)) {
            return true;
        }
    }
    return false;
}

struct sliding_in sync_sliding_scope(const struct sliding_job *job,
                                     const struct sliding_scope *asked)
{
    struct sliding_in in = {.asked = asked};
    for (size_t i = 0; i < job->request->list_count; i++) {
        if (asked->all_lists || names_have(&asked->lists, job->request->lists[i].name)) {
            in.lists[i / 64] |= UINT64_C(1) << (i % 64);
        }
    }
    return in;
}

bool sync_sliding_in_scope(const struct sliding_job *job, const struct sliding_in *in, size_t at)
{
    const struct sliding_match *match = &job->matches[at];
    if (match->entry->membership != MEMBERSHIP_JOIN ||
        (!job->change_at[at] && !sync_sliding_sent(job->conn, match->entry->room))) {
        return false;
    }
    if ((match->lists[0] & in->lists[0]) || (match->lists[1] & in->lists[1])) {
        return true;
    }
    return match->subscription &&
           (in->asked->all_rooms ||
            names_have(&in->asked->rooms,
                       job->request->subscriptions[match->subscription - 1].room_id));
}

const struct sliding_sent *sync_sliding_told(const struct sliding_job *job, size_t at)
{
    return job->change_at[at] ? &job->changes[job->change_at[at] - 1]
                              : sync_sliding_sent(job->conn, job->matches[at].entry->room);
}
