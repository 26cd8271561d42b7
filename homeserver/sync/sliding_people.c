/* Extensions about users: presence, which clients ask for as `presence` and no proposal describes,
 * and the profiles of this server's users. Spec: MSC4262. */
#include "homeserver/service/profile_log.h"
#include "homeserver/service/profiles.h"
#include "homeserver/service/users.h"
#include "homeserver/sync/sliding_priv.h"

#include <stdlib.h>

/* --- presence --- */

struct err sync_sliding_write_presence(struct sliding_job *job, struct json_out *out)
{
    job->base.since = job->since;
    if (!job->initial && job->look.nothing) {
        return OK;
    }
    if (!job->initial) {
        TRY(sync_sliding_neighbours(job));
    }
    return sync_write_presence(&job->base, out);
}

/* --- whose profile is told whole --- */

struct err sync_sliding_note_member(struct sliding_job *job, const struct stored_event *event)
{
    struct sync_job *base = &job->base;
    uint64_t user = 0;
    bool known = false;
    if (!job->request->profiles.scope.enabled ||
        !slice_eq(event->event.type, LIT("m.room.member")) ||
        !hs_user_is_local(base->hs, event->event.state_key)) {
        return OK;
    }
    TRY(hs_user_find(base->hs, base->room_ctx, event->event.state_key, &user, &known));
    if (known) {
        sync_users_add(base->ctx, &job->shown, user);
    }
    return OK;
}

static struct err add_members(struct sliding_job *job, size_t at, struct sync_users *whole)
{
    struct sync_job *base = &job->base;
    struct room *room = NULL;
    struct room_members members;
    TRY(hs_room_get(base->hs, base->ctx, job->matches[at].entry->room, &room));
    TRY(hs_room_members(base->hs, base->ctx, room, MEMBERSHIP_JOIN, 0, &members));
    for (size_t i = 0; i < members.count; i++) {
        if (hs_user_is_local(base->hs, members.items[i].user_id)) {
            sync_users_add(base->ctx, whole, members.items[i].user);
        }
    }
    return OK;
}

/* Rooms that come into view: everybody in them, or with lazy members those who were told. Other
 * fields than before: everybody in view. */
static struct err add_in_view(struct sliding_job *job, struct sync_users *whole)
{
    uint64_t had = job->conn->had.fields_hash;
    bool other_fields = had != 0 && had != job->request->profiles.fields_hash;
    struct sliding_in in = sync_sliding_scope(job, &job->request->profiles.scope);
    for (size_t i = 0; i < job->match_count; i++) {
        struct sliding_ask_state ask;
        bool is_new =
            sync_sliding_in_scope(job, &in, i) && sync_sliding_told(job, i)->profiles_pos == 0;
        if (!is_new && !(other_fields && sync_sliding_in_scope(job, &in, i))) {
            continue;
        }
        TRY(sync_sliding_combine(job, &job->matches[i], &ask));
        if (!ask.lazy || other_fields) {
            TRY(add_members(job, i, whole));
        }
        sync_sliding_change(job, i)->profiles_pos = job->base.upto;
    }
    return OK;
}

static void add_all(struct ctx *ctx, const struct sync_users *from, struct sync_users *to)
{
    for (size_t i = 0; i < from->count; i++) {
        sync_users_add(ctx, to, from->items[i]);
    }
}

/* --- writing --- */

struct profiles {
    struct sliding_job *job;
    struct json_out *out;
    struct sync_users whole;
    struct profile_changes changes;
};

static bool wants(const struct profiles *p, struct slice field)
{
    const struct sync_names *fields = &p->job->request->profiles.fields;
    bool wanted = !fields->given;
    for (size_t i = 0; i < fields->count && !wanted; i++) {
        wanted = slice_eq(fields->items[i], field);
    }
    return wanted;
}

/* False: the user is not one of this server. */
static struct err local_id(struct profiles *p, uint64_t user, struct slice *user_id_out,
                           bool *local_out)
{
    struct sync_job *base = &p->job->base;
    TRY(hs_user_id_of(base->hs, base->ctx, user, user_id_out));
    *local_out = hs_user_is_local(base->hs, *user_id_out);
    return OK;
}

static struct err write_whole(struct profiles *p, uint64_t user)
{
    struct sync_job *base = &p->job->base;
    struct sync_undo undo = sync_undo_mark(p->out);
    struct slice user_id;
    struct json profile;
    bool local = false;
    size_t count = 0;
    TRY(local_id(p, user, &user_id, &local));
    if (!local) {
        return OK;
    }
    TRY(hs_profile_load(base->hs, base->ctx, user, &profile));
    json_out_key_object(p->out, user_id);
    json_out_key_object(p->out, LIT("updated"));
    for (uint32_t i = 0; i < profile.count; i++) {
        if (wants(p, profile.members[i].key)) {
            json_out_key(p->out, profile.members[i].key);
            json_out_value(p->out, &profile.members[i].value);
            count++;
        }
    }
    json_out_object_end(p->out);
    json_out_object_end(p->out);
    if (count == 0) {
        sync_undo_to(p->out, undo);
    }
    return OK;
}

