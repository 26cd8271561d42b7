/* Authorising events of other servers: by the events they cite, and by states. */
#include "homeserver/service/intake_priv.h"

static struct event_id create_id_of(struct ctx *ctx, struct room_id room_id)
{
    return ids_trust_event(arena_concat(ctx->arena, LIT("$"), slice_from(room_id.s, 1)));
}

static struct err load_one(struct judging *j, struct event_id id, bool *found_out)
{
    struct stored_event stored;
    struct event *event = arena_alloc(j->ctx->arena, sizeof *event);
    uint64_t room = 0;
    int64_t number = 0;
    TRY(hs_event_locate(j->hs, j->ctx, id.s, &room, &number, found_out));
    if (!*found_out) {
        return OK;
    }
    struct room *home = j->room;
    if (room != j->room->number) { /* refused, but by the rules */
        TRY(hs_room_get(j->hs, j->ctx, room, &home));
    }
    TRY(hs_event_load(j->hs, j->ctx, home, number, &stored, found_out));
    if (*found_out) {
        *event = stored.event;
        event->rejected = (stored.flags & EVENT_REJECTED) != 0;
        j->cited[j->cited_count++] = event;
    }
    return OK;
}

struct err judging_load_cited(struct judging *j, struct event_id **missing_out,
                              size_t *missing_count_out)
{
    size_t count = j->event->auth_event_count;
    struct event_id *missing = arena_array(j->ctx->arena, count + 1, sizeof *missing);
    size_t missing_count = 0;
    j->cited = arena_array(j->ctx->arena, count + 1, sizeof(const struct event *));
    j->cited_count = 0;
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        TRY(load_one(j, j->event->auth_events[i], &found));
        if (!found) {
            missing[missing_count++] = j->event->auth_events[i];
        }
    }
    *missing_out = missing;
    *missing_count_out = missing_count;
    return OK;
}

/* From version 12 on the create event is not cited: the room's id names it. */
static struct err find_create(struct judging *j, const struct event **create_out)
{
    *create_out = NULL;
    for (size_t i = 0; i < j->cited_count; i++) {
        if (event_is(j->cited[i], LIT("m.room.create"), LIT(""))) {
            *create_out = j->cited[i];
        }
    }
    if (j->event->rules->event_format != EVENT_FORMAT_12 || j->event->room_id.s.len == 0) {
        return OK;
    }
    struct stored_event *stored = arena_alloc(j->ctx->arena, sizeof *stored);
    bool found = false;
    TRY(hs_event_find(j->hs, j->ctx, j->room, create_id_of(j->ctx, j->event->room_id).s, stored,
                      &found));
    *create_out = found && !(stored->flags & EVENT_REJECTED) ? &stored->event : NULL;
    return OK;
}

struct err judging_by_cited(struct judging *j, struct auth_verdict *verdict_out)
{
    const struct event *create = NULL;
    TRY(find_create(j, &create));
    *verdict_out =
        auth_check_by_auth_events(j->ctx->arena, j->event, create, j->cited, j->cited_count);
    return OK;
}

static struct err read_state(struct judging *j, struct slice type, struct slice state_key,
                             const struct event **event_out)
{
    bool found = false;
    if (j->root == j->room->head.root) {
        return room_state_current(j->hs, j->ctx, j->room, type, state_key, event_out);
    }
    struct stored_event *stored = arena_alloc(j->ctx->arena, sizeof *stored);
    TRY(hs_state_event(j->hs, j->ctx, j->room, j->root, type, state_key, stored, &found));
    *event_out = found ? &stored->event : NULL;
    return OK;
}

static const struct event *look_up(void *arg, struct slice type, struct slice state_key)
{
    struct judging *j = arg;
    const struct event *event = NULL;
    struct err err = read_state(j, type, state_key, &event);
    if (err.code != 0 && j->err.code == 0) {
        j->err = err;
    }
    if (event || !j->fill_members || !slice_eq(type, LIT("m.room.member"))) {
        return event;
    }
    for (size_t i = 0; i < j->cited_count; i++) {
        if (event_is(j->cited[i], type, state_key) && !j->cited[i]->rejected) {
            return j->cited[i];
        }
    }
    return NULL;
}

struct err judging_by_state(struct judging *j, uint64_t root, struct auth_verdict *verdict_out)
{
    struct auth_input input = {
        .arena = j->ctx->arena, .event = j->event, .state = look_up, .state_arg = j};
    j->root = root;
    input.create = look_up(j, LIT("m.room.create"), LIT(""));
    *verdict_out = auth_check_event(&input);
    return j->err;
}

struct slice judging_reason(struct ctx *ctx, const struct auth_verdict *verdict)
{
    return arena_printf(ctx->arena, "%s (authorization rule %s)", verdict->text, verdict->rule);
}
