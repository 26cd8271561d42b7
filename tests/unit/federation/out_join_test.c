/* Joining through others: the road itself, who is asked next, and residents that answer wrongly. */
#include "federation/resync.h"
#include "homeserver/service/entering.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/remote.h"
#include "tests/support/street.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct street street;
static struct guest alice, bob, carol; /* of A, B, C */

static int open_street(void **state)
{
    (void)state;
    street_open(&street);
    alice = house_guest(&street.houses[0], "alice");
    bob = house_guest(&street.houses[1], "bob");
    carol = house_guest(&street.houses[2], "carol");
    return 0;
}

static int close_street(void **state)
{
    (void)state;
    street_close(&street);
    return 0;
}

static const char *make_room(const char *more)
{
    static char room_id[300];
    char body[1000];
    snprintf(body, sizeof body, "{\"preset\":\"public_chat\",\"name\":\"Hall\"%s%s}",
             more[0] ? "," : "", more);
    struct slice id = hs_room_info(house_room(&street.houses[0], &alice, body)).room_id;
    snprintf(room_id, sizeof room_id, "%.*s", (int)id.len, id.ptr);
    return room_id;
}

/* `via` holds the indices of houses, 'x' is a server that nobody knows. */
static struct err enter(size_t house, const struct guest *guest, const char *room_id,
                        const char *via, enum membership membership)
{
    struct slice names[8];
    struct slice id;
    size_t count = 0;
    for (; via[count]; count++) {
        names[count] =
            via[count] == 'x' ? LIT("x.test:1") : street_name((size_t)(via[count] - '0'));
    }
    struct hs_entering want = {.actor = &guest->actor,
                               .name = slice_of(room_id),
                               .membership = membership,
                               .via = names,
                               .via_count = count};
    return hs_room_enter(&street.houses[house].hs, &street.houses[house].ctx, &want, &id);
}

static struct err join(size_t house, const struct guest *guest, const char *room_id,
                       const char *via)
{
    return enter(house, guest, room_id, via, MEMBERSHIP_JOIN);
}

static struct room *room_in(size_t house, const char *room_id)
{
    struct room *room = NULL;
    struct err err = hs_room_get_by_id(&street.houses[house].hs, &street.houses[house].ctx,
                                       slice_of(room_id), &room);
    assert_int_equal(err.code, 0);
    return room;
}

static enum membership membership_in(size_t house, const char *room_id, const struct guest *guest)
{
    struct room *room = room_in(house, room_id);
    enum membership membership = MEMBERSHIP_NONE;
    struct err err = hs_membership_at(&street.houses[house].hs, &street.houses[house].ctx, room,
                                      hs_room_head(room).root, guest->actor.user_id, &membership);
    assert_int_equal(err.code, 0);
    return membership;
}

static void rooms_of_every_version_are_joined(void **state)
{
    (void)state;
    for (size_t i = 0; room_rules_at(i); i++) {
        char version[64];
        struct slice name = room_rules_at(i)->version;
        snprintf(version, sizeof version, "\"room_version\":\"%.*s\"", (int)name.len, name.ptr);
        const char *room_id = make_room(version);
        struct err err = join(1, &bob, room_id, "0");
        if (err.code) {
            print_error("version %.*s: %s\n", (int)name.len, name.ptr, err.text);
        }
        assert_int_equal(err.code, 0);
        assert_int_equal(membership_in(0, room_id, &bob), MEMBERSHIP_JOIN);
        assert_int_equal(membership_in(1, room_id, &bob), MEMBERSHIP_JOIN);
        street_next_jobs(&street);
    }
}

static void a_join_waits_only_where_it_may(void **state)
{
    (void)state;
    const char *room_id = make_room("");
    street.houses[1].ctx.may_wait = false;
    assert_int_equal(join(1, &bob, room_id, "0").code, ERR_WAITS);
    assert_string_equal(street.asked[0], "");
}

