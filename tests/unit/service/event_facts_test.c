#include "homeserver/base/mem.h"
#include "homeserver/room/glob.h"
#include "homeserver/service/event_facts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct event_facts *facts_of(struct arena *arena, const char *content)
{
    struct json *tree = arena_alloc(arena, sizeof *tree);
    size_t bytes = 0;
    assert_int_equal(json_parse(arena, slice_of(content), tree).code, 0);
    struct event event = {.rules = room_rules_get(LIT("11")),
                          .sender = ids_trust_user(LIT("@you:h")),
                          .type = LIT("m.room.message"),
                          .content = tree};
    return event_facts_new(push_rules_of_everybody(arena), &event, &bytes);
}

static void a_name_that_matches_is_never_ruled_out(void **state)
{
    static const char *const bodies[] = {
        "ben", "hello ben", "Ben: hello", "(BEN)", "ben-jo", "x-ben",   "benny", "\xc3\xa4 ben", "",
        "ann", "*ben*",     "b\xc3\xa4q", "-ben-", "--",     "n. o. b",
    };
    static const char *const names[] = {
        "ben", "Ben", "ben-jo", "-ben", "b*n", "b\xc3\xa4q", "b\xc3\x84q", "--", "o. b", "ann",
    };
    struct arena *arena = arena_new();
    (void)state;
    size_t ruled_out = 0;
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        char *content = arena_cstr(arena, arena_printf(arena, "{\"body\":\"%s\"}", bodies[i]));
        struct event_facts *facts = facts_of(arena, content);
        for (size_t j = 0; j < COUNT_OF(names); j++) {
            struct slice name = slice_of(names[j]);
            bool may = event_facts_may_name(facts, event_facts_word_of(name));
            ruled_out += may ? 0 : 1;
            if (!may && (glob_matches_word(name, slice_of(bodies[i]), GLOB_WILDCARDS) ||
                         glob_matches_word(name, slice_of(bodies[i]), GLOB_LITERAL))) {
                fail_msg("%s in %s", names[j], bodies[i]);
            }
        }
        mem_free(facts);
    }
    assert_true(ruled_out > 40);
    arena_free(&arena);
}

static void the_place_is_what_the_relation_says(void **state)
{
    struct arena *arena = arena_new();
    (void)state;
    struct event_facts *main = facts_of(arena, "{\"body\":\"x\"}");
    struct event_facts *thread =
        facts_of(arena, "{\"m.relates_to\":{\"rel_type\":\"m.thread\",\"event_id\":\"$root\"}}");
    struct event_facts *edit =
        facts_of(arena, "{\"m.relates_to\":{\"rel_type\":\"m.replace\",\"event_id\":\"$root\"}}");
    assert_int_equal(main->place, EVENT_IN_MAIN);
    assert_int_equal(thread->place, EVENT_IN_THREAD);
    assert_true(slice_eq(thread->thread, LIT("$root")));
    assert_int_equal(edit->place, EVENT_HANGS);
    mem_free(main);
    mem_free(thread);
    mem_free(edit);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_that_matches_is_never_ruled_out),
        cmocka_unit_test(the_place_is_what_the_relation_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
