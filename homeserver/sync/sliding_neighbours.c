/* Who came and who went in the rooms of a user, without writing the rooms: device lists, presence
 * and profiles speak of all of them, whatever the connection is told of. Spec: client-server,
 * "Tracking the device list for a user". */
#include "homeserver/service/users.h"
#include "homeserver/sync/sliding_priv.h"

struct comparing {
    struct sync_job *job;
    struct sync_room *room;
};

static struct err is_joined(struct comparing *c, int64_t number, bool *joined_out,
                            struct slice *user_id_out)
{
    struct stored_event event;
    bool found = false;
    *joined_out = false;
    if (number == 0) {
        return OK;
    }
    TRY(hs_event_load(c->job->hs, c->job->room_ctx, c->room->room, number, &event, &found));
    if (found && slice_eq(event.event.type, LIT("m.room.member"))) {
        *joined_out = membership_of(&event.event) == MEMBERSHIP_JOIN;
        *user_id_out = event.event.state_key;
    }
    return OK;
}

static struct err compare_member(struct comparing *c, const struct state_difference *change)
{
    struct slice user_id = {0};
    bool was = false;
    bool is = false;
    bool known = false;
    uint64_t user = 0;
    TRY(is_joined(c, change->right, &is, &user_id));
    if (change->right && user_id.ptr == NULL) {
        return OK; /* no member */
    }
    TRY(is_joined(c, change->left, &was, &user_id));
    if (was == is) {
        return OK;
    }
    TRY(hs_user_find(c->job->hs, c->job->room_ctx, user_id, &user, &known));
    if (known) {
        sync_users_add(c->job->ctx, is ? &c->job->arrived : &c->job->gone, user);
    }
    return OK;
}

static struct err compare_states(struct comparing *c)
{
    struct sync_job *job = c->job;
    struct state_difference *changes = NULL;
    size_t count = 0;
    int64_t number = 0;
    uint64_t before = 0;
    uint64_t after = 0;
    TRY(hs_room_at(job->hs, job->room_ctx, c->room->room, job->since, &number, &before));
    TRY(hs_room_at(job->hs, job->room_ctx, c->room->room, job->upto, &number, &after));
    if (before == after) {
        return OK;
    }
    TRY(state_diff(job->hs->states, job->room_ctx, c->room->entry.room, before, after, &changes,
                   &count));
    for (size_t i = 0; i < count; i++) {
        TRY(compare_member(c, &changes[i]));
    }
    return OK;
}

static struct err look_at_room(struct sync_job *job, const struct user_room *entry)
{
    struct sync_room room = {.entry = *entry};
    struct comparing c = {job, &room};
    bool is_in = entry->membership == MEMBERSHIP_JOIN;
    bool has_left = !is_in && entry->left_number > 0 && entry->pos > job->since &&
                    entry->previous == MEMBERSHIP_JOIN;
    if (entry->pos > job->upto || (!is_in && !has_left)) {
        return OK;
    }
    TRY(hs_room_get(job->hs, job->room_ctx, entry->room, &room.room));
    if (has_left) {
        return sync_note_everybody(job, &room, &job->gone);
    }
    if (entry->joined_pos > job->since) {
        return sync_note_everybody(job, &room, &job->arrived);
    }
    return hs_room_changed_pos(room.room) > job->since ? compare_states(&c) : OK;
}

struct err sync_sliding_neighbours(struct sliding_job *job)
{
    struct sync_job *base = &job->base;
    struct user_rooms rooms = {0};
    if (job->neighbours_known) {
        return OK;
    }
    job->neighbours_known = true;
    if (!job->look.complete) {
        TRY(hs_user_rooms(base->hs, base->ctx, base->viewer.user, &rooms));
    }
    for (size_t i = 0; i < rooms.count; i++) {
        TRY(look_at_room(base, &rooms.items[i]));
    }
    for (size_t i = 0; job->look.complete && i < job->look.room_count; i++) {
        struct user_room entry;
        bool found = false;
        TRY(hs_user_room(base->hs, base->ctx, base->viewer.user, job->look.rooms[i], &entry,
                         &found));
        entry.room = job->look.rooms[i];
        if (found) {
            TRY(look_at_room(base, &entry));
        }
    }
    return OK;
}
