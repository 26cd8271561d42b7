/* What is written about rooms beside messages and state (append_test.c), with the store failing at
 * its k-th call. */
#include "homeserver/service/directory.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/room_create.h"
#include "homeserver/service/room_upgrade.h"
#include "homeserver/service/signals.h"
#include "homeserver/service/users.h"
#include "tests/support/failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann, bob;
static uint64_t room;
static struct slice room_id, said;

static void furnish(void)
{
    ann = house_guest(&h, "ann");
    bob = house_guest(&h, "bob");
    struct room *where = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    room = hs_room_info(where).number;
    room_id = arena_copy(h.conf_arena, hs_room_info(where).room_id);
    house_member(&h, where, &bob, &bob, MEMBERSHIP_JOIN);
    said = arena_copy(h.conf_arena, house_say(&h, where, &ann, "first"));
}

static void each_call(void (*begin)(void), struct err (*step)(void), void (*check_done)(void))
{
    failing_each_call(&(struct failing){&h, begin, step, check_done, NULL});
}

/* --- names --- */

static const struct slice alias = {"#a:test", 7};

static struct err set_alias(void)
{
    return hs_alias_set(&h.hs, &h.ctx, alias, room, ann.actor.user);
}

static struct err delete_alias(void)
{
    return hs_alias_delete(&h.hs, &h.ctx, alias);
}

static void furnish_alias(void)
{
    furnish();
    assert_int_equal(set_alias().code, 0);
}

static void aliases_come_and_go_whole(void **state)
{
    (void)state;
    each_call(furnish, set_alias, NULL);
    each_call(furnish_alias, delete_alias, NULL);
}

static struct err publish(void)
{
    TRY(hs_public_set(&h.hs, &h.ctx, room, true));
    TRY(hs_public_set(&h.hs, &h.ctx, room, false));
    return hs_public_set(&h.hs, &h.ctx, room, true);
}

static void room_is_public(void)
{
    bool is_public = false;
    assert_int_equal(hs_public_get(&h.hs, &h.ctx, room, &is_public).code, 0);
    assert_true(is_public);
}

static void a_room_is_published_whole(void **state)
{
    (void)state;
    each_call(furnish, publish, room_is_public);
}

/* --- making rooms --- */

static struct err create(void)
{
    struct json body;
    struct slice made;
    TRY(json_parse(h.ctx.arena,
                   LIT("{\"preset\":\"public_chat\",\"visibility\":\"public\",\"name\":\"n\","
                       "\"room_alias_name\":\"a\",\"invite\":[\"@bob:test\"]}"),
                   &body));
    return hs_room_create(&h.hs, &h.ctx, &ann.actor, &body, &made);
}

static size_t rooms_of(const struct guest *guest)
{
    struct user_rooms rooms;
    assert_int_equal(hs_user_rooms(&h.hs, &h.ctx, guest->actor.user, &rooms).code, 0);
    return rooms.count;
}

/* Half a room would be one more in the lists. */
static void one_more_room_or_none(void)
{
    uint64_t found_room = 0;
    uint64_t creator = 0;
    bool found = false;
    assert_int_equal(hs_alias_get(&h.hs, &h.ctx, alias, &found_room, &creator, &found).code, 0);
    assert_int_equal(rooms_of(&ann), found ? 2 : 1);
    assert_int_equal(rooms_of(&bob), found ? 2 : 1);
}

static void both_have_the_room(void)
{
    assert_int_equal(rooms_of(&ann), 2);
    assert_int_equal(rooms_of(&bob), 2);
}

static void a_room_is_made_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish, create, both_have_the_room, one_more_room_or_none});
}

static void furnish_listed(void)
{
    struct room *where = NULL;
    furnish_alias();
    assert_int_equal(hs_public_set(&h.hs, &h.ctx, room, true).code, 0);
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
    house_state(&h, where, &ann, "m.room.canonical_alias", "{\"alias\":\"#a:test\"}");
}

static struct err upgrade(void)
{
    struct room *where = NULL;
    struct slice made;
    struct room_upgrade wanted = {.new_version = LIT("10")};
    TRY(hs_room_get(&h.hs, &h.ctx, room, &where));
    return hs_room_upgrade(&h.hs, &h.ctx, where, &ann.actor, &wanted, &made);
}

