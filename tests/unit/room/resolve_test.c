/* Resolution on graphs small enough to follow by hand. Larger ones are compared with another
 * implementation by tests/interop/room_diff. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "homeserver/room/resolve.h"

enum { EVENTS_MAX = 24 };

struct world {
    struct arena *arena;
    const struct room_rules *rules;
    struct event events[EVENTS_MAX];
    size_t count;
};

static int set_up(void **state)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    w.arena = arena_new();
    *state = &w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    arena_free(&w->arena);
    return 0;
}

/* Ids given as one string, as "$a $b". */
static const struct event_id *id_list(struct world *w, const char *ids, size_t *count_out)
{
    struct event_id *list = arena_array(w->arena, 16, sizeof *list);
    struct slice rest = slice_of(ids);
    *count_out = 0;
    while (rest.len) {
        struct slice id;
        rest = slice_cut(rest, ' ', &id);
        list[(*count_out)++] = ids_trust_event(id);
    }
    return list;
}

struct row {
    const char *id, *type, *state_key, *sender, *content, *cites;
    int64_t ts;
};

static void add(struct world *w, const struct row *row)
{
    struct json *content = arena_alloc(w->arena, sizeof *content);
    assert_int_equal(json_parse(w->arena, slice_of(row->content), content).code, 0);
    struct event event = {.rules = w->rules,
                          .id = ids_trust_event(slice_of(row->id)),
                          .type = slice_of(row->type),
                          .state_key = slice_of(row->state_key),
                          .has_state_key = true,
                          .sender = ids_trust_user(slice_of(row->sender)),
                          .room_id =
                              ids_trust_room(w->rules->hash_room_id ? LIT("!create") : LIT("!r:h")),
                          .content = content,
                          .depth = row->ts,
                          .origin_server_ts = row->ts};
    event.auth_events = id_list(w, row->cites, &event.auth_event_count);
    w->events[w->count++] = event;
}

static void begin(struct world *w, const char *version)
{
    w->rules = room_rules_get(slice_of(version));
    const char *create = w->rules->hash_room_id ? "" : "$create";
    const struct row rows[] = {
        {"$create", "m.room.create", "", "@a:h", "{\"creator\":\"@a:h\"}", "", 1},
        {"$ja", "m.room.member", "@a:h", "@a:h", "{\"membership\":\"join\"}", create, 2},
        {"$jb", "m.room.member", "@b:h", "@b:h", "{\"membership\":\"join\"}", create, 3},
        {"$jc", "m.room.member", "@c:h", "@c:h", "{\"membership\":\"join\"}", create, 3},
        {"$jr", "m.room.join_rules", "", "@a:h", "{\"join_rule\":\"public\"}", "$create $ja", 4},
        {"$pl", "m.room.power_levels", "", "@a:h",
         w->rules->hash_room_id ? "{\"users\":{\"@b:h\":50}}"
                                : "{\"users\":{\"@a:h\":100,\"@b:h\":50}}",
         "$create $ja", 5},
    };
    w->count = 0;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        add(w, &rows[i]);
    }
}

static const struct event *by_id(void *arg, struct event_id id)
{
    struct world *w = arg;
    for (size_t i = 0; i < w->count; i++) {
        if (ids_event_eq(w->events[i].id, id)) {
            return &w->events[i];
        }
    }
    return NULL;
}

static struct resolve_set state_of(struct world *w, const char *ids)
{
    size_t count = 0;
    const struct event_id *list = id_list(w, ids, &count);
    struct resolve_entry *entries = arena_array(w->arena, count, sizeof *entries);
    for (size_t i = 0; i < count; i++) {
        const struct event *event = by_id(w, list[i]);
        entries[i] = event ? (struct resolve_entry){event->type, event->state_key, event->id}
                           : (struct resolve_entry){LIT("x"), LIT("y"), list[i]};
    }
    return (struct resolve_set){entries, count};
}

/* The id in the resolved state under a key; "" when there is none. */
static struct slice resolved(struct world *w, const char *left, const char *right, const char *type,
                             const char *key)
{
    const struct resolve_set sets[] = {state_of(w, left), state_of(w, right)};
    struct resolve_set state;
    const struct resolve_input input = {.arena = w->arena,
                                        .rules = w->rules,
                                        .create = &w->events[0],
                                        .sets = sets,
                                        .set_count = 2,
                                        .event = by_id,
                                        .arg = w};
    resolve_states(&input, &state);
    for (size_t i = 0; i < state.count; i++) {
        if (slice_eq(state.items[i].type, slice_of(type)) &&
            slice_eq(state.items[i].state_key, slice_of(key))) {
            return state.items[i].event.s;
        }
    }
    return LIT("");
}

#define COMMON "$create $ja $jb $jc $jr $pl"
#define ORDINARY "$create $jb $pl"