static void the_next_server_is_asked(void **state)
{
    (void)state;
    const char *room_id = make_room("");
    street.is_down[1] = true;
    /* Nobody, one that is down, itself, one that answers 404 would be B: only A has the room. */
    assert_int_equal(join(2, &carol, room_id, "x120").code, 0);
    assert_int_equal(membership_in(2, room_id, &carol), MEMBERSHIP_JOIN);
}

static void a_server_without_the_room_passes_on(void **state)
{
    (void)state;
    const char *room_id = make_room("");
    assert_int_equal(join(2, &carol, room_id, "10").code, 0);
    assert_true(strstr(street.asked[1], "/make_join/") != NULL);
}

static void a_refusal_is_final(void **state)
{
    (void)state;
    const char *room_id = make_room("");
    assert_int_equal(join(1, &bob, room_id, "0").code, 0);
    struct room *room = room_in(0, room_id);
    struct guest stranger = carol;
    house_member(&street.houses[0], room, &alice, &stranger, MEMBERSHIP_BAN);
    street.asked[1][0] = '\0';
    assert_int_equal(join(2, &carol, room_id, "01").code, ERR_M_FORBIDDEN);
    assert_string_equal(street.asked[1], "");
}

static void the_best_error_is_told(void **state)
{
    (void)state;
    street.is_down[0] = true;
    assert_int_equal(join(2, &carol, "!none:a.test:1", "0").code, ERR_M_REMOTE);
    street.is_down[0] = false;
    assert_int_equal(join(2, &carol, "!none:nowhere", "x1").code, ERR_M_NOT_FOUND);
    assert_int_equal(join(2, &carol, "!none:c.test:1", "").code, ERR_M_NOT_FOUND);
}

/* --- residents that answer wrongly --- */

struct lie {
    const char *path;      /* part of the path it is told at */
    const char *from, *to; /* text that is replaced in the true answer */
};

static bool tell_lie(struct street *s, size_t to, const struct http_fetch_request *request,
                     struct http_fetch_reply *reply)
{
    const struct lie *lie = s->arg;
    struct slice body;
    struct json content;
    if (to != 0 || !slice_contains(request->url, slice_of(lie->path))) {
        return false;
    }
    struct arena *arena = s->houses[1].ctx.arena;
    struct slice path = slice_from(request->url, strlen("https://a.test:1"));
    struct street_request asked = {
        .from = 1, .to = 0, .method = request->body.len ? "PUT" : "GET", .target = path};
    if (request->body.len) {
        assert_int_equal(json_parse(arena, request->body, &content).code, 0);
        asked.content = &content;
    }
    reply->status = street_ask(s, &asked, &body);
    struct slice from = slice_of(lie->from);
    struct buf out;
    buf_init_arena(&out, arena, SIZE_MAX / 2);
    bool told = false;
    for (size_t i = 0; i < body.len;) {
        if (slice_has_prefix(slice_from(body, i), from)) {
            buf_add(&out, slice_of(lie->to));
            i += from.len;
            told = true;
        } else {
            buf_add_byte(&out, body.ptr[i++]);
        }
    }
    assert_true(told);
    reply->body = buf_slice(&out);
    return true;
}

static void wrong_answers_do_not_bring_a_user_in(void **state)
{
    static const struct lie lies[] = {
        {"/make_join/", "\"type\":\"m.room.member\"", "\"type\":\"m.room.name\""},
        {"/make_join/", "\"membership\":\"join\"", "\"membership\":\"ban\""},
        {"/make_join/", "\"sender\":\"@bob:b.test:1\"", "\"sender\":\"@ben:b.test:1\""},
        {"/make_join/", "\"state_key\":\"@bob", "\"state_key\":\"@ben"},
        {"/make_join/", "\"room_version\":\"12\"", "\"room_version\":\"none\""},
        {"/make_join/", "\"prev_events\":[", "\"prev_events\":[7,"},
        {"/make_join/", "\"room_id\":\"!", "\"room_id\":\"!x"},
        {"/send_join/", "\"state\":[", "\"stat\":["},
        {"/send_join/", "\"state\":[", "\"state\":[{"},
        {"/send_join/", "\"type\":\"m.room.create\"", "\"type\":\"m.room.creat\""},
        {"/send_join/", "\"membership\":\"join\"", "\"membership\":\"leave\""},
        /* What a redaction would drop is neither in the id nor signed. */
        {"/send_join/", "\"content\":{\"membership\":\"join\"}",
         "\"content\":{\"displayname\":\"rob\",\"membership\":\"join\"}"},
    };
    (void)state;
    const char *room_id = make_room("\"room_version\":\"12\"");
    street.intercept = tell_lie;
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        street.arg = (void *)&lies[i];
        struct err err = join(1, &bob, room_id, "0");
        if (err.code == 0) {
            print_error("believed: %s\n", lies[i].to);
        }
        assert_int_not_equal(err.code, 0);
        street_next_jobs(&street);
    }
    street.intercept = NULL;
    assert_int_equal(join(1, &bob, room_id, "0").code, 0);
}

