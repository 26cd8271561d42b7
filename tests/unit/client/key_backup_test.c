/* What GET /room_keys/version says when there is nothing to tell. */
#include "homeserver/client/routes_priv.h"
#include "homeserver/service/requester.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;

static struct err get(const char *path, struct slice version)
{
    for (size_t i = 0; i < cs_key_backup_routes.count; i++) {
        const struct http_route *route = &cs_key_backup_routes.routes[i];
        if (route->method == HTTP_GET && slice_eq(slice_of(route->path), slice_of(path))) {
            struct guest ann = house_guest(&h, "ann");
            struct requester requester = {.user_id = ann.actor.user_id, .user = ann.actor.user};
            struct http_request request = {.params = {version}, .requester = &requester};
            struct http_reply reply = {.file_fd = -1};
            buf_init_arena(&reply.body, h.ctx.arena, 1024);
            return route->handler(&h.hs, &h.ctx, &request, &reply);
        }
    }
    fail_msg("no route %s", path);
    return OK;
}

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

static void an_account_without_backup_is_told_so(void **state)
{
    (void)state;
    struct err err = get("/_matrix/client/v3/room_keys/version", (struct slice){0});
    assert_int_equal(err.code, ERR_M_NOT_FOUND);
    assert_string_equal(err.text, "This account has no key backup.");
}

static void a_version_that_is_not_there_is_told_so(void **state)
{
    (void)state;
    struct err err = get("/_matrix/client/v3/room_keys/version/{version}", LIT("7"));
    assert_int_equal(err.code, ERR_M_NOT_FOUND);
    assert_string_equal(err.text, "There is no key backup of this version.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_account_without_backup_is_told_so, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_version_that_is_not_there_is_told_so, open_house,
                                        close_house),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