static struct slice state_text(uint64_t number, const char *type, struct slice member)
{
    struct room *where = NULL;
    struct stored_event event;
    bool found = false;
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, number, &where).code, 0);
    assert_int_equal(hs_state_event(&h.hs, &h.ctx, where, hs_room_head(where).root, slice_of(type),
                                    LIT(""), &event, &found)
                         .code,
                     0);
    return found ? json_get_string(event.event.content, member) : (struct slice){0};
}

/* Another room stands where the old room says so, and nowhere else; the alias names one of them. */
static void replaced_or_not(void)
{
    uint64_t named = 0;
    uint64_t creator = 0;
    bool found = false;
    bool replaced = state_text(room, "m.room.tombstone", LIT("replacement_room")).ptr != NULL;
    ctx_finish(&h.ctx);
    assert_int_equal(rooms_of(&ann), replaced ? 2 : 1);
    assert_int_equal(hs_alias_get(&h.hs, &h.ctx, alias, &named, &creator, &found).code, 0);
    assert_true(found);
    assert_true(named == room || replaced);
}

static void the_names_have_moved(void)
{
    uint64_t named = 0;
    uint64_t creator = 0;
    bool found = false;
    bool is_public = true;
    assert_int_equal(hs_alias_get(&h.hs, &h.ctx, alias, &named, &creator, &found).code, 0);
    assert_true(named != room);
    assert_int_equal(hs_public_get(&h.hs, &h.ctx, room, &is_public).code, 0);
    assert_false(is_public);
    assert_int_equal(hs_public_get(&h.hs, &h.ctx, named, &is_public).code, 0);
    assert_true(is_public);
    assert_true(slice_eq(state_text(named, "m.room.canonical_alias", LIT("alias")), alias));
    assert_null(state_text(room, "m.room.canonical_alias", LIT("alias")).ptr);
    ctx_finish(&h.ctx);
}

static void a_room_is_replaced_whole(void **state)
{
    (void)state;
    failing_each_call(
        &(struct failing){&h, furnish_listed, upgrade, the_names_have_moved, replaced_or_not});
}

/* --- members --- */

struct wanted {
    enum membership before, after;
    bool by_bob;
};
static const struct wanted *wish;

static void furnish_member(void)
{
    struct room *where = NULL;
    furnish();
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
    if (wish->before != MEMBERSHIP_JOIN) {
        house_member(&h, where, &ann, &bob, wish->before);
    }
}

static struct err change_member(void)
{
    struct room *where = NULL;
    struct hs_sent sent;
    struct member_change set = {.target = bob.actor.user_id, .membership = wish->after};
    TRY(hs_room_get(&h.hs, &h.ctx, room, &where));
    return hs_member_set(&h.hs, &h.ctx, where, wish->by_bob ? &bob.actor : &ann.actor, &set, &sent);
}

static enum membership membership_of_bob(void)
{
    struct room *where = NULL;
    enum membership membership = MEMBERSHIP_NONE;
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
    assert_int_equal(hs_membership_at(&h.hs, &h.ctx, where, hs_room_head(where).root,
                                      bob.actor.user_id, &membership)
                         .code,
                     0);
    ctx_finish(&h.ctx);
    return membership;
}

static void bob_is_what_was_wanted(void)
{
    assert_int_equal(membership_of_bob(), wish->after);
}

static void members_change_whole(void **state)
{
    static const struct wanted wishes[] = {
        {MEMBERSHIP_JOIN, MEMBERSHIP_LEAVE, true},    /* leaves */
        {MEMBERSHIP_JOIN, MEMBERSHIP_LEAVE, false},   /* is kicked */
        {MEMBERSHIP_JOIN, MEMBERSHIP_BAN, false},     /* is banned */
        {MEMBERSHIP_BAN, MEMBERSHIP_LEAVE, false},    /* is forgiven */
        {MEMBERSHIP_LEAVE, MEMBERSHIP_INVITE, false}, /* is invited */
        {MEMBERSHIP_LEAVE, MEMBERSHIP_JOIN, true},    /* comes back */
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(wishes); i++) {
        wish = &wishes[i];
        each_call(furnish_member, change_member, bob_is_what_was_wanted);
    }
}

static const struct wanted gone = {MEMBERSHIP_LEAVE, MEMBERSHIP_LEAVE, true};

static void furnish_left(void)
{
    wish = &gone;
    furnish_member();
}

static struct err forget(void)
{
    struct room *where = NULL;
    TRY(hs_room_get(&h.hs, &h.ctx, room, &where));
    return hs_room_forget(&h.hs, &h.ctx, where, &bob.actor);
}

