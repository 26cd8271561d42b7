/* The handler that deletes an alias: two writes, of which the second may fail. */
#include "homeserver/service/directory.h"

#include "homeserver/client/routes_priv.h"
#include "homeserver/service/requester.h"
#include "tests/support/failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct house h;
static struct guest ann;
static uint64_t room;
static const struct slice alias = {"#a:test", 7};

static void furnish(void)
{
    ann = house_guest(&h, "ann");
    struct room *where = house_room(&h, &ann, "{\"room_alias_name\":\"a\"}");
    room = hs_room_info(where).number;
}

static const struct http_route *find_route(enum http_method method, const char *path)
{
    for (size_t i = 0; i < cs_directory_routes.count; i++) {
        const struct http_route *route = &cs_directory_routes.routes[i];
        if (route->method == method && slice_eq(slice_of(route->path), slice_of(path))) {
            return route;
        }
    }
    return NULL;
}

static struct err delete_alias(void)
{
    const struct http_route *route =
        find_route(HTTP_DELETE, "/_matrix/client/v3/directory/room/{roomAlias}");
    struct requester requester = {.user_id = ann.actor.user_id, .user = ann.actor.user};
    struct http_request request = {.params = {alias}, .requester = &requester};
    struct http_reply reply = {.file_fd = -1};
    assert_non_null(route);
    buf_init_arena(&reply.body, h.ctx.arena, 1024);
    return route->handler(&h.hs, &h.ctx, &request, &reply);
}

static bool is_there(void)
{
    uint64_t found_room = 0;
    uint64_t creator = 0;
    bool found = false;
    assert_int_equal(hs_alias_get(&h.hs, &h.ctx, alias, &found_room, &creator, &found).code, 0);
    return found;
}

static bool is_named_by_room(void)
{
    struct room *where = NULL;
    struct stored_event event;
    bool found = false;
    assert_int_equal(hs_room_get(&h.hs, &h.ctx, room, &where).code, 0);
    assert_int_equal(hs_state_event(&h.hs, &h.ctx, where, hs_room_head(where).root,
                                    LIT("m.room.canonical_alias"), LIT(""), &event, &found)
                         .code,
                     0);
    bool named = found && json_get(event.event.content, LIT("alias"));
    ctx_finish(&h.ctx);
    return named;
}

static void no_room_names_an_alias_that_is_gone(void)
{
    assert_true(is_there() || !is_named_by_room());
}

static void both_are_gone(void)
{
    assert_false(is_there());
    assert_false(is_named_by_room());
}

static void an_alias_goes_from_its_room_first(void **state)
{
    (void)state;
    failing_each_call(&(struct failing){&h, furnish, delete_alias, both_are_gone,
                                        no_room_names_an_alias_that_is_gone});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_alias_goes_from_its_room_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
