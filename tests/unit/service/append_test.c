/* Each write path of a room with the store failing at its k-th call: the error comes back, nothing
 * is half written, positions go on, and the room works again afterwards. */
#include "homeserver/service/check.h"
#include "homeserver/service/room_create.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { CALLS_MAX = 60 };

static struct house h;
static struct guest ann, bob;
static struct slice room_id, said;

static struct err open_room(struct room **room_out)
{
    return hs_room_get_by_id(&h.hs, &h.ctx, room_id, room_out);
}

static struct err send_one(const char *type, const char *state_key, const char *text)
{
    struct room *room = NULL;
    struct json content;
    struct hs_sent sent;
    TRY(open_room(&room));
    TRY(json_parse(h.ctx.arena, slice_of(text), &content));
    struct send_request request = {.actor = &ann.actor,
                                   .device_id = ann.device_id,
                                   .txn_id = state_key ? (struct slice){0} : LIT("t"),
                                   .type = slice_of(type),
                                   .state_key = slice_of(state_key),
                                   .content = &content};
    return state_key ? hs_send_state(&h.hs, &h.ctx, room, &request, &sent)
                     : hs_send_message(&h.hs, &h.ctx, room, &request, &sent);
}

static struct err say(void)
{
    return send_one("m.room.message", NULL, "{\"body\":\"b\",\"msgtype\":\"m.text\"}");
}

static struct err name(void)
{
    return send_one("m.room.name", "", "{\"name\":\"n\"}");
}

static struct err react(void)
{
    struct slice text = arena_printf(h.ctx.arena,
                                     "{\"m.relates_to\":{\"rel_type\":\"m.annotation\","
                                     "\"event_id\":\"%.*s\",\"key\":\"k\"}}",
                                     (int)said.len, said.ptr);
    return send_one("m.reaction", NULL, text.ptr);
}

static struct err redact(void)
{
    struct room *room = NULL;
    struct json content = json_object();
    struct hs_sent sent;
    struct send_request request = {.actor = &ann.actor, .content = &content};
    TRY(open_room(&room));
    return hs_redact(&h.hs, &h.ctx, room, &request, said, &sent);
}

static struct err join(void)
{
    struct room *room = NULL;
    struct hs_sent sent;
    struct member_change change = {.target = bob.actor.user_id, .membership = MEMBERSHIP_JOIN};
    TRY(open_room(&room));
    return hs_member_set(&h.hs, &h.ctx, room, &bob.actor, &change, &sent);
}

static struct err create(void)
{
    struct json body;
    struct slice made;
    TRY(json_parse(h.ctx.arena, LIT("{\"preset\":\"public_chat\",\"room_alias_name\":\"x\"}"),
                   &body));
    return hs_room_create(&h.hs, &h.ctx, &ann.actor, &body, &made);
}

/* A house with a room in which ann has said something. */
static void furnish(char *room_id_kept, char *said_kept)
{
    house_open(&h);
    ann = house_guest(&h, "ann");
    bob = house_guest(&h, "bob");
    struct room *room = house_room(&h, &ann, "{\"preset\":\"public_chat\"}");
    struct slice id = hs_room_info(room).room_id;
    struct slice event = house_say(&h, room, &ann, "first");
    for (size_t i = 0; i < id.len; i++) {
        room_id_kept[i] = id.ptr[i];
    }
    for (size_t i = 0; i < event.len; i++) {
        said_kept[i] = event.ptr[i];
    }
    room_id = (struct slice){room_id_kept, id.len};
    said = (struct slice){said_kept, event.len};
    ctx_finish(&h.ctx);
}

static void expect_sound(int k)
{
    struct check_result result;
    struct check_options options = {0};
    house_settle(&h);
    assert_int_equal(hs_check(&h.hs, &h.ctx, &options, &result).code, 0);
    if (result.differences) {
        fail_msg("call %d left %llu differences", k, (unsigned long long)result.differences);
    }
}

/* Runs the step once for each call that may fail, in a house of its own; some call must fail it. */
static void fail_each_call(struct err (*step)(void))
{
    int failed = 0;
    for (int k = 1; k <= CALLS_MAX; k++) {
        char room_bytes[256];
        char said_bytes[256];
        furnish(room_bytes, said_bytes);
        store_fail_after(h.hs.store, k);
        struct err err = step();
        store_fail_after(h.hs.store, 0);
        ctx_finish(&h.ctx);
        failed += err.code != 0 ? 1 : 0;
        assert_int_equal(say().code, 0);
        expect_sound(k);
        ctx_finish(&h.ctx);
        house_close(&h);
        if (err.code == 0) {
            break;
        }
    }
    assert_true(failed > 0);
}

static void a_message_fails_whole(void **state)
{
    (void)state;
    fail_each_call(say);
}

static void state_fails_whole(void **state)
{
    (void)state;
    fail_each_call(name);
}

static void a_reaction_fails_whole(void **state)
{
    (void)state;
    fail_each_call(react);
}

static void a_redaction_fails_whole(void **state)
{
    (void)state;
    fail_each_call(redact);
}

static void a_join_fails_whole(void **state)
{
    (void)state;
    fail_each_call(join);
}

static void creating_a_room_leaves_nothing_unsound(void **state)
{
    (void)state;
    fail_each_call(create);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_fails_whole),
        cmocka_unit_test(state_fails_whole),
        cmocka_unit_test(a_reaction_fails_whole),
        cmocka_unit_test(a_redaction_fails_whole),
        cmocka_unit_test(a_join_fails_whole),
        cmocka_unit_test(creating_a_room_leaves_nothing_unsound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
