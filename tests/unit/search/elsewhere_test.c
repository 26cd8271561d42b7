/* What comes from other servers: members, messages, history that was fetched. */
#include "homeserver/search/search.h"
#include "homeserver/service/news.h"
#include "tests/support/away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct away a;
static char folder[64];
static size_t old; /* a message from before the join */

static void start_search(void)
{
    assert_int_equal(search_new(&a.h.hs, slice_of(folder), &a.h.hs.search).code, 0);
    assert_int_equal(search_start(a.h.hs.search).code, 0);
}

static int open_house(void **state)
{
    (void)state;
    away_open(&a, "10");
    old = away_say(&a, &a.by_ria, NULL, 0);
    house_settle(&a.h);
    snprintf(folder, sizeof folder, "/tmp/myelin-search-XXXXXX");
    assert_non_null(mkdtemp(folder));
    start_search();
    away_join(&a, AWAY_WHOLE);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    search_stop(a.h.hs.search);
    search_free(&a.h.hs.search);
    search_remove(slice_of(folder));
    rmdir(folder);
    away_close(&a);
    return 0;
}

static struct search_db *reader(struct ctx *ctx)
{
    struct search_db *db = NULL;
    house_settle(&a.h);
    search_settle(a.h.hs.search);
    *ctx = (struct ctx){.arena = arena_new(), .now = &a.h.now};
    assert_int_equal(search_reader(a.h.hs.search, ctx, &db).code, 0);
    return db;
}

static size_t count_texts(const char *term)
{
    struct ctx ctx;
    struct search_hits hits;
    struct search_room where = {hs_room_info(a.room).number, SEARCH_UPTO_ALL};
    struct search_query query = {
        .term = slice_of(term), .keys = SEARCH_DOC_KEYS, .rooms = &where, .room_count = 1};
    struct search_db *db = reader(&ctx);
    assert_int_equal(search_find(db, &ctx, &query, &hits).code, 0);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return hits.count;
}

static size_t count_people(const char *term)
{
    struct ctx ctx;
    struct search_candidates found;
    struct search_db *db = reader(&ctx);
    assert_int_equal(search_people_find(db, &ctx, slice_of(term), 10, &found).code, 0);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return found.count;
}

static void members_of_a_joined_room_are_known(void **state)
{
    (void)state;
    assert_int_equal(count_people("ria"), 1);
    assert_int_equal(count_people("rob far"), 1);
}

static void who_leaves_the_last_room_is_not(void **state)
{
    (void)state;
    size_t left = peer_member(&a.r, &a.by_rob, a.rob, "leave");
    away_take(&a, left);
    assert_int_equal(count_people("rob"), 0);
    assert_int_equal(count_people("ria"), 1);
}

static void messages_are_found_as_they_come(void **state)
{
    (void)state;
    size_t before = count_texts("hello");
    struct peer_draft draft = a.by_ria;
    draft.type = "m.room.message";
    draft.content = "{\"msgtype\":\"m.text\",\"body\":\"hello there\"}";
    away_take(&a, peer_make(&a.r, &draft));
    assert_int_equal(count_texts("hello there"), before + 1);
}

static const char *old_text(void)
{
    struct slice body = json_get_string(peer_get(&a.r, old)->content, LIT("body"));
    return arena_cstr(a.r.arena_owned, body);
}

static void fetch_history(void)
{
    const struct event *event = peer_get(&a.r, old);
    const struct resolve_set *before = &a.r.events[old].before;
    struct event_id ids[16];
    size_t added = 0;
    for (size_t i = 0; i < before->count; i++) {
        ids[i] = before->items[i].event;
    }
    struct intake_history history = {
        .events = &event, .count = 1, .state = ids, .state_count = before->count};
    assert_int_equal(hs_intake_history(&a.h.hs, &a.h.ctx, a.room, &history, &added).code, 0);
    assert_int_equal(added, 1);
}

static size_t notes_left(void)
{
    struct history_notes left;
    assert_int_equal(hs_news_history_left(&a.h.hs, &a.h.ctx, &left).code, 0);
    return left.count;
}

static void history_that_is_fetched_is_found(void **state)
{
    (void)state;
    assert_int_equal(count_texts(old_text()), 0);
    fetch_history();
    assert_int_equal(count_texts(old_text()), 1);
    search_settle(a.h.hs.search);
    assert_int_equal(notes_left(), 0);
}

/* Without its note it would be found after a rebuild only. */
static void history_that_came_before_a_crash_is_found_after_it(void **state)
{
    (void)state;
    assert_int_equal(count_texts(old_text()), 0);
    search_abandon(a.h.hs.search);
    fetch_history();
    assert_int_equal(notes_left(), 1);
    search_free(&a.h.hs.search);
    start_search();
    assert_int_equal(count_texts(old_text()), 1);
    search_settle(a.h.hs.search);
    assert_int_equal(notes_left(), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(members_of_a_joined_room_are_known),
        TEST(who_leaves_the_last_room_is_not),
        TEST(messages_are_found_as_they_come),
        TEST(history_that_is_fetched_is_found),
        TEST(history_that_came_before_a_crash_is_found_after_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
