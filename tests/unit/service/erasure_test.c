/* What readers of this server get of a user who asked to be erased.
 * Spec: client-server, POST /account/deactivate: "any users (or servers) which join the room after
 * the erasure request are served redacted copies of the events sent by this account. Users which
 * had visibility on those events prior to the erasure are still able to see unredacted copies." */
#include "homeserver/service/prefs.h"
#include "homeserver/service/thread_subs.h"
#include "homeserver/service/timeline.h"
#include "homeserver/service/users.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct house h;
static struct guest ann, bob, eve;
static struct room *room;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    bob = house_guest(&h, "bob");
    eve = house_guest(&h, "eve");
    room = house_room(&h, &bob, "{\"preset\":\"public_chat\"}");
    house_member(&h, room, &ann, &ann, MEMBERSHIP_JOIN);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static void deactivate(enum account_erasure erasure)
{
    assert_int_equal(hs_account_deactivate(&h.hs, &h.ctx, ann.actor.user, erasure).code, 0);
}

/* The event as this user is served it. */
static const char *seen_by(const struct guest *guest, struct slice event_id)
{
    struct viewer viewer = {.user = guest->actor.user, .user_id = guest->actor.user_id};
    struct stored_event event;
    struct buf text;
    bool found = false;
    buf_init_arena(&text, h.ctx.arena, 65536);
    struct json_out out = json_out_to(&text);
    assert_int_equal(hs_event_find(&h.hs, &h.ctx, room, event_id, &event, &found).code, 0);
    assert_true(found);
    struct err err =
        hs_write_event(&h.hs, &h.ctx, room, &viewer, &event, VIEW_ROOM_ID | VIEW_BUNDLE, &out);
    assert_int_equal(err.code, 0);
    return arena_cstr(h.ctx.arena, buf_slice(&text));
}

static bool sees(const struct guest *guest, struct slice event_id, const char *words)
{
    return strstr(seen_by(guest, event_id), words) != NULL;
}

static void those_who_join_later_get_redacted_copies(void **state)
{
    (void)state;
    struct slice said = house_say(&h, room, &ann, "my secret");
    struct slice others = house_say(&h, room, &bob, "no secret");
    deactivate(ACCOUNT_ERASE);
    house_member(&h, room, &eve, &eve, MEMBERSHIP_JOIN);
    assert_true(sees(&bob, said, "my secret"));
    assert_false(sees(&eve, said, "my secret"));
    assert_true(sees(&eve, said, "\"content\":{}"));
    assert_true(sees(&eve, others, "no secret"));
}

static void those_who_joined_between_get_each_event_by_itself(void **state)
{
    (void)state;
    struct slice before = house_say(&h, room, &ann, "first words");
    house_member(&h, room, &eve, &eve, MEMBERSHIP_JOIN);
    struct slice after = house_say(&h, room, &ann, "second words");
    deactivate(ACCOUNT_ERASE);
    assert_false(sees(&eve, before, "first words"));
    assert_true(sees(&eve, after, "second words"));
}

static void deactivation_alone_hides_nothing(void **state)
{
    (void)state;
    struct slice said = house_say(&h, room, &ann, "my words");
    deactivate(ACCOUNT_KEEP_CONTENT);
    house_member(&h, room, &eve, &eve, MEMBERSHIP_JOIN);
    assert_true(sees(&eve, said, "my words"));
}

static void edits_go_with_what_they_edit(void **state)
{
    (void)state;
    struct slice said = house_say(&h, room, &ann, "old secret");
    struct slice content = arena_printf(
        h.ctx.arena,
        "{\"msgtype\":\"m.text\",\"body\":\"*\",\"m.new_content\":{\"msgtype\":\"m.text\","
        "\"body\":\"new secret\"},\"m.relates_to\":{\"rel_type\":\"m.replace\","
        "\"event_id\":\"%.*s\"}}",
        (int)said.len, said.ptr);
    house_send(&h, room, &ann, "m.room.message", content.ptr);
    deactivate(ACCOUNT_ERASE);
    house_member(&h, room, &eve, &eve, MEMBERSHIP_JOIN);
    assert_true(sees(&bob, said, "new secret"));
    assert_false(sees(&eve, said, "secret"));
}

