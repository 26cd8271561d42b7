/* What /sync tells of rooms whose state changes by resolution, by completion, and of invites from
 * other servers. */
#include "tests/support/away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct away a;
static struct guest bob;

static bool by_need; /* members are lazy-loaded */
static size_t limit; /* of the timeline; 0 = the usual one */

static struct json sync_of(const struct guest *guest, const struct json *before)
{
    struct sync_filter filter = sync_filter_all();
    filter.room_state.lazy_load_members = by_need;
    if (limit) {
        filter.room_timeline.limit = limit;
        filter.room_timeline.limit_given = true;
    }
    struct sync_request request = {.user = guest->actor.user,
                                   .user_id = guest->actor.user_id,
                                   .device_id = guest->device_id,
                                   .filter = &filter};
    struct sync_answer answer;
    struct buf body;
    struct json json;
    struct ctx *ctx = &a.h.ctx;
    struct slice since = before ? json_get_string(before, LIT("next_batch")) : (struct slice){0};
    house_settle(&a.h);
    assert_int_equal(sync_parse_since(a.h.hs.sync, since, &request).code, 0);
    buf_init_arena(&body, ctx->arena, 1 << 26);
    assert_int_equal(sync_respond(a.h.hs.sync, ctx, &request, &body, &answer).code, 0);
    assert_int_equal(json_parse(ctx->arena, buf_slice(&body), &json).code, 0);
    return json;
}

static const struct json *room_of(const struct json *answer, const char *category,
                                  struct slice room_id)
{
    const struct json *rooms = json_get(answer, LIT("rooms"));
    return json_get(json_get(rooms, slice_of(category)), room_id);
}

/* The event of this type and state key in room.<part>.events, or NULL. */
static const struct json *event_in(const struct json *room, const char *part, const char *type,
                                   struct slice state_key)
{
    const struct json *events = json_get(json_get(room, slice_of(part)), LIT("events"));
    for (uint32_t i = 0; events && i < events->count; i++) {
        const struct json *event = &events->items[i];
        if (json_is_string(json_get(event, LIT("type")), slice_of(type)) &&
            (!state_key.ptr || json_is_string(json_get(event, LIT("state_key")), state_key))) {
            return event;
        }
    }
    return NULL;
}

static int close_house(void **state)
{
    (void)state;
    by_need = false;
    limit = 0;
    away_close(&a);
    return 0;
}

static int open_whole(void **state)
{
    (void)state;
    away_open(&a, "10");
    away_join(&a, AWAY_WHOLE);
    bob = house_guest(&a.h, "bob");
    return 0;
}

static int open_partial(void **state)
{
    (void)state;
    away_open(&a, "10");
    away_join(&a, AWAY_PARTIAL);
    return 0;
}

static void a_stay_that_resolution_undoes_ends(void **state)
{
    (void)state;
    size_t fork = a.r.count - 1;
    house_member(&a.h, a.room, &bob, &bob, MEMBERSHIP_JOIN);
    struct json first = sync_of(&bob, NULL);
    assert_non_null(room_of(&first, "join", a.r.room_id));
    struct peer_draft rules = a.by_ria;
    rules.type = "m.room.join_rules";
    rules.state_key = "";
    rules.content = "{\"join_rule\":\"invite\"}";
    rules.prev = &fork;
    rules.prev_count = 1;
    assert_int_equal(away_take(&a, peer_make(&a.r, &rules)).result, INTAKE_ACCEPTED);
    struct json second = sync_of(&bob, &first);
    assert_null(room_of(&second, "join", a.r.room_id));
    assert_non_null(room_of(&second, "leave", a.r.room_id));
    struct json third = sync_of(&bob, &second);
    assert_null(room_of(&third, "leave", a.r.room_id));
}

