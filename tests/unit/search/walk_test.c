/* The walk through all history with each call of the store, or each statement of the index, failing
 * once: whatever failed, going on ends with the same index. */
#include "homeserver/search/walk.h"

#include "homeserver/search/find.h"
#include "homeserver/search/people.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static struct house h;
static struct guest ann;
static struct room *room;
static struct search_feed feed;
static struct search_walk *walk;
static char folder[64], path[96];

static void open_index(void)
{
    bool is_new = false;
    search_index_remove(slice_of(path));
    feed = (struct search_feed){.hs = &h.hs, .takes_texts = true};
    assert_int_equal(search_index_open(slice_of(path), NULL, &feed.index, &is_new).code, 0);
    assert_true(is_new);
    walk = search_walk_new(&feed);
    search_walk_again(walk, SEARCH_AGAIN_EMPTY);
}

static void close_index(void)
{
    search_walk_free(&walk);
    search_index_close(&feed.index);
}

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    snprintf(folder, sizeof folder, "/tmp/myelin-search-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/search.db", folder);
    ann = house_guest(&h, "ann");
    room = house_room(&h, &ann, "{\"preset\":\"public_chat\",\"name\":\"Otters\"}");
    for (int i = 0; i < 5; i++) {
        house_say(&h, room, &ann, "an otter swims");
    }
    house_settle(&h);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    search_index_remove(slice_of(path));
    rmdir(folder);
    house_close(&h);
    return 0;
}

/* What the consumer does after a failure: flushing may have lost what came before it. */
static bool step(struct ctx *ctx, bool *more_out)
{
    struct err err = search_walk_step(walk, ctx, more_out);
    struct err flushed = search_index_flush(feed.index);
    if (flushed.code != 0) {
        search_walk_again(walk, SEARCH_AGAIN_OVER);
    }
    return err.code != 0 || flushed.code != 0;
}

/* Goes on to the end; whether anything failed. */
static bool finish(void)
{
    bool more = true;
    bool has_failed = false;
    for (int i = 0; more; i++) {
        struct ctx ctx = {.arena = arena_new(), .now = &h.now};
        bool failed = step(&ctx, &more);
        more = more || failed;
        has_failed = has_failed || failed;
        ctx_finish(&ctx);
        arena_free(&ctx.arena);
        assert_true(i < 100);
    }
    return has_failed;
}

static void check_whole(void)
{
    struct search_room where = {hs_room_info(room).number, SEARCH_UPTO_ALL};
    struct search_query query = {
        .term = LIT("otter"), .keys = SEARCH_DOC_KEYS, .rooms = &where, .room_count = 1};
    struct search_db *db = search_index_db(feed.index);
    struct search_hits hits;
    struct search_candidates people;
    uint64_t *rooms = NULL;
    size_t room_count = 0;
    assert_int_equal(search_find(db, &h.ctx, &query, &hits).code, 0);
    assert_int_equal(hits.count, 6);
    assert_int_equal(search_people_find(db, &h.ctx, LIT("ann"), 10, &people).code, 0);
    assert_int_equal(people.count, 1);
    assert_int_equal(search_rooms_open(db, &h.ctx, &rooms, &room_count).code, 0);
    assert_int_equal(room_count, 1);
}

static void the_store_may_fail_at_any_call(void **state)
{
    int failures = 0;
    (void)state;
    for (int32_t k = 1; k < 200; k++) {
        open_index();
        store_fail_after(h.hs.store, k);
        bool failed = finish();
        store_fail_after(h.hs.store, 0);
        failures += failed ? 1 : 0;
        check_whole();
        close_index();
        if (!failed) {
            break;
        }
    }
    assert_true(failures > 3);
}

static void the_index_may_fail_at_any_statement(void **state)
{
    int failures = 0;
    (void)state;
    for (int32_t k = 1; k < 200; k++) {
        open_index();
        search_db_fail_after(search_index_db(feed.index), k);
        bool failed = finish();
        search_db_fail_after(search_index_db(feed.index), 0);
        failures += failed ? 1 : 0;
        check_whole();
        close_index();
        if (!failed) {
            break;
        }
    }
    assert_true(failures > 10);
}

static void notes_are_kept_until_they_are_done(void **state)
{
    (void)state;
    for (int32_t k = 1; k < 20; k++) {
        open_index();
        finish();
        struct ctx ctx = {.arena = arena_new(), .now = &h.now};
        assert_int_equal(search_index_drop_room(feed.index, hs_room_info(room).number).code, 0);
        search_walk_note_room(walk, 12345); /* no such room */
        search_walk_note_history(
            walk,
            &(struct history_note){.room = hs_room_info(room).number, .first = 1, .last = 1000});
        search_walk_note_account(walk, ann.actor.user);
        search_db_fail_after(search_index_db(feed.index), k);
        finish();
        search_db_fail_after(search_index_db(feed.index), 0);
        check_whole();
        ctx_finish(&ctx);
        arena_free(&ctx.arena);
        close_index();
    }
}

static void ids_lead_back(void **state)
{
    static const struct {
        uint64_t room;
        int64_t number;
        bool fits;
    } cases[] = {{1, 1, true},
                 {1, -1, true},
                 {7, (INT64_C(1) << 35) - 1, true},
                 {7, -(INT64_C(1) << 34), true},
                 {(1 << 27) - 1, 5, true},
                 {1 << 27, 5, false},
                 {1, INT64_C(1) << 35, false}};
    int64_t before = 0;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int64_t id = 0;
        assert_int_equal(search_id_of(cases[i].room, cases[i].number, &id), cases[i].fits);
        if (cases[i].fits) {
            assert_int_equal(search_id_room(id), cases[i].room);
            assert_int_equal(search_id_number(id), cases[i].number);
            assert_true(id > 0);
        }
    }
    for (int64_t number = -3; number < 3; number++) { /* in the order of the room */
        int64_t id = 0;
        assert_true(search_id_of(2, number, &id));
        assert_true(id > before);
        before = id;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_store_may_fail_at_any_call),
        cmocka_unit_test(the_index_may_fail_at_any_statement),
        cmocka_unit_test(notes_are_kept_until_they_are_done),
        cmocka_unit_test(ids_lead_back),
    };
    return cmocka_run_group_tests(tests, open_house, close_house);
}
