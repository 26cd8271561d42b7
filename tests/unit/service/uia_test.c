#include "homeserver/service/uia.h"

#include "homeserver/service/registration_tokens.h"
#include "tests/support/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct world w;
static uint64_t ann, bob;

/* One request with this body; the parsed 401 (or nothing) and the result. */
struct answer {
    struct uia_result result;
    struct json body;
    int status;
    uint32_t code;
};

static const struct uia_flow dummy_flow = {{UIA_DUMMY}, 1};
static const struct uia_flow password_flow = {{UIA_PASSWORD}, 1};
static const struct uia_flow token_flow = {{UIA_REGISTRATION_TOKEN, UIA_TERMS}, 2};

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    ann = world_user(&w, "ann");
    bob = world_user(&w, "bob");
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

static struct answer ask(struct slice path, const struct uia_flow *flow, uint64_t user,
                         struct slice body)
{
    struct answer answer = {0};
    struct http_request request = {.method = HTTP_POST, .path = path};
    struct http_reply reply = {0};
    struct uia_check check = {.request = &request, .flow = *flow, .user = user};
    buf_init_arena(&reply.body, w.ctx.arena, 1 << 16);
    assert_int_equal(json_parse(w.ctx.arena, body, &request.json).code, 0);
    answer.code = hs_uia_check(&w.hs, &w.ctx, &check, &reply, &answer.result).code;
    answer.status = reply.status;
    if (reply.body.len > 0) {
        assert_int_equal(json_parse(w.ctx.arena, buf_slice(&reply.body), &answer.body).code, 0);
    }
    return answer;
}

static struct slice session_of(const struct answer *answer)
{
    return json_get_string(&answer->body, LIT("session"));
}

static struct slice with_session(const char *format, struct slice session)
{
    struct buf out;
    buf_init_arena(&out, w.ctx.arena, 4096);
    for (; *format; format++) {
        if (*format == '%') {
            buf_add(&out, session);
        } else {
            buf_add_byte(&out, *format);
        }
    }
    return buf_slice(&out);
}

static bool body_is(const struct answer *answer, const char *expected)
{
    struct json body = json_without(w.ctx.arena, &answer->body, &LIT("session"), 1);
    struct slice real = json_canonical(w.ctx.arena, &body);
    if (!slice_eq(real, slice_of(expected))) {
        print_error("%.*s\n", (int)real.len, real.ptr);
    }
    return answer->status == 401 && slice_eq(real, slice_of(expected));
}

static void even_a_dummy_stage_needs_two_requests(void **state)
{
    (void)state;
    struct answer first = ask(LIT("/r"), &dummy_flow, 0, LIT("{}"));
    assert_true(body_is(&first, "{\"completed\":[],\"flows\":[{\"stages\":[\"m.login.dummy\"]}],"
                                "\"params\":{}}"));
    struct answer second =
        ask(LIT("/r"), &dummy_flow, 0,
            with_session("{\"auth\":{\"type\":\"m.login.dummy\",\"session\":\"%\"}}",
                         session_of(&first)));
    assert_true(second.result.complete);
    assert_int_equal(second.status, 0);
}

/* Synapse CVE-2023-41335. */
static void a_wrong_password_keeps_the_session(void **state)
{
    static const char *const wrong =
        "{\"auth\":{\"type\":\"m.login.password\",\"session\":\"%\",\"identifier\":"
        "{\"type\":\"m.id.user\",\"user\":\"ann\"},\"password\":\"x\"}}";
    static const char *const right =
        "{\"auth\":{\"type\":\"m.login.password\",\"session\":\"%\",\"user\":\"@ann:test\","
        "\"password\":\"secret\"}}";
    static const char *const other =
        "{\"auth\":{\"type\":\"m.login.password\",\"session\":\"%\",\"user\":\"bob\","
        "\"password\":\"secret\"}}";
    (void)state;
    struct answer first = ask(LIT("/d"), &password_flow, ann, LIT("{}"));
    struct slice session = session_of(&first);
    struct answer second = ask(LIT("/d"), &password_flow, ann, with_session(wrong, session));
    assert_true(body_is(&second, "{\"completed\":[],\"errcode\":\"M_FORBIDDEN\",\"error\":\"The "
                                 "user name or password is wrong.\",\"flows\":[{\"stages\":["
                                 "\"m.login.password\"]}],\"params\":{}}"));
    assert_true(slice_eq(session, session_of(&second)));
    struct answer third = ask(LIT("/d"), &password_flow, ann, with_session(other, session));
    assert_int_equal(third.code, ERR_M_FORBIDDEN);
    session =
        session_of(&(struct answer){.body = ask(LIT("/d"), &password_flow, ann, LIT("{}")).body});
    struct answer last = ask(LIT("/d"), &password_flow, ann, with_session(right, session));
    assert_true(last.result.complete);
    assert_int_equal(last.result.user, ann);
    struct answer again = ask(LIT("/d"), &password_flow, ann, with_session(right, session));
    assert_false(again.result.complete);
}

static void a_session_serves_one_operation_of_one_user(void **state)
{
    static const char *const body =
        "{\"auth\":{\"type\":\"m.login.password\",\"session\":\"%\",\"user\":\"bob\","
        "\"password\":\"secret\"}}";
    (void)state;
    struct answer first = ask(LIT("/d/1"), &password_flow, ann, LIT("{}"));
    struct slice text = with_session(body, session_of(&first));
    assert_int_equal(ask(LIT("/d/2"), &password_flow, ann, text).code, ERR_M_FORBIDDEN);
    assert_int_equal(ask(LIT("/d/1"), &password_flow, bob, text).code, ERR_M_FORBIDDEN);
}