static void room_is_forgotten(void)
{
    struct user_room entry;
    bool found = false;
    assert_int_equal(hs_user_room(&h.hs, &h.ctx, bob.actor.user, room, &entry, &found).code, 0);
    assert_true(found && entry.forgotten);
}

static void a_room_is_forgotten_whole(void **state)
{
    (void)state;
    each_call(furnish_left, forget, room_is_forgotten);
}

static void furnish_visitor(void)
{
    furnish();
    assert_int_equal(
        hs_account_set_flags(&h.hs, &h.ctx, bob.actor.user, ACCOUNT_GUEST, ACCOUNT_GUEST).code, 0);
}

static struct err shut_guests_out(void)
{
    struct room *where = NULL;
    struct json content;
    struct hs_sent sent;
    TRY(hs_room_get(&h.hs, &h.ctx, room, &where));
    TRY(json_parse(h.ctx.arena, LIT("{\"guest_access\":\"forbidden\",\"n\":1}"), &content));
    struct send_request request = {.actor = &ann.actor,
                                   .type = LIT("m.room.guest_access"),
                                   .state_key = LIT(""),
                                   .content = &content};
    return hs_send_state(&h.hs, &h.ctx, where, &request, &sent);
}

static void bob_has_left(void)
{
    assert_int_equal(membership_of_bob(), MEMBERSHIP_LEAVE);
}

static void guests_are_shut_out_in_the_end(void **state)
{
    (void)state;
    each_call(furnish_visitor, shut_guests_out, bob_has_left);
}

/* --- what a member takes along from the room before --- */

static struct slice next_id;

static void furnish_next(void)
{
    furnish();
    assert_int_equal(hs_account_data_put(&h.hs, &h.ctx, bob.actor.user, room, LIT("m.tag"),
                                         LIT("{\"tags\":{\"u.x\":{}}}"))
                         .code,
                     0);
    struct room *next = house_room(&h, &ann,
                                   arena_printf(h.ctx.arena,
                                                "{\"preset\":\"public_chat\",\"creation_content\":"
                                                "{\"predecessor\":{\"room_id\":\"%.*s\"}}}",
                                                (int)room_id.len, room_id.ptr)
                                       .ptr);
    next_id = arena_copy(h.conf_arena, hs_room_info(next).room_id);
}

static struct err join_next(void)
{
    struct room *next = NULL;
    struct hs_sent sent;
    struct member_change join = {.target = bob.actor.user_id, .membership = MEMBERSHIP_JOIN};
    TRY(hs_room_get_by_id(&h.hs, &h.ctx, next_id, &next));
    return hs_member_set(&h.hs, &h.ctx, next, &bob.actor, &join, &sent);
}

static void the_tag_came_along(void)
{
    uint64_t next = 0;
    struct slice content;
    bool found = false;
    assert_int_equal(hs_room_find(&h.hs, &h.ctx, next_id, &next, &found).code, 0);
    assert_int_equal(
        hs_account_data_get(&h.hs, &h.ctx, bob.actor.user, next, LIT("m.tag"), &content, &found)
            .code,
        0);
    assert_true(found);
}

static void tags_come_along_in_the_end(void **state)
{
    (void)state;
    each_call(furnish_next, join_next, the_tag_came_along);
}

/* --- what was read --- */

static struct err read_all(void)
{
    static const struct slice types[] = {
        {"m.read", 6}, {"m.fully_read", 12}, {"m.read.private", 14}};
    struct room *where = NULL;
    TRY(hs_room_get(&h.hs, &h.ctx, room, &where));
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        struct receipt_request request = {.type = types[i], .event_id = said};
        TRY(hs_receipt_request(&h.hs, &h.ctx, where, &bob.actor, &request));
    }
    return OK;
}

static void receipts_fail_whole(void **state)
{
    (void)state;
    each_call(furnish, read_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aliases_come_and_go_whole),
        cmocka_unit_test(a_room_is_published_whole),
        cmocka_unit_test(a_room_is_made_whole),
        cmocka_unit_test(a_room_is_replaced_whole),
        cmocka_unit_test(members_change_whole),
        cmocka_unit_test(a_room_is_forgotten_whole),
        cmocka_unit_test(guests_are_shut_out_in_the_end),
        cmocka_unit_test(tags_come_along_in_the_end),
        cmocka_unit_test(receipts_fail_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
