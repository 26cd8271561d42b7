/* Several requests at once, from one job of the waiting pool. */
#pragma once
#include "federation/fed.h"

struct fed_ask {
    struct slice destination, path;
    const struct json *content; /* POST */
    struct json answer;         /* out: of an answer 2xx that is an object */
    struct err err;             /* out */
};
/* Returns when each has an answer or failed; every one within timeout_ms. ERR_WAITS, without any
 * effect, outside the waiting pool. */
struct err fed_ask_all(struct fed *fed, struct ctx *ctx, struct fed_ask *asks, size_t count,
                       int64_t timeout_ms) MUST_USE;
