#include "homeserver/service/prefs.h"

#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct house h;
static struct guest ann, ben;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    ben = house_guest(&h, "ben");
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static struct err put(uint64_t room, const char *type, const char *content)
{
    return hs_account_data_put(&h.hs, &h.ctx, ann.actor.user, room, slice_of(type),
                               slice_of(content));
}

static void must_put(uint64_t room, const char *type, const char *content)
{
    assert_int_equal(put(room, type, content).code, 0);
}

static struct slice get(uint64_t room, const char *type)
{
    struct slice content;
    bool found = false;
    assert_int_equal(
        hs_account_data_get(&h.hs, &h.ctx, ann.actor.user, room, slice_of(type), &content, &found)
            .code,
        0);
    return found ? content : LIT("absent");
}

static struct account_data since(uint64_t pos)
{
    struct account_data data;
    assert_int_equal(hs_account_data_since(&h.hs, &h.ctx, ann.actor.user, pos,
                                           positions_newest(h.hs.positions), &data)
                         .code,
                     0);
    return data;
}

static void assert_slice(struct slice got, const char *wanted)
{
    assert_int_equal(got.len, strlen(wanted));
    assert_memory_equal(got.ptr, wanted, got.len);
}

static void a_datum_is_replaced_as_a_whole(void **state)
{
    (void)state;
    must_put(0, "org.example.theme", "{\"a\":1,\"b\":2}");
    must_put(0, "org.example.theme", "{\"a\":3}");
    assert_slice(get(0, "org.example.theme"), "{\"a\":3}");
    assert_slice(get(7, "org.example.theme"), "absent");
}

static void a_change_is_listed_once_at_its_newest_position(void **state)
{
    (void)state;
    must_put(0, "one", "{}");
    uint64_t before = positions_newest(h.hs.positions);
    must_put(9, "two", "{\"n\":1}");
    must_put(9, "two", "{\"n\":2}");
    struct account_data data = since(before);
    assert_int_equal(data.count, 1);
    assert_int_equal(data.items[0].room, 9);
    assert_slice(data.items[0].type, "two");
    assert_slice(data.items[0].content, "{\"n\":2}");
    assert_int_equal(since(before + 2).count, 0);
}

static void the_first_listing_has_the_push_rules(void **state)
{
    (void)state;
    struct account_data data = since(0);
    assert_int_equal(data.count, 1);
    assert_slice(data.items[0].type, "m.push_rules");
    assert_true(slice_contains(data.items[0].content, LIT(".m.rule.master")));
}

/* MSC3391: an empty object removes; who follows the stream learns of it. */
static void an_empty_object_removes(void **state)
{
    struct slice content;
    bool found = true;
    (void)state;
    must_put(0, "one", "{\"a\":1}");
    uint64_t before = positions_newest(h.hs.positions);
    must_put(0, "one", "{}");
    assert_int_equal(
        hs_account_data_get(&h.hs, &h.ctx, ann.actor.user, 0, LIT("one"), &content, &found).code,
        0);
    assert_false(found);
    assert_int_equal(since(before).count, 1);
    assert_slice(since(before).items[0].content, "{}");
    struct account_data all = since(0);
    for (size_t i = 0; i < all.count; i++) {
        assert_false(slice_eq(all.items[i].type, LIT("one")));
    }
}

static void types_have_1_to_255_bytes(void **state)
{
    char type[257] = {0};
    (void)state;
    memset(type, 't', 256);
    assert_int_equal(put(0, type, "{}").code, ERR_M_INVALID_PARAM);
    assert_int_equal(put(0, "", "{}").code, ERR_M_INVALID_PARAM);
    type[255] = 0;
    must_put(0, type, "{\"a\":1}");
    assert_slice(get(0, type), "{\"a\":1}");
}

static struct err leave_alone(void *arg, struct ctx *ctx, struct slice old,
                              struct slice *content_out)
{
    (void)ctx;
    (void)content_out;
    *(struct slice *)arg = old;
    return OK;
}

static void an_edit_that_makes_nothing_changes_nothing(void **state)
{
    struct slice old = {0};
    struct account_data_edit edit = {
        .user = ann.actor.user, .type = LIT("one"), .make = leave_alone, .arg = &old};
    (void)state;
    must_put(0, "one", "{\"n\":1}");
    uint64_t before = positions_newest(h.hs.positions);
    assert_int_equal(hs_account_data_edit(&h.hs, &h.ctx, &edit).code, 0);
    assert_slice(old, "{\"n\":1}");
    assert_int_equal(positions_newest(h.hs.positions), before);
}

/* A reserved position that nobody gives back would hold up everything after it. */
static void a_failed_write_holds_nothing_up(void **state)
{
    (void)state;
    for (int32_t call = 1; call <= 2; call++) {
        store_fail_after(h.hs.store, call);
        assert_int_equal(put(0, "one", "{}").code, ERR_IO);
        store_fail_after(h.hs.store, 0);
    }
    must_put(0, "two", "{}");
    house_settle(&h);
    assert_int_equal(positions_published(h.hs.positions), positions_newest(h.hs.positions));
    assert_slice(get(0, "one"), "absent");
}

static bool ignores(const char *user_id)
{
    bool ignored = false;
    assert_int_equal(hs_is_ignored(&h.hs, &h.ctx, ann.actor.user, slice_of(user_id), &ignored).code,
                     0);
    return ignored;
}

