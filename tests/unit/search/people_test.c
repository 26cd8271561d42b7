/* Who is known under which name, and how much of it to whom. */
#include "homeserver/search/people.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

static struct now now;
static struct ctx ctx;
static struct search_index *index_;
static char folder[64], path[96];

static int open_index(void **state)
{
    bool is_new = false;
    (void)state;
    now = now_system();
    ctx = (struct ctx){.arena = arena_new(), .now = &now};
    snprintf(folder, sizeof folder, "/tmp/myelin-search-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/search.db", folder);
    assert_int_equal(search_index_open(slice_of(path), NULL, &index_, &is_new).code, 0);
    return 0;
}

static int close_index(void **state)
{
    (void)state;
    search_index_close(&index_);
    search_index_remove(slice_of(path));
    rmdir(folder);
    arena_free(&ctx.arena);
    return 0;
}

static void put(uint64_t user, const char *user_id, const char *name, uint64_t told_in)
{
    const struct search_person person = {.user = user,
                                         .user_id = slice_of(user_id),
                                         .display_name = slice_of(name),
                                         .told_in = told_in};
    assert_int_equal(search_people_put(index_, &ctx, &person).code, 0);
}

static struct search_candidates find(const char *term)
{
    struct search_candidates found;
    assert_int_equal(
        search_people_find(search_index_db(index_), &ctx, slice_of(term), 3, &found).code, 0);
    return found;
}

static void what_everybody_knows_stays(void **state)
{
    (void)state;
    put(1, "@zoe:far", "Zoe", 0);
    put(1, "@zoe:far", "Zuckerschnute", 7); /* a name for friends */
    assert_int_equal(find("zuckerschnute").count, 0);
    assert_int_equal(find("zoe").count, 1);
    put(1, "@zoe:far", "Zoe F.", 0);
    assert_memory_equal(find("zoe").items[0].person.display_name.ptr, "Zoe F.", 6);
}

static void what_a_room_tells_is_marked_with_it(void **state)
{
    (void)state;
    put(2, "@yan:far", "Yannick", 7);
    struct search_candidates found = find("yannick");
    assert_int_equal(found.count, 1);
    assert_int_equal(found.items[0].person.told_in, 7);
    assert_false(found.items[0].by_id);
    assert_true(find("yan").items[0].by_id);
    assert_true(find("yan far").items[0].by_id);
    assert_false(find("far yannick").items[0].by_id);
    put(2, "@yan:far", "Yannick", 0);
    assert_int_equal(find("yannick").items[0].person.told_in, 0);
}

static void the_list_of_candidates_ends(void **state)
{
    (void)state;
    for (uint64_t user = 10; user < 14; user++) {
        put(user, "@many:far", "Many", 0);
    }
    struct search_candidates found = find("many");
    assert_int_equal(found.count, 3);
    assert_true(found.has_more);
    assert_int_equal(search_people_drop(index_, &ctx, 10).code, 0);
    assert_int_equal(search_people_drop(index_, &ctx, 10).code, 0);
    assert_false(find("many").has_more);
}

static void a_term_without_words_finds_nobody(void **state)
{
    static const char *const terms[] = {"", " ", "***", "@", "\"", "-"};
    (void)state;
    put(1, "@zoe:far", "Zoe", 0);
    for (size_t i = 0; i < COUNT_OF(terms); i++) {
        assert_int_equal(find(terms[i]).count, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_index, close_index)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_everybody_knows_stays),
        TEST(what_a_room_tells_is_marked_with_it),
        TEST(the_list_of_candidates_ends),
        TEST(a_term_without_words_finds_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
