/* Random graphs of events, given to several servers in orders of their own, some events more than
 * once: in the end all hold the same state, which is that of the specification's algorithm over
 * whole states, and the same forward extremities. */
#include "homeserver/service/intake.h"

#include "homeserver/service/check.h"
#include "tests/support/house.h"
#include "tests/support/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HOUSES = 3, EVENTS = 70, USERS = 5, ROUNDS = 6, HEADS_MAX = 8 };

static uint64_t seed;

static size_t pick(size_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(seed >> 33) % below;
}

struct maker {
    struct peer peer;
    struct peer_room room;
    struct slice users[USERS];
    size_t heads[HEADS_MAX];
    size_t head_count;
    size_t join; /* the join of the server under test */
};

static const char *levels_of(struct maker *m)
{
    static const int values[] = {0, 50, 60, 100};
    return arena_printf(m->room.arena_owned,
                        "{\"users\":{\"%s\":100,\"%s\":%d,\"%s\":%d},\"ban\":50,\"kick\":%d}",
                        arena_cstr(m->room.arena_owned, m->users[0]),
                        arena_cstr(m->room.arena_owned, m->users[1]), values[pick(4)],
                        arena_cstr(m->room.arena_owned, m->users[2]), values[pick(4)],
                        values[pick(3)])
        .ptr;
}

/* One or more heads; those chosen are no heads any more, most of the time. */
static size_t pick_prev(struct maker *m, size_t *prev)
{
    size_t count = 1 + (pick(3) == 0 ? pick(m->head_count) : 0);
    for (size_t i = 0; i < count; i++) {
        size_t at = i + pick(m->head_count - i);
        size_t head = m->heads[at];
        m->heads[at] = m->heads[i];
        m->heads[i] = head;
        prev[i] = head;
    }
    return count;
}

static void replace_heads(struct maker *m, size_t made, size_t count)
{
    bool fork = pick(3) == 0 && m->head_count + 1 < HEADS_MAX;
    if (!fork) {
        memmove(m->heads, m->heads + count, (m->head_count - count) * sizeof *m->heads);
        m->head_count -= count;
    }
    m->heads[m->head_count++] = made;
}

static void make_one(struct maker *m)
{
    static const char *const words[] = {"join", "join", "leave", "ban", "invite"};
    size_t prev[PEER_PREV_MAX];
    size_t sender = pick(3) ? pick(3) : pick(USERS);
    size_t kind = pick(10);
    struct peer_draft draft = {.peer = &m->peer, .sender = m->users[sender], .prev = prev};
    draft.prev_count = pick_prev(m, prev);
    size_t made = 0;
    if (kind < 6) {
        const char *word = words[pick(5)];
        size_t target = strcmp(word, "join") == 0 ? sender : pick(USERS);
        made = peer_member(&m->room, &draft, m->users[target], word);
    } else {
        static const char *const types[] = {"m.room.power_levels", "m.room.join_rules",
                                            "m.room.topic", "m.room.message"};
        draft.type = types[kind - 6];
        draft.state_key = kind == 9 ? NULL : "";
        draft.content =
            kind == 6   ? levels_of(m)
            : kind == 7 ? (pick(2) ? "{\"join_rule\":\"invite\"}" : "{\"join_rule\":\"public\"}")
                        : "{\"topic\":\"t\",\"body\":\"b\"}";
        made = peer_make(&m->room, &draft);
    }
    if (!m->room.events[made].refused || pick(4) == 0) {
        replace_heads(m, made, draft.prev_count);
    }
}

static void make_room(struct maker *m, const char *version, struct slice guest)
{
    static const char *const names[USERS] = {"ann", "bob", "cid", "dan", "eve"};
    peer_init(&m->peer, "far");
    struct arena *names_arena = arena_new();
    struct slice creator = peer_user(names_arena, &m->peer, names[0]);
    peer_room_open(&m->room, version, &m->peer, creator);
    for (size_t i = 0; i < USERS; i++) {
        m->users[i] = peer_user(m->room.arena_owned, &m->peer, names[i]);
    }
    struct peer_draft join = {.peer = &m->peer, .sender = guest};
    m->join = peer_member(&m->room, &join, guest, "join");
    m->heads[0] = m->join;
    m->head_count = 1;
    for (size_t i = 0; i < EVENTS; i++) {
        make_one(m);
    }
    struct peer_draft last = {.peer = &m->peer, .sender = guest, .type = "m.room.message"};
    last.content = "{}";
    last.prev = m->heads;
    last.prev_count = m->head_count;
    peer_make(&m->room, &last);
    arena_free(&names_arena);
}

