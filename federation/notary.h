/* Answers about other servers' keys, signed by this one too.
 * Spec: server-server, "Querying Keys Through Another Server". */
#pragma once
#include "federation/fed_priv.h"

enum { NOTARY_SERVERS_MAX = 200 };

struct notary_question {
    struct slice server;
    const struct json *keys; /* key id -> {minimum_valid_until_ts}; NULL or empty = all keys */
    int64_t valid_until_ms;  /* for all keys; those above go before it */
};
/* Appends the key objects of each server to `out`, which stands inside an array. Servers that have
 * none and cannot be asked are left out. ERR_WAITS when some must be asked. */
struct err notary_answer(struct fed *fed, struct ctx *ctx, const struct notary_question *questions,
                         size_t count, struct json_out *out) MUST_USE;