static void ignoring_takes_force_at_once(void **state)
{
    (void)state;
    assert_false(ignores("@ben:test"));
    must_put(0, "m.ignored_user_list", "{\"ignored_users\":{\"@ben:test\":{}}}");
    assert_true(ignores("@ben:test"));
    assert_false(ignores("@cem:test"));
    must_put(0, "m.ignored_user_list", "{\"ignored_users\":[]}");
    assert_false(ignores("@ben:test"));
}

static void state_of_ignored_senders_stays(void **state)
{
    (void)state;
    struct stored_event items[] = {
        {.event = {.sender = {LIT("@ben:test")}}},
        {.event = {.sender = {LIT("@ben:test")}, .has_state_key = true}},
        {.event = {.sender = {LIT("@ann:test")}}},
    };
    struct stored_events events = {items, COUNT_OF(items)};
    must_put(0, "m.ignored_user_list", "{\"ignored_users\":{\"@ben:test\":{}}}");
    assert_int_equal(hs_drop_ignored(&h.hs, &h.ctx, ann.actor.user, &events).code, 0);
    assert_int_equal(events.count, 2);
    assert_true(events.items[0].event.has_state_key);
    assert_slice(events.items[1].event.sender.s, "@ann:test");
}

static void equal_filters_share_an_id(void **state)
{
    struct slice one, again, other, json;
    bool found = false;
    uint64_t user = ann.actor.user;
    (void)state;
    assert_int_equal(hs_filter_put(&h.hs, &h.ctx, user, LIT("{}"), &one).code, 0);
    assert_int_equal(hs_filter_put(&h.hs, &h.ctx, user, LIT("{}"), &again).code, 0);
    assert_int_equal(hs_filter_put(&h.hs, &h.ctx, user, LIT("{\"room\":{}}"), &other).code, 0);
    assert_true(slice_eq(one, again));
    assert_false(slice_eq(one, other));
    assert_int_equal(hs_filter_get(&h.hs, &h.ctx, user, other, &json, &found).code, 0);
    assert_true(found);
    assert_slice(json, "{\"room\":{}}");
    assert_int_equal(hs_filter_get(&h.hs, &h.ctx, ben.actor.user, other, &json, &found).code, 0);
    assert_false(found);
}

static struct err replace_rules(void *arg, struct ctx *ctx, struct json *stored)
{
    return json_parse(ctx->arena, slice_of(arg), stored);
}

static struct err edit_rules(char *document)
{
    return hs_push_rules_edit(&h.hs, &h.ctx, ann.actor.user, replace_rules, document);
}

static bool notifies(const char *body)
{
    const struct push_rules *rules = NULL;
    struct json content = json_object();
    json_set(h.ctx.arena, &content, LIT("body"), json_string(slice_of(body)));
    struct event event = {
        .type = LIT("m.room.message"), .sender = {LIT("@ben:test")}, .content = &content};
    struct push_target target = {.user = {LIT("@ann:test")}, .member_count = 3};
    assert_int_equal(hs_push_rules_get(&h.hs, &h.ctx, ann.actor.user, &rules).code, 0);
    return push_rules_evaluate(rules, &event, &target).notify;
}

static void changed_rules_decide_at_once(void **state)
{
    (void)state;
    assert_true(notifies("tea"));
    assert_int_equal(edit_rules("{\"global\":{\"content\":[{\"rule_id\":\"x\",\"pattern\":\"tea\","
                                "\"actions\":[]}]}}")
                         .code,
                     0);
    assert_false(notifies("tea"));
    assert_true(notifies("coffee"));
    house_next_job(&h);
    assert_int_equal(edit_rules("{}").code, 0);
    assert_true(notifies("tea"));
}

static void only_the_users_part_of_the_rules_is_stored(void **state)
{
    (void)state;
    assert_int_equal(edit_rules("{\"global\":{}}").code, 0);
    assert_slice(get(0, "m.push_rules"), "{\"global\":{}}");
    struct account_data data = since(0);
    assert_int_equal(data.count, 1);
    assert_true(slice_contains(data.items[0].content, LIT(".m.rule.master")));
}

static void a_refused_change_of_rules_is_not_stored(void **state)
{
    (void)state;
    assert_int_not_equal(edit_rules("{").code, 0);
    assert_slice(get(0, "m.push_rules"), "absent");
}

#define IN_HOUSE(test) cmocka_unit_test_setup_teardown(test, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_HOUSE(a_datum_is_replaced_as_a_whole),
        IN_HOUSE(a_change_is_listed_once_at_its_newest_position),
        IN_HOUSE(the_first_listing_has_the_push_rules),
        IN_HOUSE(an_empty_object_removes),
        IN_HOUSE(types_have_1_to_255_bytes),
        IN_HOUSE(an_edit_that_makes_nothing_changes_nothing),
        IN_HOUSE(a_failed_write_holds_nothing_up),
        IN_HOUSE(ignoring_takes_force_at_once),
        IN_HOUSE(state_of_ignored_senders_stays),
        IN_HOUSE(equal_filters_share_an_id),
        IN_HOUSE(changed_rules_decide_at_once),
        IN_HOUSE(only_the_users_part_of_the_rules_is_stored),
        IN_HOUSE(a_refused_change_of_rules_is_not_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
