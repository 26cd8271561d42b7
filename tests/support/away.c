#include "tests/support/away.h"

#include "homeserver/service/check.h"

#include <stdio.h>
#include <stdlib.h>

static void must(struct err err)
{
    if (err.code != 0) {
        fprintf(stderr, "away: %s\n", err.text);
    }
    ASSERT(err.code == 0);
}

void away_open(struct away *away, const char *version)
{
    house_open(&away->h);
    away->ann = house_guest(&away->h, "ann");
    peer_init(&away->far, "far");
    away->ria = peer_user(away->h.conf_arena, &away->far, "ria");
    away->rob = peer_user(away->h.conf_arena, &away->far, "rob");
    away->by_ria = (struct peer_draft){.peer = &away->far, .sender = away->ria};
    away->by_rob = (struct peer_draft){.peer = &away->far, .sender = away->rob};
    away->by_ann = (struct peer_draft){.peer = &away->far, .sender = away->ann.actor.user_id};
    peer_room_open(&away->r, version, &away->far, away->ria);
    peer_member(&away->r, &away->by_rob, away->rob, "join");
}

static bool is_in(const struct resolve_set *state, struct event_id id)
{
    for (size_t i = 0; i < state->count; i++) {
        if (ids_event_eq(state->items[i].event, id)) {
            return true;
        }
    }
    return false;
}

/* The newest events first: those that others cite come last. */
static struct err add_all(struct away *away, struct intake_join *join, size_t mine, bool partial)
{
    for (size_t i = mine; i > 0; i--) {
        const struct event *event = peer_get(&away->r, i - 1);
        bool left_out = partial && event_is(event, LIT("m.room.member"), away->rob);
        bool in_state = is_in(&away->r.events[mine].before, event->id) && !left_out;
        if (event->has_state_key) {
            TRY(hs_intake_join_add(join, &away->h.ctx,
                                   in_state ? INTAKE_JOIN_STATE : INTAKE_JOIN_AUTH, event));
        }
    }
    return OK;
}

struct err away_try_join(struct away *away, enum away_join how)
{
    struct intake_join *join = NULL;
    struct hs_sent sent;
    size_t mine = peer_find(&away->r, LIT("none"));
    for (size_t i = 0; i < away->r.count; i++) {
        bool own = event_is(peer_get(&away->r, i), LIT("m.room.member"), away->ann.actor.user_id);
        mine = own && i + 1 == away->r.count ? i : mine;
    }
    if (mine == SIZE_MAX) {
        mine = peer_member(&away->r, &away->by_ann, away->ann.actor.user_id, "join");
    }
    struct intake_join_start start = {.room_id = away->r.room_id,
                                      .version = away->r.rules->version,
                                      .join = peer_get(&away->r, mine),
                                      .is_partial = how == AWAY_PARTIAL,
                                      .servers = &away->far.name,
                                      .server_count = 1};
    TRY(hs_intake_join_begin(&away->h.hs, &away->h.ctx, &start, &join));
    struct err err = add_all(away, join, mine, how == AWAY_PARTIAL);
    if (err.code != 0) {
        hs_intake_join_abort(&join);
        return err;
    }
    return hs_intake_join_finish(&join, &away->h.ctx, &away->room, &sent);
}

void away_join(struct away *away, enum away_join how)
{
    must(away_try_join(away, how));
    ASSERT(hs_room_is_partial(away->room) == (how == AWAY_PARTIAL));
}

static void tell(void *arg, const struct check_difference *difference)
{
    (void)arg;
    fprintf(stderr, "%s: %lld %.*s %s\n", check_index_name(difference->index),
            (long long)difference->number, (int)difference->event_id.len, difference->event_id.ptr,
            difference->what);
}

void away_expect_sound(struct away *away)
{
    struct check_result result;
    struct check_options options = {.deep = true, .report = tell};
    house_settle(&away->h);
    must(hs_check(&away->h.hs, &away->h.ctx, &options, &result));
    ASSERT(result.differences == 0);
}

void away_close(struct away *away)
{
    away_expect_sound(away);
    peer_room_close(&away->r);
    house_close(&away->h);
}

void away_restart(struct away *away)
{
    house_settle(&away->h);
    house_next_job(&away->h);
    hs_rooms_free(&away->h.hs.rooms);
    away->h.hs.rooms = hs_rooms_new(&away->h.hs, 10);
    must(hs_room_get_by_id(&away->h.hs, &away->h.ctx, away->r.room_id, &away->room));
}

struct intake_report away_take(struct away *away, size_t at)
{
    struct intake_report report;
    struct intake intake = {.event = peer_get(&away->r, at)};
    must(hs_intake_event(&away->h.hs, &away->h.ctx, away->room, &intake, &report));
    return report;
}

size_t away_say(struct away *away, const struct peer_draft *by, const size_t *prev, size_t count)
{
    struct peer_draft draft = *by;
    draft.type = "m.room.message";
    draft.content = "{\"body\":\"b\",\"msgtype\":\"m.text\"}";
    draft.prev = prev;
    draft.prev_count = count;
    return peer_make(&away->r, &draft);
}

enum membership away_membership(struct away *away, struct slice user)
{
    enum membership found = MEMBERSHIP_NONE;
    uint64_t root = hs_room_head(away->room).root;
    must(hs_membership_at(&away->h.hs, &away->h.ctx, away->room, root, user, &found));
    return found;
}

static int by_value(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* In memory of its own, so that the job's is what completing takes. */
struct err away_complete(struct away *away, const struct event_id *ids, size_t count)
{
    struct ctx own = {.arena = arena_new(), .now = away->h.ctx.now, .log = away->h.ctx.log};
    int64_t *numbers = arena_array(own.arena, count + 1, sizeof *numbers);
    struct err err = OK;
    for (size_t i = 0; i < count && err.code == 0; i++) {
        uint64_t room = 0;
        bool found = false;
        err = hs_event_locate(&away->h.hs, &own, ids[i].s, &room, &numbers[i], &found);
        ASSERT(err.code != 0 || found);
    }
    qsort(numbers, count, sizeof *numbers, by_value);
    struct intake_whole whole = {.numbers = numbers, .count = count};
    if (err.code == 0) {
        err = hs_room_complete(&away->h.hs, &away->h.ctx, away->room, &whole);
    }
    ctx_finish(&own);
    arena_free(&own.arena);
    return err;
}

size_t away_end_count(struct away *away)
{
    struct event_id *ids = NULL;
    size_t count = 0;
    must(hs_room_extremities(&away->h.hs, &away->h.ctx, away->room, &ids, &count));
    return count;
}

struct stored_event away_stored(struct away *away, size_t at)
{
    struct stored_event event = {0};
    bool found = false;
    struct slice id = peer_get(&away->r, at)->id.s;
    must(hs_event_find(&away->h.hs, &away->h.ctx, away->room, id, &event, &found));
    ASSERT(found);
    return event;
}
