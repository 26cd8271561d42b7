#include "homeserver/appservice/registrations.h"

#include "homeserver/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct appservice_table *table;
static struct buf problems;

/* Reads one registration into `table`. */
static struct err parse(const char *text)
{
    hs_appservice_table_free(&table);
    table = mem_alloc(sizeof *table);
    table->arena = arena_new();
    table->items = arena_array(table->arena, 1, sizeof *table->items);
    table->count = 1;
    struct as_registration_text from = {slice_of(text), LIT("irc.yaml"), LIT("test")};
    buf_clear(&problems);
    return as_registration_parse(table->arena, &from, &table->items[0], &problems);
}

static bool complains(const char *text, const char *about)
{
    struct err err = parse(text);
    buf_add_byte(&problems, '\0');
    return err.code != 0 && strstr(problems.ptr, about) != NULL;
}

static int begin(void **state)
{
    (void)state;
    buf_init(&problems, 1 << 16);
    return 0;
}

static int end(void **state)
{
    (void)state;
    hs_appservice_table_free(&table);
    buf_deinit(&problems);
    return 0;
}

#define HEAD                                                                                       \
    "id: IRC\nurl: http://127.0.0.1:1234/\nas_token: a\nhs_token: h\nsender_localpart: _irc_bot\n"

static void a_whole_registration_is_read(void **state)
{
    (void)state;
    assert_int_equal(parse(HEAD "rate_limited: false\n"
                                "receive_ephemeral: true\n"
                                "org.matrix.msc3202: true\n"
                                "protocols: [irc, 'icq']\n"
                                "something.else: {a: b}\n"
                                "namespaces:\n"
                                "  users:\n"
                                "  - {exclusive: true, regex: '@_irc_.*'}\n"
                                "  - {exclusive: false, regex: '@bridged_.*'}\n"
                                "  aliases: [{exclusive: false, regex: '#_irc_.*'}]\n"
                                "  rooms: []\n")
                         .code,
                     0);
    const struct appservice *service = &table->items[0];
    assert_true(slice_eq(service->id, LIT("IRC")));
    assert_true(slice_eq(service->url, LIT("http://127.0.0.1:1234")));
    assert_true(slice_eq(service->sender, LIT("@_irc_bot:test")));
    assert_false(service->is_rate_limited);
    assert_true(service->wants_ephemeral && service->wants_encryption && service->wants_to_device);
    assert_int_equal(service->protocol_count, 2);
    assert_int_equal(service->users.count, 2);
    assert_true(service->users.items[0].is_exclusive);
    assert_false(service->users.items[1].is_exclusive);
    assert_int_equal(service->aliases.count, 1);
    assert_int_equal(service->rooms.count, 0);
}

static void what_may_be_left_out_has_its_default(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"id\": \"x\", \"url\": null, \"as_token\": \"a\", \"hs_token\": "
                           "\"h\", \"sender_localpart\": \"x\", \"namespaces\": {}}")
                         .code,
                     0);
    const struct appservice *service = &table->items[0];
    assert_null(service->url.ptr);
    assert_true(service->is_rate_limited);
    assert_false(service->wants_ephemeral || service->wants_to_device);
    assert_int_equal(parse("id: x\nurl: ''\nas_token: a\nhs_token: h\nsender_localpart: x\n"
                           "de.sorunome.msc2409.push_ephemeral: true\nnamespaces:\n  users:\n")
                         .code,
                     0);
    assert_null(table->items[0].url.ptr);
    assert_true(table->items[0].wants_ephemeral);
}

