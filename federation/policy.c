#include "federation/policy.h"

#include "federation/fed_priv.h"

enum { ASK_TIMEOUT_MS = 10 * 1000 };

static const struct slice key_id = LIT("ed25519:policy_server");

struct policy {
    struct slice via;
    struct ed25519_public key;
    bool has_key; /* of a form that anything can be checked with */
};

/* The room's policy server by its current state. */
static struct err find_policy(struct hs *hs, struct ctx *ctx, struct room *room,
                              struct policy *policy_out, bool *enabled_out)
{
    struct stored_event state;
    *enabled_out = false;
    TRY(hs_state_event(hs, ctx, room, hs_room_head(room).root, LIT("m.room.policy"), LIT(""),
                       &state, enabled_out));
    if (!*enabled_out) {
        return OK;
    }
    TRY(hs_event_parse_content(ctx, &state));
    const struct json *keys = json_get_object(state.event.content, LIT("public_keys"));
    struct slice key = json_get_string(keys, LIT("ed25519"));
    policy_out->via = json_get_string(state.event.content, LIT("via"));
    policy_out->has_key = ed25519_parse_public(key, &policy_out->key);
    *enabled_out = key.ptr && ids_is_server_name(policy_out->via);
    return *enabled_out ? fed_is_resident(hs, ctx, room, policy_out->via, enabled_out) : OK;
}

static struct err has_signature(struct ctx *ctx, const struct policy *policy,
                                const struct event *event, bool *has_out)
{
    struct event redacted;
    *has_out = false;
    if (policy->has_key) {
        TRY(event_redacted(ctx->arena, event, &redacted));
        *has_out = json_sign_verify(ctx->arena, event_tree(ctx->arena, &redacted), policy->via,
                                    key_id, &policy->key);
    }
    return OK;
}

/* The event with one signature more; those that it has stay. */
static struct err add_signature(struct ctx *ctx, const struct policy *policy, struct slice text,
                                struct event *event_io)
{
    struct json tree = *event_tree(ctx->arena, event_io);
    const struct json *all = json_get_object(&tree, LIT("signatures"));
    struct json signatures = json_without(ctx->arena, all, &policy->via, 1);
    const struct json *own = json_get_object(all, policy->via);
    struct json of_server = own ? json_without(ctx->arena, own, &key_id, 1) : json_object();
    json_set(ctx->arena, &of_server, key_id, json_string(text));
    json_set(ctx->arena, &signatures, policy->via, of_server);
    tree = json_without(ctx->arena, &tree, NULL, 0);
    json_set(ctx->arena, &tree, LIT("signatures"), signatures);
    return event_parse_tree(ctx->arena, event_io->rules, &tree, event_io);
}

/* good_out: the policy server gave a signature that holds, and the event has it now. */
static struct err request_signature(struct fed *fed, struct ctx *ctx, const struct policy *policy,
                                    struct event *event_io, bool *good_out)
{
    struct json answer;
    struct event signed_event = *event_io;
    struct fed_call call = {.destination = policy->via,
                            .method = LIT("POST"),
                            .path = LIT("/_matrix/policy/v1/sign"),
                            .content = event_tree(ctx->arena, event_io),
                            .body_bytes_max = FED_SMALL_ANSWER,
                            .timeout_ms = ASK_TIMEOUT_MS};
    *good_out = false;
    TRY(fed_call_json(fed, ctx, &call, &answer));
    struct slice text = json_get_string(json_get_object(&answer, policy->via), key_id);
    if (!text.ptr || add_signature(ctx, policy, text, &signed_event).code != 0) {
        return OK;
    }
    TRY(has_signature(ctx, policy, &signed_event, good_out));
    *event_io = *good_out ? signed_event : *event_io;
    return OK;
}

static struct err ask(struct fed *fed, struct ctx *ctx, const struct policy *policy,
                      struct event *event_io)
{
    bool good = false;
    struct err err = request_signature(fed, ctx, policy, event_io, &good);
    return err.code == ERR_WAITS || err.code == ERR_CANCELLED ? err : OK;
}

struct err fed_policy_sign(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *event, struct event *signed_out)
{
    struct policy policy = {0};
    bool enabled = false;
    bool good = false;
    *signed_out = *event;
    if (event_is(event, LIT("m.room.policy"), LIT(""))) {
        return OK;
    }
    TRY(find_policy(hs, ctx, room, &policy, &enabled));
    if (!enabled || hs_is_local(hs, policy.via)) {
        return OK;
    }
    TRY(request_signature(hs->fed, ctx, &policy, signed_out, &good));
    return good ? OK
                : err_public(ERR_M_FORBIDDEN, "The room's policy server did not sign the event.");
}

static bool may_ask(const struct hs *hs, const struct policy *policy)
{
    return policy->has_key && !hs_is_local(hs, policy->via);
}

/* Whether the room asks for a signature, and the event has it. */
static struct err look(struct hs *hs, struct ctx *ctx, struct room *room, const struct event *event,
                       struct policy *policy_out, bool *good_out)
{
    bool enabled = false;
    *good_out = true;
    *policy_out = (struct policy){0};
    if (event_is(event, LIT("m.room.policy"), LIT(""))) {
        return OK;
    }
    TRY(find_policy(hs, ctx, room, policy_out, &enabled));
    return enabled ? has_signature(ctx, policy_out, event, good_out) : OK;
}

struct err fed_policy_asks(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *event, bool *asks_out)
{
    struct policy policy;
    bool good = false;
    TRY(look(hs, ctx, room, event, &policy, &good));
    *asks_out = !good && may_ask(hs, &policy);
    return OK;
}

struct err fed_policy_check(struct fed *fed, struct ctx *ctx, struct room *room,
                            struct event *event_io, bool *failed_out)
{
    struct policy policy;
    bool good = false;
    TRY(look(fed->hs, ctx, room, event_io, &policy, &good));
    /* The key may have changed since the event was signed: one more question. */
    if (!good && may_ask(fed->hs, &policy)) {
        TRY(ask(fed, ctx, &policy, event_io));
        TRY(has_signature(ctx, &policy, event_io, &good));
    }
    *failed_out = !good;
    return OK;
}
