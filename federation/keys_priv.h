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

/* --- keys_fetch.c --- */
/* Asks the server, then the notaries, until the key is here. An error says why the server itself
 * gave none. */
struct err fed_keys_fetch(struct fed *fed, struct ctx *ctx,
                          const struct fed_key_query *query) MUST_USE;