static void every_problem_is_told_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *about;
    } cases[] = {
        {"", "irc.yaml:1: expected a registration"},
        {"- a\n", "irc.yaml:1: expected a registration"},
        {"id: [\n", "irc.yaml:"},
        {"id: x\n", "irc.yaml:1: url: this is required"},
        {"id: x\n", "irc.yaml:1: as_token: this is required"},
        {"id: x\n", "irc.yaml:1: namespaces: expected a map"},
        {"id: ''\n", "irc.yaml:1: id: expected a text"},
        {"id: x\nurl: irc.example.org\n", "irc.yaml:2: url: expected a URL"},
        {"id: x\nurl: \"http://a\\r\\nB: c\"\n", "irc.yaml:2: url: expected a URL"},
        {"hs_token: \"a\\nb\"\n", "irc.yaml:1: hs_token: a token is made of visible"},
        {"sender_localpart: 'a:b:c d'\n", "irc.yaml:1: sender_localpart: this is no user name"},
        {HEAD "namespaces:\n  users:\n  - exclusive: true\n    regex: '@('\n",
         "irc.yaml:9: users: the pattern is not valid"},
        {HEAD "namespaces:\n  users:\n  - regex: '@a'\n", "irc.yaml:8: users: say whether"},
        {HEAD "namespaces:\n  users: all\n", "irc.yaml:7: users: expected a list"},
        {HEAD "namespaces:\n  rooms: [a]\n", "irc.yaml:7: rooms: expected a map"},
        {HEAD "namespaces: {}\nrate_limited: sometimes\n", "irc.yaml:7: rate_limited: expected"},
        {HEAD "namespaces: {}\nprotocols: irc\n", "irc.yaml:7: protocols: expected a list"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        if (!complains(cases[i].text, cases[i].about)) {
            fail_msg("case %zu: %.*s", i, (int)problems.len, problems.ptr);
        }
    }
}

static struct slice write_file(struct arena *arena, const char *folder, int number,
                               const char *text)
{
    struct slice path = arena_printf(arena, "%s/%d.yaml", folder, number);
    FILE *file = fopen(path.ptr, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

/* The problem of loading two files together; empty when there is none. */
static struct slice load_both(struct arena *arena, const char *first, const char *second)
{
    char folder[] = "/tmp/myelin-registrations-XXXXXX";
    struct appservice_table *loaded = NULL;
    struct conf conf;
    assert_non_null(mkdtemp(folder));
    conf_defaults(arena, LIT("test"), &conf);
    struct slice paths[] = {write_file(arena, folder, 1, first),
                            write_file(arena, folder, 2, second)};
    conf.app_service_config_files = (struct conf_texts){paths, 2};
    buf_clear(&problems);
    struct err err = as_registrations_load(&conf, &problems, &loaded);
    assert_true((err.code == 0) == (problems.len == 0));
    assert_true((err.code == 0) == (loaded != NULL));
    assert_true(!loaded || loaded->count == 2);
    hs_appservice_table_free(&loaded);
    unlink(paths[0].ptr);
    unlink(paths[1].ptr);
    rmdir(folder);
    return arena_copy(arena, buf_slice(&problems));
}

static void registrations_must_be_told_apart(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    const char *one = HEAD "namespaces: {}\n";
    const char *other = "id: ICQ\nurl: null\nas_token: b\nhs_token: h\nsender_localpart: _icq\n"
                        "namespaces: {}\n";
    assert_int_equal(load_both(arena, one, other).len, 0);
    assert_true(slice_contains(load_both(arena, one, one), LIT("has the same id")));
    assert_true(
        slice_contains(load_both(arena, one,
                                 "id: B\nurl: null\nas_token: a\nhs_token: h\nsender_localpart: b\n"
                                 "namespaces: {}\n"),
                       LIT("has the same as_token")));
    assert_true(slice_contains(load_both(arena, one,
                                         "id: B\nurl: null\nas_token: b\nhs_token: h\n"
                                         "sender_localpart: _irc_bot\nnamespaces: {}\n"),
                               LIT("has the same sender_localpart")));
    arena_free(&arena);
}

static void a_file_that_is_not_there_is_told(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct appservice_table *loaded = NULL;
    struct slice path = LIT("/nonexistent/irc.yaml");
    struct conf conf;
    conf_defaults(arena, LIT("test"), &conf);
    conf.app_service_config_files = (struct conf_texts){&path, 1};
    buf_clear(&problems);
    assert_int_equal(as_registrations_load(&conf, &problems, &loaded).code, ERR_IO);
    assert_true(slice_contains(buf_slice(&problems), path));
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_registration_is_read),
        cmocka_unit_test(what_may_be_left_out_has_its_default),
        cmocka_unit_test(every_problem_is_told_with_its_line),
        cmocka_unit_test(registrations_must_be_told_apart),
        cmocka_unit_test(a_file_that_is_not_there_is_told),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