static struct room *enter(struct house *h, struct maker *m)
{
    struct intake_join *join = NULL;
    struct room *room = NULL;
    struct hs_sent sent;
    struct intake_join_start start = {.room_id = m->room.room_id,
                                      .version = m->room.rules->version,
                                      .join = peer_get(&m->room, m->join)};
    assert_int_equal(hs_intake_join_begin(&h->hs, &h->ctx, &start, &join).code, 0);
    for (size_t i = 0; i < m->join; i++) {
        const struct event *event = peer_get(&m->room, i);
        assert_int_equal(hs_intake_join_add(join, &h->ctx, INTAKE_JOIN_STATE, event).code, 0);
    }
    assert_int_equal(hs_intake_join_finish(&join, &h->ctx, &room, &sent).code, 0);
    return room;
}

/* Everything in an order of its own; what lacks something comes again later. */
static void deliver(struct house *h, struct room *room, const struct maker *m)
{
    size_t open[EVENTS * 2];
    size_t count = 0;
    for (size_t at = m->join + 1; at < m->room.count; at++) {
        open[count++] = at;
        if (pick(5) == 0) {
            open[count++] = at; /* twice */
        }
    }
    while (count) {
        struct intake_report report;
        size_t at = pick(count < 12 ? count : 12);
        struct intake intake = {.event = peer_get(&m->room, open[at])};
        struct err err = hs_intake_event(&h->hs, &h->ctx, room, &intake, &report);
        if (err.code) {
            fail_msg("%s", err.text);
        }
        if (report.result != INTAKE_MISSING_PREV && report.result != INTAKE_MISSING_AUTH) {
            if (report.result == INTAKE_ACCEPTED || report.result == INTAKE_SOFT_FAILED) {
                assert_false(m->room.events[open[at]].refused);
            }
            memmove(open + at, open + at + 1, (--count - at) * sizeof *open);
        }
    }
}

static void expect_state(struct house *h, struct room *room, const struct resolve_set *state)
{
    struct state_entries entries;
    uint64_t root = hs_room_head(room).root;
    uint64_t number = hs_room_info(room).number;
    assert_int_equal(state_read(h->hs.states, &h->ctx, number, root, &entries).code, 0);
    assert_int_equal(entries.count, state->count);
    for (size_t i = 0; i < state->count; i++) {
        struct stored_event event;
        bool found = false;
        const struct resolve_entry *entry = &state->items[i];
        assert_int_equal(hs_state_event(&h->hs, &h->ctx, room, root, entry->type, entry->state_key,
                                        &event, &found)
                             .code,
                         0);
        assert_true(found);
        assert_true(ids_event_eq(event.event.id, entry->event));
    }
}

static void tell(void *arg, const struct check_difference *difference)
{
    (void)arg;
    print_error("%s: %lld %s\n", check_index_name(difference->index), (long long)difference->number,
                difference->what);
}

static void run(const char *version, uint64_t with)
{
    static struct house houses[HOUSES];
    struct maker m = {0};
    seed = with;
    make_room(&m, version, LIT("@guest:test"));
    size_t last = m.room.count - 1;
    for (size_t i = 0; i < HOUSES; i++) {
        struct house *h = &houses[i];
        struct event_id *ids = NULL;
        size_t count = 0;
        struct check_result result;
        struct check_options options = {.report = tell};
        house_open(h);
        house_guest(h, "guest");
        struct room *room = enter(h, &m);
        deliver(h, room, &m);
        assert_int_equal(hs_room_extremities(&h->hs, &h->ctx, room, &ids, &count).code, 0);
        if (!m.room.events[last].refused) {
            assert_int_equal(count, 1);
            assert_true(ids_event_eq(ids[0], peer_get(&m.room, last)->id));
            expect_state(h, room, &m.room.events[last].after);
        }
        house_settle(h);
        assert_int_equal(hs_check(&h->hs, &h->ctx, &options, &result).code, 0);
        assert_int_equal(result.differences, 0);
        house_close(h);
    }
    peer_room_close(&m.room);
}

static void servers_agree_in_version_10(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        run("10", 1000 + i);
    }
}

static void servers_agree_in_version_12(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        run("12", 2000 + i);
    }
}

static void servers_agree_in_version_1(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < ROUNDS / 2; i++) {
        run("1", 3000 + i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(servers_agree_in_version_10),
        cmocka_unit_test(servers_agree_in_version_12),
        cmocka_unit_test(servers_agree_in_version_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
