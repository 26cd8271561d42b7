/* The summary of a room: how many are in it, and whose names stand for it when it has none.
 * Spec: client-server, "Syncing" (RoomSummary) and "Calculating the display name for a room". */
#include "homeserver/sync/priv.h"

#include <string.h>

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

/* The oldest members of some memberships, but the viewer. */
struct choosing {
    struct ctx *ctx;
    uint64_t self;
    unsigned mask; /* a bit for each membership that counts */
    struct chosen {
        int64_t number;
        struct slice user_id;
    } items[HEROES_MAX]; /* oldest first */
    size_t count;
};

static struct err choose(void *arg, struct ctx *page, const struct room_member *member)
{
    struct choosing *c = arg;
    size_t at = c->count;
    (void)page;
    if (member->user == c->self || !(c->mask & (1U << member->membership))) {
        return OK;
    }
    while (at > 0 && c->items[at - 1].number > member->number) {
        at--;
    }
    if (at == HEROES_MAX) {
        return OK;
    }
    c->count += c->count < HEROES_MAX ? 1 : 0;
    memmove(&c->items[at + 1], &c->items[at], (c->count - 1 - at) * sizeof *c->items);
    c->items[at] = (struct chosen){member->number, arena_copy(c->ctx->arena, member->user_id)};
    return OK;
}

static struct err pick(struct sync_job *job, struct sync_room *room, unsigned mask,
                       struct sync_heroes *heroes)
{
    struct choosing choosing = {.ctx = job->room_ctx, .self = job->viewer.user, .mask = mask};
    TRY(hs_room_members_each(job->hs, job->room_ctx, room->room, choose, &choosing));
    for (size_t i = 0; i < choosing.count; i++) {
        heroes->user_ids[heroes->count++] = choosing.items[i].user_id;
    }
    return OK;
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
    *heroes_out = (struct sync_heroes){.wanted = true};
    TRY(pick(job, room, 1U << MEMBERSHIP_JOIN | 1U << MEMBERSHIP_INVITE, heroes_out));
    return heroes_out->count
               ? OK
               : pick(job, room, 1U << MEMBERSHIP_LEAVE | 1U << MEMBERSHIP_BAN, heroes_out);
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
