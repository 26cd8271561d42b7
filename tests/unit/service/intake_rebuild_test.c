/* Checking, rebuilding and purging rooms with forks, outliers, gaps, history and invites. */
#include "homeserver/service/check.h"
#include "homeserver/service/purge.h"
#include "homeserver/service/rebuild.h"
#include "homeserver/service/room_priv.h"
#include "tests/support/away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct away a;
static size_t old;

/* A room that has everything: history, a redaction that waits, forks, what was refused. */
static int open_house(void **state)
{
    struct event_id ids[16];
    size_t added = 0;
    (void)state;
    away_open(&a, "10");
    away_say(&a, &a.by_rob, NULL, 0);
    old = away_say(&a, &a.by_rob, NULL, 0);
    away_join(&a, AWAY_WHOLE);
    const struct event *events[] = {peer_get(&a.r, old)};
    const struct resolve_set *before = &a.r.events[old].before;
    for (size_t i = 0; i < before->count; i++) {
        ids[i] = before->items[i].event;
    }
    struct intake_history history = {
        .events = events, .count = 1, .state = ids, .state_count = before->count};
    assert_int_equal(hs_intake_history(&a.h.hs, &a.h.ctx, a.room, &history, &added).code, 0);
    assert_int_equal(added, 1);
    struct peer_draft redaction = a.by_rob;
    redaction.type = "m.room.redaction";
    redaction.content = "{}";
    redaction.redacts = arena_cstr(a.r.arena_owned, peer_get(&a.r, old - 1)->id.s);
    away_take(&a, peer_make(&a.r, &redaction));
    size_t fork = a.r.count - 1;
    struct peer_draft here = {.prev = &fork, .prev_count = 1, .peer = &a.far};
    here.sender = a.rob;
    away_take(&a, peer_member(&a.r, &here, a.rob, "join"));
    away_take(&a, peer_member(&a.r, &here, a.ria, "ban"));
    here.sender = a.ria;
    away_take(&a, peer_member(&a.r, &here, a.rob, "ban"));
    away_take(&a, away_say(&a, &a.by_rob, &fork, 1));
    assert_int_equal(away_end_count(&a), 2);
    house_say(&a.h, a.room, &a.ann, "one again");
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    away_close(&a);
    return 0;
}

static void drop_derived(void)
{
    struct ctx *ctx = &a.h.ctx;
    struct store_update *update =
        store_update_new(ctx, room_derived_object(ctx, hs_room_info(a.room).number));
    store_delete_range(update, (struct slice){0}, (struct slice){0});
    assert_int_equal(store_write(a.h.hs.store, ctx, &update, 1).code, 0);
}

static struct store_rows derived_rows(void)
{
    struct store_rows rows;
    struct ctx *ctx = &a.h.ctx;
    assert_int_equal(store_read_range(a.h.hs.store, ctx,
                                      room_derived_object(ctx, hs_room_info(a.room).number),
                                      (struct store_range){0}, &rows)
                         .code,
                     0);
    return rows;
}

static void what_derives_is_made_anew(void **state)
{
    struct check_result result;
    struct check_options options = {0};
    (void)state;
    struct store_rows before = derived_rows();
    drop_derived();
    house_settle(&a.h);
    assert_int_equal(hs_check(&a.h.hs, &a.h.ctx, &options, &result).code, 0);
    assert_true(result.differences > 0);
    assert_int_equal(hs_rebuild(&a.h.hs, &a.h.ctx, &options, &result).code, 0);
    assert_int_equal(result.differences, result.healed);
    struct store_rows after = derived_rows();
    size_t marks = 0; /* the watermark is written by the next event */
    for (size_t i = 0; i < before.count; i++) {
        marks += before.rows[i].key.ptr[0] == DERIVED_KEY_WATERMARK;
    }
    assert_int_equal(after.count, before.count - marks);
    for (size_t i = 0, j = 0; i < before.count; i++) {
        if (before.rows[i].key.ptr[0] != DERIVED_KEY_WATERMARK) {
            assert_true(slice_eq(before.rows[i].key, after.rows[j].key));
            assert_true(slice_eq(before.rows[i].value, after.rows[j].value));
            j++;
        }
    }
}

static void a_purged_room_leaves_nothing(void **state)
{
    struct purge_result result;
    struct peer_room other;
    uint64_t number = 0;
    uint64_t room = hs_room_info(a.room).number;
    int64_t event = 0;
    bool found = false;
    (void)state;
    assert_int_equal(hs_room_purge(&a.h.hs, &a.h.ctx, room, &result).code, 0);
    for (size_t i = 0; i < a.r.count; i++) {
        struct slice id = peer_get(&a.r, i)->id.s;
        assert_int_equal(hs_event_locate(&a.h.hs, &a.h.ctx, id, &number, &event, &found).code, 0);
        assert_false(found);
    }
    peer_room_open(&other, "12", &a.far, a.ria);
    size_t at = peer_member(&other, &a.by_ria, a.ann.actor.user_id, "invite");
    struct intake_invite given = {
        .room_id = other.room_id, .version = LIT("12"), .event = peer_get(&other, at)};
    assert_int_equal(hs_intake_invite(&a.h.hs, &a.h.ctx, &given).code, 0);
    assert_int_equal(hs_room_find(&a.h.hs, &a.h.ctx, other.room_id, &number, &found).code, 0);
    assert_int_equal(hs_room_purge(&a.h.hs, &a.h.ctx, number, &result).code, 0);
    struct user_rooms rooms;
    assert_int_equal(hs_user_rooms(&a.h.hs, &a.h.ctx, a.ann.actor.user, &rooms).code, 0);
    assert_int_equal(rooms.count, 0);
    peer_room_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_derives_is_made_anew, open_house, close_house),
        cmocka_unit_test_setup_teardown(a_purged_room_leaves_nothing, open_house, close_house),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
