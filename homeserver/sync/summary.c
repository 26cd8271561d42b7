/* The summary of a room: how many are in it, and whose names stand for it when it has none.
 * Spec: client-server, "Syncing" (RoomSummary) and "Calculating the display name for a room". */
#include "homeserver/sync/priv.h"

enum { HEROES_MAX = 5 };

static struct err has_text(struct sync_job *job, struct sync_room *room, struct slice type,
                           struct slice key, bool *has_out)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_state_event(job->hs, job->room_ctx, room->room, room->end_root, type, LIT(""), &event,
                       &found));
    *has_out = found && json_get_string(event.event.content, key).len > 0;
    return OK;
}

static struct err has_own_name(struct sync_job *job, struct sync_room *room, bool *has_out)
{
    TRY(has_text(job, room, LIT("m.room.name"), LIT("name"), has_out));
    return *has_out ? OK
                    : has_text(job, room, LIT("m.room.canonical_alias"), LIT("alias"), has_out);
}

/* Members come oldest first; `mask` has a bit for each membership that counts. */
static void pick(const struct room_members *members, unsigned mask, uint64_t self,
                 struct sync_heroes *heroes)
{
    for (size_t i = 0; i < members->count && heroes->count < HEROES_MAX; i++) {
        const struct room_member *member = &members->items[i];
        if (member->user != self && (mask & (1U << member->membership))) {
            heroes->user_ids[heroes->count++] = member->user_id;
        }
    }
}

struct err sync_room_heroes(struct sync_job *job, struct sync_room *room,
                            struct sync_heroes *heroes_out)
{
    bool named = false;
    *heroes_out = (struct sync_heroes){0};
    TRY(has_own_name(job, room, &named));
    return named ? OK : sync_pick_heroes(job, room, heroes_out);
}

struct err sync_pick_heroes(struct sync_job *job, struct sync_room *room,
                            struct sync_heroes *heroes_out)
{
    struct room_members members;
    *heroes_out = (struct sync_heroes){.wanted = true};
    TRY(hs_room_members(job->hs, job->room_ctx, room->room, MEMBERSHIP_NONE, 0, &members));
    pick(&members, 1U << MEMBERSHIP_JOIN | 1U << MEMBERSHIP_INVITE, job->viewer.user, heroes_out);
    if (heroes_out->count == 0) {
        pick(&members, 1U << MEMBERSHIP_LEAVE | 1U << MEMBERSHIP_BAN, job->viewer.user, heroes_out);
    }
    return OK;
}

struct err sync_write_summary(struct sync_job *job, struct sync_room *room, struct json_out *out)
{
    struct sync_heroes heroes;
    json_out_key_object(out, LIT("summary"));
    if (room->full_state || room->members_changed) {
        TRY(sync_room_heroes(job, room, &heroes));
        json_out_key_int(out, LIT("m.joined_member_count"), room->head.joined_count);
        json_out_key_int(out, LIT("m.invited_member_count"), room->head.invited_count);
        if (heroes.wanted) {
            json_out_key_array(out, LIT("m.heroes"));
            for (size_t i = 0; i < heroes.count; i++) {
                json_out_string(out, heroes.user_ids[i]);
            }
            json_out_array_end(out);
        }
    }
    json_out_object_end(out);
    return OK;
}
