/* Events as they come from other servers: parsed, signatures and hashes checked.
 * Spec: server-server, "Validating hashes and signatures on received events". */
#include "federation/fed_priv.h"

struct key_lookup {
    struct fed *fed;
    struct ctx *ctx;
    const struct event *event;
    struct err err; /* of the store, not of a key */
};

static bool get_key(void *arg, struct server_name server, struct slice key_id,
                    struct ed25519_public *key_out)
{
    struct key_lookup *lookup = arg;
    struct fed_key_query query = {.server = server.s, .key_id = key_id, .use = FED_KEY_EVENT};
    bool found = false;
    /* From version 5 on a key counts when it was valid as the event was made. */
    query.ts_ms = lookup->event->rules->key_validity ? lookup->event->origin_server_ts : 0;
    struct err err = fed_key_get(lookup->fed, lookup->ctx, &query, key_out, &found);
    lookup->err = err.code ? err : lookup->err;
    return !err.code && found;
}

struct err fed_check_signatures(struct fed *fed, struct ctx *ctx, const struct event *const *events,
                                size_t count, struct err *verdicts_out)
{
    for (size_t i = 0; i < count; i++) {
        struct key_lookup lookup = {.fed = fed, .ctx = ctx, .event = events[i]};
        struct server_name failed;
        verdicts_out[i] = event_check_signatures(ctx->arena, events[i], get_key, &lookup, &failed);
        if (verdicts_out[i].code) {
            TRY(lookup.err);
        }
    }
    return OK;
}

static struct err check_room(const struct fed_pdus *pdus, const struct event *event)
{
    if (pdus->room_id.len && !slice_eq(pdus->room_id, event->room_id.s)) {
        return err_public(ERR_M_BAD_JSON, "The event belongs to another room.");
    }
    return OK;
}

static struct err parse_one(struct ctx *ctx, const struct fed_pdus *pdus, const struct json *tree,
                            struct event *event)
{
    if (tree->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "An event must be a JSON object.");
    }
    TRY(event_parse_tree(ctx->arena, pdus->rules, tree, event));
    return check_room(pdus, event);
}

/* An event whose content is not what its sender hashed is worth its redacted form. */
static struct err settle_hash(struct ctx *ctx, struct event *event)
{
    return event_check_hash(ctx->arena, event) ? OK : event_redacted(ctx->arena, event, event);
}

struct err fed_pdus_check(struct fed *fed, struct ctx *ctx, const struct fed_pdus *pdus,
                          struct event *events_out, struct err *verdicts_out)
{
    size_t total = pdus->pdus ? pdus->pdus->count : 0;
    const struct event **good = arena_array(ctx->arena, total + 1, sizeof *good);
    struct err *verdicts = arena_array(ctx->arena, total + 1, sizeof *verdicts);
    size_t *places = arena_array(ctx->arena, total + 1, sizeof *places);
    size_t count = 0;
    for (size_t i = 0; i < total; i++) {
        verdicts_out[i] = parse_one(ctx, pdus, &pdus->pdus->items[i], &events_out[i]);
        if (!verdicts_out[i].code) {
            good[count] = &events_out[i];
            places[count++] = i;
        }
    }
    TRY(fed_check_signatures(fed, ctx, good, count, verdicts));
    for (size_t i = 0; i < count; i++) {
        size_t at = places[i];
        verdicts_out[at] = verdicts[i].code ? verdicts[i] : settle_hash(ctx, &events_out[at]);
    }
    for (size_t i = 0; i < total; i++) {
        if (verdicts_out[i].code) {
            events_out[i] = (struct event){0};
        }
    }
    return OK;
}
