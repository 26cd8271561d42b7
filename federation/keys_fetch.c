/* Fetching keys: from the server itself. Spec: server-server, "Publishing Keys". */
#include "federation/keys_priv.h"

enum { DIRECT_TIMEOUT_MS = 10000, ANSWER_BYTES_MAX = 1 << 18 };

static struct err fetch_direct(struct fed *fed, struct ctx *ctx, struct slice server)
{
    struct fed_call call = {.destination = server,
                            .path = LIT("/_matrix/key/v2/server"),
                            .timeout_ms = DIRECT_TIMEOUT_MS,
                            .body_bytes_max = ANSWER_BYTES_MAX,
                            .flags = FED_CALL_UNSIGNED | FED_CALL_ANYWAY};
    struct json object;
    struct fed_keys_answer answer = {.server = server, .object = &object, .is_direct = true};
    TRY(fed_call_json(fed, ctx, &call, &object));
    TRY(server_keys_parse(ctx->arena, &object, server, now_wall_ms(ctx->now), &answer.keys));
    return fed_keys_take(fed, ctx, &answer);
}

struct err fed_keys_fetch(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query)
{
    return fetch_direct(fed, ctx, query->server);
}