/* The room goes on by the state that an erased user set; what was replaced is history. */
static void present_state_stays_and_former_state_goes(void **state)
{
    struct room *own = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    (void)state;
    house_member(&h, own, &bob, &bob, MEMBERSHIP_JOIN);
    room = own;
    struct slice former = house_state(&h, own, &ann, "m.room.name", "{\"name\":\"former\"}");
    struct slice present = house_state(&h, own, &ann, "m.room.name", "{\"name\":\"present\"}");
    deactivate(ACCOUNT_ERASE);
    house_member(&h, own, &eve, &eve, MEMBERSHIP_JOIN);
    assert_true(sees(&eve, present, "present"));
    assert_false(sees(&eve, present, "former"));
    assert_false(sees(&eve, former, "former"));
    assert_true(sees(&bob, present, "former"));
}

static size_t data_count(void)
{
    struct account_data data;
    struct err err = hs_account_data_since(&h.hs, &h.ctx, ann.actor.user, 0, INT64_MAX, &data);
    assert_int_equal(err.code, 0);
    size_t count = 0;
    for (size_t i = 0; i < data.count; i++) { /* push rules are there for everybody */
        count += slice_eq(data.items[i].type, LIT("m.push_rules")) ? 0 : 1;
    }
    return count;
}

static void set_private_data(void)
{
    struct thread_sub_wish wish = {.user = ann.actor.user,
                                   .room = hs_room_info(room).number,
                                   .root = house_say(&h, room, &ann, "root")};
    struct slice id;
    struct err err =
        hs_account_data_put(&h.hs, &h.ctx, ann.actor.user, 0, LIT("m.ignored_user_list"),
                            LIT("{\"ignored_users\":{\"@eve:test\":{}}}"));
    assert_int_equal(err.code, 0);
    err = hs_account_data_put(&h.hs, &h.ctx, ann.actor.user, wish.room, LIT("m.tag"),
                              LIT("{\"tags\":{}}"));
    assert_int_equal(err.code, 0);
    assert_int_equal(hs_thread_subscribe(&h.hs, &h.ctx, &wish).code, 0);
    assert_int_equal(hs_filter_put(&h.hs, &h.ctx, ann.actor.user, LIT("{}"), &id).code, 0);
}

static bool ignores_eve(void)
{
    bool ignored = false;
    struct err err = hs_is_ignored(&h.hs, &h.ctx, ann.actor.user, eve.actor.user_id, &ignored);
    assert_int_equal(err.code, 0);
    return ignored;
}

static void what_the_user_kept_here_goes_too(void **state)
{
    struct thread_subs subs;
    struct thread_sub_window all = {.upto = INT64_MAX, .limit = 10};
    struct slice filter;
    bool found = true;
    (void)state;
    set_private_data();
    assert_int_equal(data_count(), 2);
    assert_true(ignores_eve());
    deactivate(ACCOUNT_ERASE);
    assert_int_equal(data_count(), 0);
    assert_false(ignores_eve());
    assert_int_equal(hs_thread_subs_changed(&h.hs, &h.ctx, ann.actor.user, all, &subs).code, 0);
    assert_int_equal(subs.count, 0);
    struct err err = hs_filter_get(&h.hs, &h.ctx, ann.actor.user, LIT("0"), &filter, &found);
    assert_int_equal(err.code, 0);
    assert_false(found);
}

static void without_erasure_it_stays(void **state)
{
    (void)state;
    set_private_data();
    deactivate(ACCOUNT_KEEP_CONTENT);
    assert_int_equal(data_count(), 2);
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(those_who_join_later_get_redacted_copies),
        IN_HOUSE(those_who_joined_between_get_each_event_by_itself),
        IN_HOUSE(deactivation_alone_hides_nothing),
        IN_HOUSE(edits_go_with_what_they_edit),
        IN_HOUSE(present_state_stays_and_former_state_goes),
        IN_HOUSE(what_the_user_kept_here_goes_too),
        IN_HOUSE(without_erasure_it_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
