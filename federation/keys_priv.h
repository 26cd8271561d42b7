/* What the files about keys of other servers share. */
#pragma once
#include "federation/fed_priv.h"
#include "federation/server_keys.h"

struct fed_keys_answer {
    struct slice server;
    const struct json *object; /* with its signatures */
    struct server_keys keys;
    bool is_direct; /* from the server itself: its newest word */
};
/* Remembers the keys of a checked answer. */
struct err fed_keys_take(struct fed *fed, struct ctx *ctx,
                         const struct fed_keys_answer *answer) MUST_USE;
/* Rows of a server's keys; see keys.c. */
struct store_object fed_keys_object(struct ctx *ctx, struct slice server);
/* Whether a fetch for the server is not too early. */
bool fed_keys_may_fetch(struct fed *fed, struct ctx *ctx, struct slice name);

/* fed_key_get with another way to fetch. */
struct fed_keys_want {
    const struct fed_key_query *query;
    struct err (*fetch)(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query);
};
struct err fed_keys_get_by(struct fed *fed, struct ctx *ctx, const struct fed_keys_want *want,
                           struct ed25519_public *key_out, bool *found_out) MUST_USE;

/* --- keys_fetch.c --- */
/* Asks the server, then the notaries, until the key is here. An error says why the server itself
 * gave none. */
struct err fed_keys_fetch(struct fed *fed, struct ctx *ctx,
                          const struct fed_key_query *query) MUST_USE;
/* Asks the server alone. */
struct err fed_keys_ask_server(struct fed *fed, struct ctx *ctx, struct slice server) MUST_USE;
/* The same for many, with a bound on the time of all. Reorders `wants`. What came is found
 * afterwards. */
void fed_keys_fetch_many(struct fed *fed, struct ctx *ctx, struct fed_key_query *wants,
                         size_t count);