static void a_ban_on_another_branch_shows_the_ban(void **state)
{
    (void)state;
    size_t fork = a.r.count - 1;
    struct json first = sync_of(&a.ann, NULL);
    house_say(&a.h, a.room, &a.ann, "here");
    struct peer_draft ria_here = a.by_ria;
    ria_here.prev = &fork;
    ria_here.prev_count = 1;
    away_take(&a, peer_member(&a.r, &ria_here, a.ann.actor.user_id, "ban"));
    struct json second = sync_of(&a.ann, &first);
    const struct json *room = room_of(&second, "leave", a.r.room_id);
    assert_non_null(room);
    assert_non_null(event_in(room, "timeline", "m.room.member", a.ann.actor.user_id));
}

static void a_gap_makes_a_limited_timeline(void **state)
{
    struct event_id ids[16];
    struct intake_report report;
    (void)state;
    struct json first = sync_of(&a.ann, NULL);
    away_say(&a, &a.by_rob, NULL, 0); /* never comes */
    size_t late = away_say(&a, &a.by_rob, NULL, 0);
    const struct resolve_set *before = &a.r.events[late].before;
    for (size_t i = 0; i < before->count; i++) {
        ids[i] = before->items[i].event;
    }
    struct intake intake = {
        .event = peer_get(&a.r, late), .state = ids, .state_count = before->count};
    assert_int_equal(hs_intake_event(&a.h.hs, &a.h.ctx, a.room, &intake, &report).code, 0);
    assert_int_equal(report.result, INTAKE_ACCEPTED);
    struct json second = sync_of(&a.ann, &first);
    const struct json *timeline = json_get(room_of(&second, "join", a.r.room_id), LIT("timeline"));
    assert_true(json_get(timeline, LIT("limited"))->boolean);
}

static void events_that_failed_are_not_shown(void **state)
{
    (void)state;
    struct json first = sync_of(&a.ann, NULL);
    size_t before = a.r.count - 1;
    assert_int_equal(away_take(&a, peer_member(&a.r, &a.by_rob, a.ria, "ban")).result,
                     INTAKE_REJECTED);
    away_take(&a, peer_member(&a.r, &a.by_ria, a.rob, "ban"));
    assert_int_equal(away_take(&a, away_say(&a, &a.by_rob, &before, 1)).result, INTAKE_SOFT_FAILED);
    struct json second = sync_of(&a.ann, &first);
    const struct json *room = room_of(&second, "join", a.r.room_id);
    assert_null(event_in(room, "timeline", "m.room.message", (struct slice){0}));
    assert_null(event_in(room, "timeline", "m.room.member", a.ria));
    assert_non_null(event_in(room, "timeline", "m.room.member", a.rob));
}

static void the_rest_of_the_state_comes_when_it_is_here(void **state)
{
    struct event_id ids[16];
    (void)state;
    struct json first = sync_of(&a.ann, NULL);
    assert_null(event_in(room_of(&first, "join", a.r.room_id), "state", "m.room.member", a.rob));
    const struct resolve_set *before = &a.r.events[a.r.count - 1].before;
    for (size_t i = 0; i < before->count; i++) {
        struct intake_report report;
        ids[i] = before->items[i].event;
        const struct event *event = peer_get(&a.r, peer_find(&a.r, ids[i].s));
        assert_int_equal(hs_intake_outlier(&a.h.hs, &a.h.ctx, a.room, event, &report).code, 0);
    }
    assert_int_equal(away_complete(&a, ids, before->count).code, 0);
    struct json second = sync_of(&a.ann, &first);
    const struct json *room = room_of(&second, "join", a.r.room_id);
    assert_non_null(room);
    assert_non_null(event_in(room, "state", "m.room.member", a.rob));
    struct json third = sync_of(&a.ann, &second);
    assert_null(room_of(&third, "join", a.r.room_id));
}

static void a_sender_of_a_partial_room_is_shown_as_the_event_cites_it(void **state)
{
    (void)state;
    by_need = true;
    struct json first = sync_of(&a.ann, NULL);
    away_take(&a, away_say(&a, &a.by_rob, NULL, 0));
    struct json second = sync_of(&a.ann, &first);
    const struct json *room = room_of(&second, "join", a.r.room_id);
    assert_non_null(event_in(room, "state", "m.room.member", a.rob));
    away_take(&a, away_say(&a, &a.by_rob, NULL, 0));
    struct json third = sync_of(&a.ann, &second);
    room = room_of(&third, "join", a.r.room_id);
    assert_non_null(room);
    assert_null(event_in(room, "state", "m.room.member", a.rob));
}

