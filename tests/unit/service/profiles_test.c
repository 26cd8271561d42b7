#include "homeserver/service/profiles.h"

#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann;
static int changes;

static struct err count_changes(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice field)
{
    (void)hs;
    (void)ctx;
    (void)field;
    changes += user == ann;
    return OK;
}

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    ann = world_user(&w, "ann");
    changes = 0;
    hs_on_profile_change(&w.hs, count_changes);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static uint32_t set(const char *field, const char *json)
{
    struct json value;
    assert_int_equal(json_parse(w.ctx.arena, slice_of(json), &value).code, 0);
    return hs_profile_set(&w.hs, &w.ctx, ann, slice_of(field), &value).code;
}

static struct slice profile(void)
{
    struct json value;
    assert_int_equal(hs_profile_get(&w.hs, &w.ctx, LIT("@ann:test"), &value).code, 0);
    return json_canonical(w.ctx.arena, &value);
}

static void fields_are_set_changed_and_removed(void **state)
{
    struct slice name;
    struct slice avatar;
    (void)state;
    assert_true(slice_eq(profile(), LIT("{}")));
    assert_int_equal(set("displayname", "\"Ann\""), 0);
    assert_int_equal(set("displayname", "\"Ann\""), 0);
    assert_int_equal(set("m.tz", "\"Europe/Berlin\""), 0);
    assert_int_equal(set("org.example.pets", "[{\"cat\":1}]"), 0);
    assert_int_equal(changes, 4); /* one more to finish what may have stopped */
    assert_true(slice_eq(profile(), LIT("{\"displayname\":\"Ann\",\"m.tz\":\"Europe/Berlin\","
                                        "\"org.example.pets\":[{\"cat\":1}]}")));
    assert_int_equal(hs_profile_names(&w.hs, &w.ctx, ann, &name, &avatar).code, 0);
    assert_true(slice_eq(name, LIT("Ann")));
    assert_null(avatar.ptr);
    assert_int_equal(set("displayname", "\"\""), 0);
    assert_int_equal(hs_profile_set(&w.hs, &w.ctx, ann, LIT("m.tz"), NULL).code, 0);
    assert_int_equal(hs_profile_set(&w.hs, &w.ctx, ann, LIT("m.tz"), NULL).code, 0);
    assert_int_equal(changes, 7);
    assert_true(slice_eq(profile(), LIT("{\"org.example.pets\":[{\"cat\":1}]}")));
}

static void the_grammar_and_the_types_are_checked(void **state)
{
    static const char *const bad[] = {"", "Displayname", "1a", "a b", ".a", "m/x"};
    char key[257];
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(set(bad[i], "1"), ERR_M_INVALID_PARAM);
    }
    memset(key, 'a', sizeof key - 1);
    key[256] = 0;
    assert_int_equal(set(key, "1"), ERR_M_KEY_TOO_LARGE);
    key[255] = 0;
    assert_int_equal(set(key, "1"), 0);
    assert_int_equal(set("displayname", "1"), ERR_M_BAD_JSON);
    assert_int_equal(set("avatar_url", "null"), ERR_M_BAD_JSON);
}

static void a_profile_has_at_most_64_kib(void **state)
{
    static char text[PROFILE_BYTES_MAX + 3];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[0] = '"';
    text[sizeof text - 2] = '"';
    assert_int_equal(set("a.b", text), ERR_M_PROFILE_TOO_LARGE);
    assert_true(slice_eq(profile(), LIT("{}")));
    text[30000] = '"'; /* 30,001 bytes */
    text[30001] = 0;
    assert_int_equal(set("a.b", text), 0);
    assert_int_equal(set("a.c", text), 0);
    assert_int_equal(set("a.d", text), ERR_M_PROFILE_TOO_LARGE);
    assert_int_equal(set("a.c", text), 0);
}

static void unknown_users_have_no_profile(void **state)
{
    struct json value;
    (void)state;
    assert_int_equal(hs_profile_get(&w.hs, &w.ctx, LIT("@bob:test"), &value).code, ERR_M_NOT_FOUND);
    assert_int_equal(hs_profile_get(&w.hs, &w.ctx, LIT("@bob:elsewhere"), &value).code,
                     ERR_M_NOT_FOUND);
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(fields_are_set_changed_and_removed),
        WITH_WORLD(the_grammar_and_the_types_are_checked),
        WITH_WORLD(a_profile_has_at_most_64_kib),
        WITH_WORLD(unknown_users_have_no_profile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
