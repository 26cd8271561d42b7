/* Spec: client-server, "Capabilities negotiation". */
#include "homeserver/client/account_priv.h"
#include "crypto/base64.h"
#include "homeserver/push/push.h"
#include "spec/room_rules.h"

static void write_enabled(struct json_out *out, struct slice name, bool enabled)
{
    json_out_key_object(out, name);
    json_out_key_bool(out, LIT("enabled"), enabled);
    json_out_object_end(out);
}

static void write_room_versions(struct json_out *out, struct slice fallback)
{
    json_out_key_object(out, LIT("m.room_versions"));
    json_out_key_string(out, LIT("default"), fallback);
    json_out_key_object(out, LIT("available"));
    for (size_t i = 0; room_rules_at(i); i++) {
        const struct room_rules *rules = room_rules_at(i);
        json_out_key_string(out, rules->version,
                            rules->is_unstable ? LIT("unstable") : LIT("stable"));
    }
    json_out_object_end(out);
    json_out_object_end(out);
}

/* spec/delayed-events.md */
static void write_delayed_events(struct json_out *out, const struct conf *conf)
{
    json_out_key_object(out, LIT("org.matrix.msc4140.delayed_events"));
    json_out_key_int(out, LIT("max_delay_ms"), conf->delayed_events_max_delay);
    json_out_key_int(out, LIT("max_scheduled"), conf->delayed_events_per_user);
    json_out_object_end(out);
}

static void write_moderation(struct json_out *out)
{
    json_out_key_object(out, LIT("m.account_moderation"));
    json_out_key_bool(out, LIT("suspend"), true);
    json_out_key_bool(out, LIT("lock"), true);
    json_out_object_end(out);
}

/* MSC4174: what a browser subscribes with. */
static void write_webpush(struct hs *hs, struct ctx *ctx, struct json_out *out)
{
    unsigned char key[P256_PUBLIC_BYTES];
    bool enabled = push_vapid_public(hs->push, key);
    json_out_key_object(out, LIT("org.matrix.msc4174.webpush"));
    json_out_key_bool(out, LIT("enabled"), enabled);
    if (enabled) {
        struct slice bytes = {(const char *)key, sizeof key};
        json_out_key_string(out, LIT("vapid"), base64_encode(ctx->arena, bytes, BASE64_URL));
    }
    json_out_object_end(out);
}

static struct err get_capabilities(void *app, struct ctx *ctx, const struct http_request *request,
                                   struct http_reply *reply)
{
    struct hs *hs = app;
    struct account account;
    bool found = false;
    struct json_out out = json_out_to(&reply->body);
    TRY(hs_account_get(hs, ctx, request->requester->user, &account, &found));
    bool has_password = found && account.password_hash.len > 0;
    json_out_object(&out);
    json_out_key_object(&out, LIT("capabilities"));
    write_enabled(&out, LIT("m.change_password"), has_password);
    write_room_versions(&out, hs->conf->default_room_version);
    write_enabled(&out, LIT("m.profile_fields"), !request->requester->is_guest);
    write_enabled(&out, LIT("m.set_displayname"), true);
    write_enabled(&out, LIT("m.set_avatar_url"), !request->requester->is_guest);
    write_enabled(&out, LIT("m.3pid_changes"), false);
    write_enabled(&out, LIT("m.get_login_token"), has_password);
    write_enabled(&out, LIT("m.forget_forced_upon_leave"), false);
    if (request->requester->is_admin) {
        write_moderation(&out);
    }
    write_delayed_events(&out, hs->conf);
    write_webpush(hs, ctx, &out);
    json_out_object_end(&out);
    json_out_object_end(&out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v3/capabilities", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_capabilities, "Capabilities negotiation", NULL, HTTP_ALLOW_GUEST},
};
const struct http_route_table cs_capabilities_routes = {routes, COUNT_OF(routes)};
