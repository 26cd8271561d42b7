#include "tests/support/private_rows.h"

#include "homeserver/service/devices.h"
#include "homeserver/service/key_backup.h"
#include "homeserver/service/keys_priv.h"
#include "homeserver/service/media_usage.h"
#include "homeserver/service/pushers.h"
#include "homeserver/service/to_device.h"

const struct slice house_announced = {"announced", 9},
                   house_uploaded = {"uploadedWithAnIdAsLongAsTheyAre", 31};

static void must(struct err err)
{
    ASSERT(err.code == 0);
}

static struct json parsed(struct house *house, const char *text)
{
    struct json json;
    must(json_parse(house->ctx.arena, slice_of(text), &json));
    return json;
}

static void put_keys(struct house *house, const struct guest *guest)
{
    struct json device =
        parsed(house, arena_printf(house->ctx.arena,
                                   "{\"user_id\":\"%.*s\",\"device_id\":\"%.*s\",\"algorithms\":[],"
                                   "\"keys\":{},\"signatures\":{}}",
                                   (int)guest->actor.user_id.len, guest->actor.user_id.ptr,
                                   (int)guest->device_id.len, guest->device_id.ptr)
                          .ptr);
    struct json one_time =
        parsed(house, "{\"a:1\":\"x\",\"b:1\":\"x\",\"b:2\":\"y\",\"b:3\":\"z\"}");
    struct json fallback = parsed(house, "{\"b:f\":\"w\"}");
    struct key_upload upload = {.user = guest->actor.user,
                                .user_id = guest->actor.user_id,
                                .device_id = guest->device_id,
                                .device_keys = &device,
                                .one_time_keys = &one_time,
                                .fallback_keys = &fallback};
    struct key_claim claim = {.device_id = guest->device_id, .algorithm = LIT("b")};
    must(hs_keys_upload(&house->hs, &house->ctx, &upload));
    must(hs_keys_claim(&house->hs, &house->ctx, guest->actor.user, &claim, 1));
}

static void put_signatures(struct house *house, const struct guest *guest,
                           const struct guest *other)
{
    struct ctx *ctx = &house->ctx;
    struct keys_write write = keys_write_of(&house->hs, ctx, guest->actor.user);
    struct slice target = store_id_u64(ctx->arena, other->actor.user);
    store_put(write.update, keys_key(ctx, KEYS_ROW_CROSS, LIT("m")), LIT("{}"));
    store_put(write.update, keys_key(ctx, KEYS_ROW_SIGNED, target), LIT("{}"));
    keys_write_list(&write, other->actor.user, guest->actor.user);
    must(keys_write_commit(&write));
}

static void put_backup(struct house *house, const struct guest *guest)
{
    struct key_backup backup = {.algorithm = LIT("m.test"), .auth_data = LIT("{}")};
    struct json data = parsed(house, "{\"first_message_index\":1,\"forwarded_count\":1,"
                                     "\"is_verified\":true,\"session_data\":{}}");
    struct backup_key keys[] = {{LIT("!r"), LIT("s"), &data}, {LIT("!r"), LIT("t"), &data}};
    uint64_t version = 0;
    must(hs_key_backup_create(&house->hs, &house->ctx, guest->actor.user, &backup, &version));
    must(hs_backup_keys_put(&house->hs, &house->ctx, guest->actor.user, version, keys, 2, &backup));
}

static void send_message(struct house *house, const struct guest *from, const struct guest *to)
{
    struct json content = json_object();
    struct to_device_item items[] = {{to->actor.user_id, LIT("*"), &content},
                                     {from->actor.user_id, LIT("*"), &content}};
    struct to_device_send send = {.user = from->actor.user,
                                  .device_id = from->device_id,
                                  .sender = from->actor.user_id,
                                  .type = LIT("m.test"),
                                  .txn_id = LIT("t"),
                                  .items = items,
                                  .count = 2};
    must(hs_to_device_send(&house->hs, &house->ctx, &send));
}

static void put_media(struct house *house, const struct guest *guest)
{
    struct ctx *ctx = &house->ctx;
    struct store_blob_writer *writer;
    struct media announced = {.media_id = house_announced,
                              .uploader = guest->actor.user,
                              .expires_ms = house->wall_ms + 1000};
    struct media uploaded = {
        .media_id = house_uploaded, .uploader = guest->actor.user, .bytes = 2, .is_ready = true};
    struct media_usage usage;
    struct store_update *counted = NULL;
    must(hs_media_usage_add(&house->hs, ctx, &uploaded, &counted, &usage));
    struct store_update *updates[] = {
        counted, store_update_new(ctx, hs_media_object(house_announced)),
        store_update_new(ctx, hs_media_object(house_uploaded)),
        store_update_new(ctx, hs_media_pending_object(ctx, guest->actor.user))};
    store_put(updates[1], hs_media_record_key(), hs_media_encode(ctx, &announced));
    store_put(updates[2], hs_media_record_key(), hs_media_encode(ctx, &uploaded));
    store_put(updates[3], house_announced, hs_media_encode_number(ctx, announced.expires_ms));
    must(store_write(house->hs.store, ctx, updates, COUNT_OF(updates)));
    must(store_blob_begin(house->hs.store, &writer));
    must(store_blob_append(writer, LIT("hi")));
    must(store_blob_commit(&writer, house_uploaded));
}

void house_private_rows(struct house *house, const struct guest *guest, const struct guest *other)
{
    struct seen seen = {LIT("::1"), LIT("agent")};
    struct pusher pusher = {.app_id = LIT("app"),
                            .pushkey = LIT("key"),
                            .device_id = guest->device_id,
                            .json = LIT("{}")};
    put_keys(house, guest);
    put_signatures(house, guest, other);
    put_backup(house, guest);
    send_message(house, guest, other);
    put_media(house, guest);
    must(hs_device_seen(&house->hs, &house->ctx, guest->actor.user, guest->device_id, &seen));
    must(hs_pusher_set(&house->hs, &house->ctx, guest->actor.user, &pusher, PUSHER_APPEND));
}
