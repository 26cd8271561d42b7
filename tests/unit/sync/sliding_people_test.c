/* Presence and profiles in sliding sync. */
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/profiles.h"
#include "homeserver/sync/sliding.h"
#include "tests/support/sliding_asking.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PUBLIC "{\"preset\":\"public_chat\",\"room_version\":\"11\"}"
#define LISTS(members)                                                                             \
    "\"lists\":{\"all\":{\"range\":[0,9],\"timeline_limit\":1,\"required_state\":{\"include\":["   \
    "{\"type\":\"m.room.name\",\"state_key\":\"\"}],\"lazy_members\":" members "}}}"
#define PROFILES(options)                                                                          \
    "{" LISTS(                                                                                     \
        "false") ",\"extensions\":{\"org.matrix.msc4262.profiles\":{\"enabled\":true" options      \
                 "}}}"

struct fixture {
    struct house house;
    struct guest alice, bob, carol;
    struct room *room;
};

static void set_name(struct fixture *f, const struct guest *guest, const char *field,
                     const char *value)
{
    struct json json = json_string(slice_of(value ? value : ""));
    struct err err = hs_profile_set(&f->house.hs, &f->house.ctx, guest->actor.user, slice_of(field),
                                    value ? &json : NULL);
    assert_int_equal(err.code, 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    house_open(&f->house);
    f->alice = house_guest(&f->house, "alice");
    f->bob = house_guest(&f->house, "bob");
    f->carol = house_guest(&f->house, "carol");
    f->room = house_room(&f->house, &f->alice, PUBLIC);
    house_member(&f->house, f->room, &f->bob, &f->bob, MEMBERSHIP_JOIN);
    set_name(f, &f->bob, "displayname", "Bob");
    set_name(f, &f->bob, "m.tz", "Europe/Paris");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    house_close(&f->house);
    free(f);
    return 0;
}

static struct asked ask(struct fixture *f, const char *text, const struct asked *before)
{
    struct asked asked;
    struct slice pos = before ? before->pos : (struct slice){0};
    struct err err = sliding_ask(&f->house, &f->alice, text, pos, &asked);
    assert_int_equal(err.code, 0);
    return asked;
}

/* Canonical JSON of extensions.<name>, empty when it is not there. */
static const char *extension(struct fixture *f, const struct asked *asked, const char *name)
{
    struct arena *arena = f->house.ctx.arena;
    const struct json *found = asked_extension(asked, name);
    return found ? arena_cstr(arena, json_canonical(arena, found)) : "";
}

static const char *profiles(struct fixture *f, const struct asked *asked)
{
    return extension(f, asked, "org.matrix.msc4262.profiles");
}

static void profiles_of_a_room_come_with_it_once(void **state)
{
    struct fixture *f = *state;
    struct asked asked = ask(f, PROFILES(), NULL);
    assert_string_equal(profiles(f, &asked),
                        "{\"users\":{\"@bob:test\":{\"updated\":{\"displayname\":\"Bob\","
                        "\"m.tz\":\"Europe/Paris\"}}}}");
    struct asked next = ask(f, PROFILES(), &asked);
    assert_string_equal(profiles(f, &next), "");
    assert_false(next.answer.news);
    struct asked again = ask(f, PROFILES(), NULL);
    assert_string_equal(profiles(f, &again), profiles(f, &asked));
}

static void a_changed_profile_is_told_of(void **state)
{
    struct fixture *f = *state;
    struct asked asked = ask(f, PROFILES(), NULL);
    set_name(f, &f->bob, "m.tz", NULL);
    set_name(f, &f->bob, "org.example.mood", "merry");
    set_name(f, &f->bob, "org.example.mood", "sad");
    set_name(f, &f->carol, "m.tz", "Asia/Tokyo"); /* shares no room */
    set_name(f, &f->alice, "m.tz", "Asia/Tokyo");
    struct asked next = ask(f, PROFILES(), &asked);
    assert_true(next.answer.news);
    assert_string_equal(profiles(f, &next),
                        "{\"users\":{\"@alice:test\":{\"updated\":{\"m.tz\":\"Asia/Tokyo\"}},"
                        "\"@bob:test\":{\"removed\":[\"m.tz\"],"
                        "\"updated\":{\"org.example.mood\":\"sad\"}}}}");
    struct asked lost = ask(f, PROFILES(), &asked); /* the answer before did not arrive */
    assert_string_equal(profiles(f, &lost), profiles(f, &next));
    struct asked last = ask(f, PROFILES(), &lost);
    assert_string_equal(profiles(f, &last), "");
}

static void only_wanted_fields_are_told_and_others_when_they_are(void **state)
{
    struct fixture *f = *state;
    struct asked asked = ask(f, PROFILES(",\"fields\":[\"m.tz\"]"), NULL);
    assert_string_equal(profiles(f, &asked),
                        "{\"users\":{\"@bob:test\":{\"updated\":{\"m.tz\":\"Europe/Paris\"}}}}");
    set_name(f, &f->bob, "org.example.mood", "merry");
    struct asked next = ask(f, PROFILES(",\"fields\":[\"m.tz\"]"), &asked);
    assert_string_equal(profiles(f, &next), "");
    struct asked more = ask(f, PROFILES(",\"fields\":[\"m.tz\",\"org.example.mood\"]"), &next);
    assert_string_equal(profiles(f, &more),
                        "{\"users\":{\"@bob:test\":{\"updated\":{\"m.tz\":\"Europe/Paris\","
                        "\"org.example.mood\":\"merry\"}}}}");
    struct asked none = ask(f, PROFILES(",\"fields\":[]"), &more);
    assert_string_equal(profiles(f, &none), "");
}

static void who_comes_is_told_of_and_who_leaves_all_rooms_is_gone(void **state)
{
    struct fixture *f = *state;
    struct asked asked = ask(f, PROFILES(), NULL);
    set_name(f, &f->carol, "m.tz", "Asia/Tokyo");
    house_member(&f->house, f->room, &f->carol, &f->carol, MEMBERSHIP_JOIN);
    struct asked came = ask(f, PROFILES(), &asked);
    assert_string_equal(profiles(f, &came),
                        "{\"users\":{\"@carol:test\":{\"updated\":{\"m.tz\":\"Asia/Tokyo\"}}}}");
    house_member(&f->house, f->room, &f->carol, &f->carol, MEMBERSHIP_LEAVE);
    struct asked left = ask(f, PROFILES(), &came);
    assert_string_equal(profiles(f, &left), "{\"users\":{\"@carol:test\":null}}");
}

static void with_lazy_members_profiles_come_with_the_members(void **state)
{
    static const char request[] =
        "{" LISTS("true") ",\"extensions\":{"
                          "\"org.matrix.msc4262.profiles\":{\"enabled\":true,"
                          "\"fields\":[\"m.tz\"]}}}";
    struct fixture *f = *state;
    set_name(f, &f->alice, "m.tz", "Asia/Tokyo");
    house_say(&f->house, f->room, &f->alice, "one");
    struct asked asked = ask(f, request, NULL);
    assert_string_equal(profiles(f, &asked),
                        "{\"users\":{\"@alice:test\":{\"updated\":{\"m.tz\":\"Asia/Tokyo\"}}}}");
    house_say(&f->house, f->room, &f->bob, "two");
    struct asked next = ask(f, request, &asked);
    assert_string_equal(profiles(f, &next),
                        "{\"users\":{\"@bob:test\":{\"updated\":{\"m.tz\":\"Europe/Paris\"}}}}");
    house_say(&f->house, f->room, &f->bob, "three");
    struct asked last = ask(f, request, &next);
    assert_string_equal(profiles(f, &last), "");
}

static void presence_comes_with_its_extension(void **state)
{
    static const char request[] = "{\"extensions\":{\"presence\":{\"enabled\":true}}}";
    struct fixture *f = *state;
    hs_presence_set(&f->house.hs, f->bob.actor.user, PRESENCE_ONLINE, LIT("busy"));
    hs_presence_set(&f->house.hs, f->carol.actor.user, PRESENCE_ONLINE, LIT("elsewhere"));
    struct asked asked = ask(f, request, NULL);
    const char *first = extension(f, &asked, "presence");
    assert_non_null(strstr(first, "\"sender\":\"@bob:test\",\"type\":\"m.presence\""));
    assert_non_null(strstr(first, "\"status_msg\":\"busy\""));
    assert_null(strstr(first, "@carol:test"));
    struct asked next = ask(f, request, &asked);
    assert_string_equal(extension(f, &next, "presence"), "");
    hs_presence_set(&f->house.hs, f->bob.actor.user, PRESENCE_UNAVAILABLE, (struct slice){0});
    struct asked later = ask(f, request, &next);
    assert_true(later.answer.news);
    assert_non_null(strstr(extension(f, &later, "presence"), "\"presence\":\"unavailable\""));
    house_member(&f->house, f->room, &f->carol, &f->carol, MEMBERSHIP_JOIN);
    struct asked came = ask(f, request, &later);
    assert_non_null(strstr(extension(f, &came, "presence"), "@carol:test"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(profiles_of_a_room_come_with_it_once),
        TEST(a_changed_profile_is_told_of),
        TEST(only_wanted_fields_are_told_and_others_when_they_are),
        TEST(who_comes_is_told_of_and_who_leaves_all_rooms_is_gone),
        TEST(with_lazy_members_profiles_come_with_the_members),
        TEST(presence_comes_with_its_extension),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