static void an_invite_from_elsewhere_comes_and_goes(void **state)
{
    struct peer_room other;
    (void)state;
    struct json first = sync_of(&bob, NULL);
    peer_room_open(&other, "12", &a.far, a.ria);
    size_t at = peer_member(&other, &a.by_ria, bob.actor.user_id, "invite");
    struct intake_invite given = {
        .room_id = other.room_id, .version = LIT("12"), .event = peer_get(&other, at)};
    assert_int_equal(hs_intake_invite(&a.h.hs, &a.h.ctx, &given).code, 0);
    struct json second = sync_of(&bob, &first);
    const struct json *room = room_of(&second, "invite", other.room_id);
    assert_non_null(event_in(room, "invite_state", "m.room.member", bob.actor.user_id));
    assert_int_equal(
        hs_intake_uninvite(&a.h.hs, &a.h.ctx, other.room_id, bob.actor.user, NULL).code, 0);
    struct json third = sync_of(&bob, &second);
    assert_non_null(room_of(&third, "leave", other.room_id));
    peer_room_close(&other);
}

/* So many that members are not looked through. */
static size_t fill_room(void)
{
    struct slice name = {0};
    for (int i = 0; i < 100; i++) {
        name = peer_user(a.h.conf_arena, &a.far, arena_printf(a.h.conf_arena, "m%d", i).ptr);
        struct peer_draft draft = {.peer = &a.far, .sender = name};
        away_take(&a, peer_member(&a.r, &draft, name, "join"));
    }
    return a.r.count - 1;
}

/* The timeline begins on a branch that does not know of cid, who speaks later on. */
static void who_speaks_is_shown_whatever_branch_comes_first(void **state)
{
    (void)state;
    size_t base = fill_room();
    struct slice cid = peer_user(a.h.conf_arena, &a.far, "cid");
    struct peer_draft by_cid = {.peer = &a.far, .sender = cid, .prev = &base, .prev_count = 1};
    size_t entered = peer_member(&a.r, &by_cid, cid, "join");
    size_t ends[] = {entered, away_say(&a, &a.by_rob, &base, 1)};
    size_t said = away_say(&a, &by_cid, ends, 2);
    assert_int_equal(away_take(&a, ends[0]).result, INTAKE_ACCEPTED);
    assert_int_equal(away_take(&a, ends[1]).result, INTAKE_ACCEPTED);
    assert_int_equal(away_take(&a, said).result, INTAKE_ACCEPTED);
    by_need = true;
    limit = 2;
    struct json answer = sync_of(&a.ann, NULL);
    const struct json *room = room_of(&answer, "join", a.r.room_id);
    assert_null(event_in(room, "timeline", "m.room.member", cid));
    assert_non_null(event_in(room, "timeline", "m.room.message", (struct slice){0}));
    assert_non_null(event_in(room, "state", "m.room.member", cid));
}

int main(void)
{
#define WHOLE(name) cmocka_unit_test_setup_teardown(name, open_whole, close_house)
#define PARTIAL(name) cmocka_unit_test_setup_teardown(name, open_partial, close_house)
    const struct CMUnitTest tests[] = {
        WHOLE(a_stay_that_resolution_undoes_ends),
        WHOLE(a_ban_on_another_branch_shows_the_ban),
        WHOLE(a_gap_makes_a_limited_timeline),
        WHOLE(events_that_failed_are_not_shown),
        WHOLE(an_invite_from_elsewhere_comes_and_goes),
        WHOLE(who_speaks_is_shown_whatever_branch_comes_first),
        PARTIAL(the_rest_of_the_state_comes_when_it_is_here),
        PARTIAL(a_sender_of_a_partial_room_is_shown_as_the_event_cites_it),
    };
#undef WHOLE
#undef PARTIAL
    return cmocka_run_group_tests(tests, NULL, NULL);
}