/* The changes of one user, which stand together: `fields` of them, each once. */
static struct err write_changed(struct profiles *p, const struct profile_change *changes,
                                size_t count)
{
    struct sync_job *base = &p->job->base;
    struct slice user_id;
    struct json profile;
    bool local = false;
    size_t updated = 0;
    TRY(local_id(p, changes[0].user, &user_id, &local));
    TRY(hs_profile_load(base->hs, base->ctx, changes[0].user, &profile));
    json_out_key_object(p->out, user_id);
    for (size_t i = 0; i < count; i++) {
        const struct json *value = json_get(&profile, changes[i].field);
        if (value) {
            if (updated++ == 0) {
                json_out_key_object(p->out, LIT("updated"));
            }
            json_out_key(p->out, changes[i].field);
            json_out_value(p->out, value);
        }
    }
    if (updated > 0) {
        json_out_object_end(p->out);
    }
    if (updated < count) {
        json_out_key_array(p->out, LIT("removed"));
        for (size_t i = 0; i < count; i++) {
            if (!json_get(&profile, changes[i].field)) {
                json_out_string(p->out, changes[i].field);
            }
        }
        json_out_array_end(p->out);
    }
    json_out_object_end(p->out);
    return OK;
}

static int by_user_field(const void *a, const void *b)
{
    const struct profile_change *left = a;
    const struct profile_change *right = b;
    int order = (left->user > right->user) - (left->user < right->user);
    return order != 0 ? order : slice_cmp(left->field, right->field);
}

/* Sorts, and drops what is not wanted, stands there twice or is told whole. */
static struct err sift_changes(struct profiles *p)
{
    struct profile_change *items = p->changes.items;
    size_t kept = 0;
    if (p->changes.count > 0) {
        qsort(items, p->changes.count, sizeof *items, by_user_field);
    }
    for (size_t i = 0; i < p->changes.count; i++) {
        bool shares = false;
        TRY(sync_job_shares(&p->job->base, items[i].user, &shares));
        bool again = kept > 0 && by_user_field(&items[kept - 1], &items[i]) == 0;
        if (shares && !again && wants(p, items[i].field) &&
            !sync_users_has(&p->whole, items[i].user)) {
            items[kept++] = items[i];
        }
    }
    p->changes.count = kept;
    return OK;
}

static struct err write_changes(struct profiles *p)
{
    const struct profile_change *items = p->changes.items;
    for (size_t first = 0, end = 0; first < p->changes.count; first = end) {
        for (end = first; end < p->changes.count && items[end].user == items[first].user; end++) {
        }
        TRY(write_changed(p, &items[first], end - first));
    }
    return OK;
}

/* Spec: MSC4262, "Proposal": who shares no room any more need not be followed. */
static struct err write_gone(struct profiles *p)
{
    struct sync_users *gone = &p->job->base.gone;
    sync_users_finish(gone);
    for (size_t i = 0; i < gone->count; i++) {
        struct slice user_id;
        bool shares = false;
        bool local = false;
        TRY(sync_job_shares(&p->job->base, gone->items[i], &shares));
        TRY(local_id(p, gone->items[i], &user_id, &local));
        if (!shares && local) {
            json_out_key_raw(p->out, user_id, LIT("null"));
        }
    }
    return OK;
}

/* What came after the connection's last answer. */
static struct err gather_news(struct profiles *p)
{
    struct sliding_job *job = p->job;
    struct sync_job *base = &job->base;
    TRY(sync_sliding_neighbours(job));
    add_all(base->ctx, &base->arrived, &p->whole);
    p->changes = hs_profile_changes(base->hs, base->ctx, job->since, base->upto);
    if (!p->changes.complete) {
        bool shares = false;
        TRY(sync_job_shares(base, base->viewer.user, &shares)); /* reads who does */
        add_all(base->ctx, &base->sharing, &p->whole);
        sync_users_add(base->ctx, &p->whole, base->viewer.user);
    }
    return OK;
}

struct err sync_sliding_write_profiles(struct sliding_job *job, struct json_out *out)
{
    struct profiles p = {.job = job, .out = out};
    job->base.since = job->since;
    TRY(add_in_view(job, &p.whole));
    add_all(job->base.ctx, &job->shown, &p.whole);
    if (!job->initial && !job->look.nothing) {
        TRY(gather_news(&p));
    }
    sync_users_finish(&p.whole);
    TRY(sift_changes(&p));
    struct sync_undo undo = sync_undo_mark(out);
    json_out_key_object(out, LIT("users"));
    size_t before = out->buf->len;
    for (size_t i = 0; i < p.whole.count; i++) {
        TRY(write_whole(&p, p.whole.items[i]));
    }
    TRY(write_changes(&p));
    TRY(write_gone(&p));
    bool any = out->buf->len > before;
    json_out_object_end(out);
    if (!any) {
        sync_undo_to(out, undo);
    }
    return OK;
}
