/* Events as they come from other servers: parsed, signatures and hashes checked.
 * Spec: server-server, "Validating hashes and signatures on received events". */
#include "federation/keys_priv.h"
#include "homeserver/base/map.h"
#include "homeserver/room/redact.h"

enum { SIGNATURES_MAX = 16 }; /* of one server on one event */

/* What an event must be signed with: from version 5 on a key counts when it was valid as the event
 * was made. */
static struct fed_key_query query_of(const struct event *event, struct slice server,
                                     struct slice key_id)
{
    return (struct fed_key_query){
        .server = server,
        .key_id = key_id,
        .use = FED_KEY_EVENT,
        .ts_ms = event->rules->key_validity ? event->origin_server_ts : 0,
    };
}

/* --- keys that are not here yet --- */

struct wants {
    struct map *seen; /* server, key id and whether it must be newer */
    struct fed_key_query *items;
    size_t count, cap;
};

/* One question for each key, the one that asks for the latest time. */
static void want(struct ctx *ctx, struct wants *wants, const struct fed_key_query *query)
{
    struct slice name = arena_concat(ctx->arena, query->server, LIT(" "));
    uint64_t at = 0;
    name = arena_concat(ctx->arena, name, query->key_id);
    if (map_get(wants->seen, name, &at)) {
        struct fed_key_query *earlier = &wants->items[at];
        earlier->ts_ms = query->ts_ms > earlier->ts_ms ? query->ts_ms : earlier->ts_ms;
        return;
    }
    if (wants->count == wants->cap) {
        size_t cap = wants->cap ? wants->cap * 2 : 16;
        wants->items = arena_grow(ctx->arena, wants->items, wants->cap * sizeof *wants->items,
                                  cap * sizeof *wants->items);
        wants->cap = cap;
    }
    map_set(wants->seen, name, wants->count);
    wants->items[wants->count++] = *query;
}

/* One key of a signer is enough; when none is here, all that it signed with are asked for. */
static struct err want_keys_of(struct fed *fed, struct ctx *ctx, const struct event *event,
                               struct slice server, struct wants *wants)
{
    const struct json *tree = event_tree(ctx->arena, event);
    const struct json *own = json_get_object(json_get_object(tree, LIT("signatures")), server);
    uint32_t count = own && own->count < SIGNATURES_MAX ? own->count : 0;
    bool found = false;
    for (uint32_t i = 0; i < count && !found; i++) {
        struct fed_key_query query = query_of(event, server, own->members[i].key);
        struct ed25519_public key;
        TRY(fed_key_find(fed, ctx, &query, &key, &found));
    }
    for (uint32_t i = 0; i < count && !found; i++) {
        struct fed_key_query query = query_of(event, server, own->members[i].key);
        if (slice_has_prefix(query.key_id, LIT("ed25519:")) &&
            fed_keys_may_fetch(fed, ctx, server)) {
            want(ctx, wants, &query);
        }
    }
    return OK;
}

static struct err collect(struct fed *fed, struct ctx *ctx, const struct event *const *events,
                          size_t count, struct wants *wants)
{
    for (size_t i = 0; i < count; i++) {
        struct server_name signers[EVENT_SIGNERS_MAX];
        size_t signer_count = event_required_signers(events[i], signers);
        for (size_t s = 0; s < signer_count; s++) {
            if (!hs_is_local(fed->hs, signers[s].s) && ids_is_server_name(signers[s].s)) {
                TRY(want_keys_of(fed, ctx, events[i], signers[s].s, wants));
            }
        }
    }
    return OK;
}

static struct err fetch_keys(struct fed *fed, struct ctx *ctx, const struct event *const *events,
                             size_t count)
{
    struct wants wants = {.seen = map_new()};
    struct err err = collect(fed, ctx, events, count, &wants);
    map_free(&wants.seen);
    TRY(err);
    if (wants.count && !ctx->may_wait) {
        return err_make(ERR_WAITS, "keys must be fetched");
    }
    if (wants.count) {
        fed_keys_fetch_many(fed, ctx, wants.items, wants.count);
    }
    return OK;
}

/* --- checking --- */

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
    struct fed_key_query query = query_of(lookup->event, server.s, key_id);
    bool found = false;
    struct err err = fed_key_find(lookup->fed, lookup->ctx, &query, key_out, &found);
    lookup->err = err.code ? err : lookup->err;
    return !err.code && found;
}

struct err fed_check_signatures(struct fed *fed, struct ctx *ctx, const struct event *const *events,
                                size_t count, struct err *verdicts_out)
{
    TRY(fetch_keys(fed, ctx, events, count));
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
    /* What nests too deeply for those who read it here (clients too) is worth its redacted form. */
    if (json_depth(tree) > LIMIT_EVENT_LEVELS) {
        struct json *flat = arena_alloc(ctx->arena, sizeof *flat);
        *flat = redact_event(ctx->arena, pdus->rules, tree);
        tree = flat;
    }
    if (json_depth(tree) > LIMIT_EVENT_LEVELS) {
        return err_public(ERR_M_BAD_JSON, "The event nests too deeply.");
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