static void stages_come_in_order_and_are_reported(void **state)
{
    struct registration_token row = {.token = LIT("abc"), .uses_allowed = 1};
    (void)state;
    w.conf.registration_terms = LIT("{\"policies\":{}}");
    assert_int_equal(hs_registration_token_put(&w.hs, &w.ctx, &row).code, 0);
    struct answer first = ask(LIT("/r"), &token_flow, 0, LIT("{}"));
    struct slice session = session_of(&first);
    struct answer early =
        ask(LIT("/r"), &token_flow, 0,
            with_session("{\"auth\":{\"type\":\"m.login.terms\",\"session\":\"%\"}}", session));
    assert_int_equal(early.status, 401);
    struct answer wrong = ask(LIT("/r"), &token_flow, 0,
                              with_session("{\"auth\":{\"type\":\"m.login.registration_token\","
                                           "\"token\":\"x\",\"session\":\"%\"}}",
                                           session));
    assert_true(json_is_string(json_get(&wrong.body, LIT("errcode")), LIT("M_UNAUTHORIZED")));
    struct answer token = ask(LIT("/r"), &token_flow, 0,
                              with_session("{\"auth\":{\"type\":\"m.login.registration_token\","
                                           "\"token\":\"abc\",\"session\":\"%\"}}",
                                           session));
    assert_true(body_is(&token, "{\"completed\":[\"m.login.registration_token\"],\"flows\":[{"
                                "\"stages\":[\"m.login.registration_token\",\"m.login.terms\"]}],"
                                "\"params\":{\"m.login.terms\":{\"policies\":{}}}}"));
    struct answer terms =
        ask(LIT("/r"), &token_flow, 0,
            with_session("{\"auth\":{\"type\":\"m.login.terms\",\"session\":\"%\"}}", session));
    assert_true(terms.result.complete);
    assert_true(slice_eq(terms.result.registration_token, LIT("abc")));
}

static void a_page_can_complete_a_stage(void **state)
{
    bool right = true;
    (void)state;
    struct answer first = ask(LIT("/d"), &password_flow, ann, LIT("{}"));
    struct uia_form form = {.session = session_of(&first), .password = LIT("no")};
    assert_true(hs_uia_awaits(&w.hs, form.session, UIA_PASSWORD));
    assert_int_equal(hs_uia_complete(&w.hs, &w.ctx, UIA_PASSWORD, &form, &right).code, 0);
    assert_false(right);
    form.password = LIT("secret");
    assert_int_equal(hs_uia_complete(&w.hs, &w.ctx, UIA_PASSWORD, &form, &right).code, 0);
    assert_true(right);
    assert_false(hs_uia_awaits(&w.hs, form.session, UIA_PASSWORD));
    struct answer poll = ask(LIT("/d"), &password_flow, ann,
                             with_session("{\"auth\":{\"session\":\"%\"}}", form.session));
    assert_true(poll.result.complete);
}

static void sessions_expire(void **state)
{
    (void)state;
    struct answer first = ask(LIT("/r"), &dummy_flow, 0, LIT("{}"));
    world_wait(&w, w.conf.tokens_auth_session_life);
    struct answer late =
        ask(LIT("/r"), &dummy_flow, 0,
            with_session("{\"auth\":{\"type\":\"m.login.dummy\",\"session\":\"%\"}}",
                         session_of(&first)));
    assert_int_equal(late.status, 401);
    assert_false(slice_eq(session_of(&late), session_of(&first)));
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

static struct slice again(struct slice path, struct slice body)
{
    struct http_request request = {.method = HTTP_POST, .path = path};
    struct http_reply reply = {0};
    buf_init_arena(&reply.body, w.ctx.arena, 1 << 16);
    assert_int_equal(json_parse(w.ctx.arena, body, &request.json).code, 0);
    return hs_uia_answer_again(&w.hs, &w.ctx, &request, &reply) ? buf_slice(&reply.body)
                                                                : (struct slice){0};
}

static void an_answer_is_given_again_to_the_same_request_alone(void **state)
{
    (void)state;
    struct slice body = LIT("{\"n\":1,\"auth\":{\"session\":\"abc\"}}");
    struct slice other = LIT("{\"n\":2,\"auth\":{\"session\":\"abc\"}}");
    struct slice bare = LIT("{\"n\":1}");
    const struct slice bodies[] = {body, bare};
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        struct http_request request = {.method = HTTP_POST, .path = LIT("/p")};
        struct http_reply reply = {0};
        buf_init_arena(&reply.body, w.ctx.arena, 1 << 16);
        buf_add(&reply.body, LIT("{\"done\":true}"));
        assert_int_equal(json_parse(w.ctx.arena, bodies[i], &request.json).code, 0);
        hs_uia_keep_answer(&w.hs, &w.ctx, &request, &reply);
    }
    assert_true(slice_eq(again(LIT("/p"), body), LIT("{\"done\":true}")));
    struct slice turned = LIT("{\"auth\":{\"session\":\"abc\"}, \"n\":1}");
    assert_true(slice_eq(again(LIT("/p"), turned), LIT("{\"done\":true}")));
    assert_null(again(LIT("/p"), other).ptr);
    assert_null(again(LIT("/q"), body).ptr);
    assert_null(again(LIT("/p"), bare).ptr);
    world_wait(&w, 600001);
    assert_null(again(LIT("/p"), body).ptr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(even_a_dummy_stage_needs_two_requests),
        WITH_WORLD(a_wrong_password_keeps_the_session),
        WITH_WORLD(a_session_serves_one_operation_of_one_user),
        WITH_WORLD(stages_come_in_order_and_are_reported),
        WITH_WORLD(a_page_can_complete_a_stage),
        WITH_WORLD(sessions_expire),
        WITH_WORLD(an_answer_is_given_again_to_the_same_request_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
