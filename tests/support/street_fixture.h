/* For test programs about a room of one server of a street and a user of another: alice in house A,
 * whose room it is, bob in house B. Included by the program's one file. */
#pragma once
#include "tests/support/street.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct street street;
static struct guest alice, bob;
static struct room *room; /* of A */
static struct slice room_id;
static struct json body; /* of the last answer */

/* `request` is the body of createRoom. */
static inline int open_with(const char *request)
{
    street_open(&street);
    alice = house_guest(&street.houses[0], "alice");
    bob = house_guest(&street.houses[1], "bob");
    room = house_room(&street.houses[0], &alice, request);
    room_id = hs_room_info(room).room_id;
    return 0;
}

static inline int close_street(void **state)
{
    (void)state;
    street_close(&street);
    return 0;
}

/* A request of house `from` at `to` about the room and something else; the status. Its answer is
 * in `body`. */
struct about {
    size_t from, to;
    const char *method, *format; /* of the path; the room comes first */
    struct slice second;
    const struct json *content;
};

static inline int ask_about(const struct about *about)
{
    struct slice parts[] = {room_id, about->second};
    struct slice text;
    struct ctx *ctx = &street.houses[about->from].ctx;
    struct street_request request = {.from = about->from,
                                     .to = about->to,
                                     .method = about->method,
                                     .target = fed_path(ctx, about->format, parts, 2),
                                     .content = about->content};
    int status = street_ask(&street, &request, &text);
    if (json_parse(ctx->arena, text, &body).code) {
        body = json_object();
    }
    return status;
}

/* errcode "" where it is none. */
static inline void assert_answer(int status, int wanted, const char *errcode)
{
    struct slice got = json_get_string(&body, LIT("errcode"));
    struct slice text = json_get_string(&body, LIT("error"));
    bool same = status == wanted && slice_eq(got, slice_of(errcode));
    if (!same) {
        print_error("%d %.*s: %.*s, not %d %s\n", status, (int)got.len, got.ptr, (int)text.len,
                    text.ptr, wanted, errcode);
    }
    assert_true(same);
}