static void a_bad_event_of_the_state_is_left_out(void **state)
{
    static const struct lie lie = {"/send_join/", "\"name\":\"Hall\"", "\"name\":\"Hell\""};
    (void)state;
    const char *room_id = make_room("");
    street.intercept = tell_lie;
    street.arg = (void *)&lie;
    assert_int_equal(join(1, &bob, room_id, "0").code, 0);
    struct stored_event event;
    bool found = false;
    struct room *room = room_in(1, room_id);
    struct err err =
        hs_state_event(&street.houses[1].hs, &street.houses[1].ctx, room, hs_room_head(room).root,
                       LIT("m.room.name"), LIT(""), &event, &found);
    assert_int_equal(err.code, 0);
    /* Its hash does not fit, so it counts as redacted. */
    assert_true(!found || !json_get_string(event.event.content, LIT("name")).ptr);
}

/* --- restricted rooms --- */

static const char *restricted_room(const char *space)
{
    char more[500];
    snprintf(more, sizeof more,
             "\"initial_state\":[{\"type\":\"m.room.join_rules\",\"content\":{\"join_rule\":"
             "\"restricted\",\"allow\":[{\"type\":\"m.room_membership\",\"room_id\":\"%s\"}]}}]",
             space);
    return make_room(more);
}

static void members_of_the_allowed_room_may_join(void **state)
{
    char space[300];
    (void)state;
    snprintf(space, sizeof space, "%s", make_room(""));
    const char *room_id = restricted_room(space);
    assert_int_equal(join(1, &bob, room_id, "0").code, ERR_M_FORBIDDEN);
    assert_int_equal(join(1, &bob, space, "0").code, 0);
    assert_int_equal(join(1, &bob, room_id, "0").code, 0);
    struct room_member member;
    bool found = false;
    struct room *room = room_in(1, room_id);
    struct err err = hs_room_member(&street.houses[1].hs, &street.houses[1].ctx, room,
                                    bob.actor.user, &member, &found);
    assert_int_equal(err.code, 0);
    assert_true(found);
}

/* Rooms that would be taken up after a restart. */
static size_t listed_count(size_t house)
{
    uint64_t *rooms = NULL;
    size_t count = 0;
    struct house *h = &street.houses[house];
    assert_int_equal(hs_rooms_partial(&h->hs, &h->ctx, &rooms, &count).code, 0);
    return count;
}

/* The rest of a partial room's state, as the thread of partial.c fetches it. */
static void complete(size_t house, const char *room_id)
{
    struct room *room = room_in(house, room_id);
    struct resync resync = {.fed = street.houses[house].hs.fed,
                            .ctx = &street.houses[house].ctx,
                            .number = hs_room_info(room).number,
                            .first = street_name(0)};
    assert_true(hs_room_is_partial(room));
    struct err err = resync_run(&resync);
    if (err.code) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(err.code, 0);
    assert_false(hs_room_is_partial(room));
    assert_true(hs_room_whole_pos(room) > 0);
    assert_int_equal(listed_count(house), 0);
}

