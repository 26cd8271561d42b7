/* What this server tells others of its users' devices. Spec: server-server, "Device Management". */
#include "federation/outbox_priv.h"
#include "homeserver/service/device_stream.h"
#include "homeserver/service/users.h"

static struct err parse(struct ctx *ctx, struct slice text, struct json *json_out)
{
    return json_parse(ctx->arena, text, json_out).code == 0
               ? OK
               : err_make(ERR_CORRUPT, "a stored key is not JSON");
}

struct telling {
    struct outbox *outbox;
    struct ctx *ctx;
    struct slice user_id;
    struct server_names servers;
};

static struct err queue(struct telling *t, struct slice type, const struct json *content)
{
    struct fed_edu edu = {.type = type, .content = content, .is_durable = true};
    return outbox_queue(t->outbox, t->ctx, t->servers.items, t->servers.count, &edu);
}

static struct err tell_device(struct telling *t, const struct device_news *news)
{
    struct arena *arena = t->ctx->arena;
    struct json content = json_object();
    struct json prev = json_array();
    struct json keys;
    json_set(arena, &content, LIT("user_id"), json_string(t->user_id));
    json_set(arena, &content, LIT("device_id"), json_string(news->device_id));
    json_set(arena, &content, LIT("stream_id"), json_int((int64_t)news->stream_id));
    if (news->prev_id) {
        json_push(arena, &prev, json_int((int64_t)news->prev_id));
    }
    json_set(arena, &content, LIT("prev_id"), prev);
    if (news->display_name.ptr) {
        json_set(arena, &content, LIT("device_display_name"), json_string(news->display_name));
    }
    if (news->keys.len > 0) {
        TRY(parse(t->ctx, news->keys, &keys));
        json_set(arena, &content, LIT("keys"), keys);
    }
    if (news->is_gone) {
        json_set(arena, &content, LIT("deleted"), json_bool(true));
    }
    return queue(t, LIT("m.device_list_update"), &content);
}

static struct err tell_cross(struct telling *t, struct slice master, struct slice self_signing)
{
    struct json content = json_object();
    struct json key;
    json_set(t->ctx->arena, &content, LIT("user_id"), json_string(t->user_id));
    if (master.len > 0) {
        TRY(parse(t->ctx, master, &key));
        json_set(t->ctx->arena, &content, LIT("master_key"), key);
    }
    if (self_signing.len > 0) {
        TRY(parse(t->ctx, self_signing, &key));
        json_set(t->ctx->arena, &content, LIT("self_signing_key"), key);
    }
    return queue(t, LIT("m.signing_key_update"), &content);
}

/* The updates are queued before they count as told: after a crash in between the same ones go out
 * again, which changes nothing at the other side. */
struct err device_lists_publish(struct outbox *outbox, struct ctx *ctx, uint64_t user)
{
    struct device_stream_news news;
    struct telling t = {.outbox = outbox, .ctx = ctx};
    TRY(hs_user_id_of(outbox->hs, ctx, user, &t.user_id));
    if (!hs_user_is_local(outbox->hs, t.user_id)) {
        return OK;
    }
    TRY(hs_device_stream_next(outbox->hs, ctx, user, &news));
    if (news.count == 0 && !news.cross_changed) {
        return OK;
    }
    TRY(outbox_sharing_servers(outbox, ctx, user, 0, &t.servers));
    if (news.cross_changed) {
        TRY(tell_cross(&t, news.master_key, news.self_signing_key));
    }
    for (size_t i = 0; i < news.count; i++) {
        TRY(tell_device(&t, &news.items[i]));
    }
    return store_write(outbox->hs->store, ctx, &news.told, 1);
}

/* One update that follows none: whoever gets it asks for the whole list, which holds devices with
 * keys. */
struct err device_lists_announce(struct outbox *outbox, struct ctx *ctx, uint64_t user,
                                 struct server_names servers)
{
    struct device_stream_state state;
    struct telling t = {.outbox = outbox, .ctx = ctx, .servers = servers};
    if (servers.count == 0) {
        return OK;
    }
    TRY(hs_user_id_of(outbox->hs, ctx, user, &t.user_id));
    TRY(hs_device_stream_state(outbox->hs, ctx, user, &state));
    /* Those with keys come first; where there are none, others may have been told of names. */
    bool is_of_interest = state.count > 0 && (state.items[0].keys.len > 0 || state.stream_id > 0);
    if (!is_of_interest) {
        return OK;
    }
    state.items[0].stream_id = state.stream_id;
    state.items[0].prev_id = 0;
    return tell_device(&t, &state.items[0]);
}