static void equal_states_stay_as_they_are(void **state)
{
    struct world *w = *state;
    begin(w, "11");
    assert_true(slice_eq(resolved(w, COMMON, COMMON, "m.room.power_levels", ""), LIT("$pl")));
}

static void the_later_of_two_topics_wins(void **state)
{
    struct world *w = *state;
    static const struct row rows[] = {
        {"$t1", "m.room.topic", "", "@b:h", "{}", ORDINARY, 10},
        {"$t2", "m.room.topic", "", "@b:h", "{}", ORDINARY, 11},
    };
    begin(w, "11");
    add(w, &rows[0]);
    add(w, &rows[1]);
    assert_true(
        slice_eq(resolved(w, COMMON " $t1", COMMON " $t2", "m.room.topic", ""), LIT("$t2")));
    assert_true(slice_eq(resolved(w, COMMON " $t1", COMMON, "m.room.topic", ""), LIT("$t1")));
}

/* Matrix CVE-2025-49090. */
static void a_ban_beats_what_the_banned_did_meanwhile(void **state)
{
    struct world *w = *state;
    static const struct row rows[] = {
        {"$ban", "m.room.member", "@b:h", "@a:h", "{\"membership\":\"ban\"}", "$create $ja $jb $pl",
         20},
        {"$topic", "m.room.topic", "", "@b:h", "{}", ORDINARY, 10},
    };
    static const char *const versions[] = {"2", "6", "11", "12"};
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        begin(w, versions[i]);
        add(w, &rows[0]);
        add(w, &rows[1]);
        const char *left = "$create $ja $ban $jc $jr $pl";
        const char *right = COMMON " $topic";
        assert_true(slice_eq(resolved(w, left, right, "m.room.member", "@b:h"), LIT("$ban")));
        assert_int_equal(resolved(w, left, right, "m.room.topic", "").len, 0);
    }
}

static void the_stronger_demotes_first(void **state)
{
    struct world *w = *state;
    static const struct row rows[] = {
        {"$p1", "m.room.power_levels", "", "@a:h", "{\"users\":{\"@a:h\":100}}", "$create $ja $pl",
         30},
        {"$p2", "m.room.power_levels", "", "@b:h",
         "{\"users\":{\"@a:h\":100,\"@b:h\":50,\"@c:h\":50}}", "$create $jb $pl", 20},
    };
    begin(w, "11");
    add(w, &rows[0]);
    add(w, &rows[1]);
    assert_true(slice_eq(resolved(w, "$create $ja $jb $jc $jr $p1", "$create $ja $jb $jc $jr $p2",
                                  "m.room.power_levels", ""),
                         LIT("$p1")));
}

static void version_1_goes_by_depth(void **state)
{
    struct world *w = *state;
    static const struct row rows[] = {
        {"$t1:h", "m.room.topic", "", "@b:h", "{}", ORDINARY, 12},
        {"$t2:h", "m.room.topic", "", "@b:h", "{}", ORDINARY, 11},
        {"$t3:h", "m.room.topic", "", "@c:h", "{}", "$create $jc $pl", 13}, /* no power */
    };
    begin(w, "1");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        add(w, &rows[i]);
    }
    assert_true(
        slice_eq(resolved(w, COMMON " $t1:h", COMMON " $t2:h", "m.room.topic", ""), LIT("$t1:h")));
    assert_true(
        slice_eq(resolved(w, COMMON " $t3:h", COMMON " $t2:h", "m.room.topic", ""), LIT("$t2:h")));
    assert_true(slice_eq(resolved(w, COMMON " $t1:h", COMMON, "m.room.topic", ""), LIT("$t1:h")));
}

/* Synapse CVE-2024-31208. */
static void missing_and_circular_events_do_no_harm(void **state)
{
    struct world *w = *state;
    static const struct row rows[] = {
        {"$p1", "m.room.power_levels", "", "@a:h", "{}", "$create $ja $p2", 30},
        {"$p2", "m.room.power_levels", "", "@a:h", "{}", "$create $ja $p1", 31},
        {"$t", "m.room.topic", "", "@b:h", "{}", "$create $jb $p1 $gone", 32},
    };
    static const char *const versions[] = {"1", "2", "12"};
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        begin(w, versions[i]);
        for (size_t j = 0; j < COUNT_OF(rows); j++) {
            add(w, &rows[j]);
        }
        struct slice id = resolved(w, "$create $ja $jb $jr $p1 $t $gone2",
                                   "$create $ja $jc $jr $p2", "m.room.create", "");
        assert_true(slice_eq(id, LIT("$create")));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(equal_states_stay_as_they_are),
        TEST(the_later_of_two_topics_wins),
        TEST(a_ban_beats_what_the_banned_did_meanwhile),
        TEST(the_stronger_demotes_first),
        TEST(version_1_goes_by_depth),
        TEST(missing_and_circular_events_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