static void the_rest_of_the_state_is_fetched(void **state)
{
    struct room_members members;
    struct house *b = &street.houses[1];
    (void)state;
    const char *room_id = make_room("");
    struct room *room = room_in(0, room_id);
    for (int i = 0; i < 30; i++) {
        char name[8];
        snprintf(name, sizeof name, "m%d", i);
        struct guest guest = house_guest(&street.houses[0], name);
        house_member(&street.houses[0], room, &guest, &guest, MEMBERSHIP_JOIN);
    }
    assert_int_equal(join(1, &bob, room_id, "0").code, 0);
    assert_true(hs_room_head(room_in(1, room_id)).joined_count < 10);
    house_say(b, room_in(1, room_id), &bob, "already");
    complete(1, room_id);
    assert_int_equal(
        hs_room_members(&b->hs, &b->ctx, room_in(1, room_id), MEMBERSHIP_JOIN, 0, &members).code,
        0);
    assert_int_equal(members.count, 32);
    assert_int_equal(hs_room_head(room_in(1, room_id)).joined_count, 32);
}

/* Whatever ends it, the server takes it up where it was. */
static void what_an_interruption_left_to_do_is_done(void **state)
{
    struct house *b = &street.houses[1];
    struct err err = {.code = 1};
    (void)state;
    const char *room_id = make_room("");
    assert_int_equal(join(1, &bob, room_id, "0").code, 0);
    struct resync resync = {.fed = b->hs.fed,
                            .ctx = &b->ctx,
                            .number = hs_room_info(room_in(1, room_id)).number,
                            .first = street_name(0)};
    bool rested = false;
    for (int k = 1; k < 2000 && err.code != 0; k++) {
        assert_int_equal(listed_count(1), 1);
        rested = rested || !hs_room_is_partial(room_in(1, room_id));
        store_fail_after(b->hs.store, k);
        err = resync_run(&resync);
        store_fail_after(b->hs.store, 0);
        house_next_job(b);
        b->ctx.may_wait = true;
    }
    assert_int_equal(err.code, 0);
    assert_true(rested);
    assert_int_equal(listed_count(1), 0);
}

static void a_partial_room_is_not_handed_on(void **state)
{
    (void)state;
    const char *room_id = make_room("");
    assert_int_equal(join(1, &bob, room_id, "0").code, 0);
    assert_int_equal(join(2, &carol, room_id, "1").code, ERR_M_NOT_FOUND);
    complete(1, room_id);
    assert_int_equal(join(2, &carol, room_id, "1").code, 0);
}

/* C is asked first: it is in the room but not in the space, so it cannot tell; then A. */
static void who_cannot_tell_passes_on(void **state)
{
    char space[300];
    (void)state;
    snprintf(space, sizeof space, "%s", make_room(""));
    const char *room_id = restricted_room(space);
    struct room *room = room_in(0, room_id);
    house_member(&street.houses[0], room, &alice, &carol, MEMBERSHIP_INVITE);
    assert_int_equal(join(2, &carol, room_id, "0").code, 0);
    assert_int_equal(join(1, &bob, space, "0").code, 0);
    complete(2, room_id);
    struct street_request ask = {
        .from = 1,
        .to = 2,
        .method = "GET",
        .target = fed_path(&street.houses[1].ctx, "/_matrix/federation/v1/make_join/%s/%s?ver=12",
                           (struct slice[]){slice_of(room_id), bob.actor.user_id}, 2)};
    struct slice body;
    assert_int_equal(street_ask(&street, &ask, &body), 400);
    assert_true(slice_contains(body, LIT("M_UNABLE_TO_AUTHORISE_JOIN")));
    assert_int_equal(join(1, &bob, room_id, "20").code, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_street, close_street)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rooms_of_every_version_are_joined),
        TEST(a_join_waits_only_where_it_may),
        TEST(the_next_server_is_asked),
        TEST(a_server_without_the_room_passes_on),
        TEST(a_refusal_is_final),
        TEST(the_best_error_is_told),
        TEST(wrong_answers_do_not_bring_a_user_in),
        TEST(a_bad_event_of_the_state_is_left_out),
        TEST(members_of_the_allowed_room_may_join),
        TEST(the_rest_of_the_state_is_fetched),
        TEST(what_an_interruption_left_to_do_is_done),
        TEST(a_partial_room_is_not_handed_on),
        TEST(who_cannot_tell_passes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
