#include "homeserver/service/device_keys.h"

#include "homeserver/base/mem.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/keys_priv.h"
#include "homeserver/service/users.h"

/* --- signed objects --- */

static const struct slice unsigned_parts[] = {{"signatures", 10}, {"unsigned", 8}};

void keys_add_signatures(struct arena *arena, struct json *to, const struct json *from)
{
    const struct json *given = json_get_object(from, LIT("signatures"));
    const struct json *present = json_get_object(to, LIT("signatures"));
    struct json all = present ? *present : json_object();
    for (uint32_t i = 0; given && i < given->count; i++) {
        const struct json_member *entity = &given->members[i];
        const struct json *older = json_get_object(&all, entity->key);
        struct json merged = older ? json_without(arena, older, NULL, 0) : json_object();
        if (entity->value.type != JSON_OBJECT) {
            continue;
        }
        for (uint32_t j = 0; j < entity->value.count; j++) {
            json_set(arena, &merged, entity->value.members[j].key, entity->value.members[j].value);
        }
        all = json_without(arena, &all, NULL, 0);
        json_set(arena, &all, entity->key, merged);
    }
    json_set(arena, to, LIT("signatures"), all);
}

bool keys_say_same(struct arena *arena, const struct json *a, const struct json *b)
{
    struct json left = json_without(arena, a, unsigned_parts, COUNT_OF(unsigned_parts));
    struct json right = json_without(arena, b, unsigned_parts, COUNT_OF(unsigned_parts));
    return json_eq(&left, &right);
}

struct err keys_object_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice key,
                           struct json *object_out, bool *found_out)
{
    struct slice value;
    TRY(store_get(hs->store, ctx, keys_object(ctx, user), key, &value, found_out));
    if (*found_out && json_parse(ctx->arena, value, object_out).code != 0) {
        return err_make(ERR_CORRUPT, "a stored key is not JSON");
    }
    return OK;
}

struct err hs_device_keys_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                              struct json *keys_out, bool *found_out)
{
    *found_out = false;
    return device_id.len <= DEVICE_ID_BYTES_MAX
               ? keys_object_get(hs, ctx, user, keys_key(ctx, KEYS_ROW_DEVICE, device_id), keys_out,
                                 found_out)
               : OK;
}

/* --- uploading --- */

static bool are_strings(const struct json *values)
{
    bool is_object = values->type == JSON_OBJECT;
    for (uint32_t i = 0; i < values->count; i++) {
        const struct json *value = is_object ? &values->members[i].value : &values->items[i];
        if (value->type != JSON_STRING) {
            return false;
        }
    }
    return true;
}

static struct err check_device_keys(const struct key_upload *upload)
{
    const struct json *keys = upload->device_keys;
    if (keys->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "device_keys must be an object.");
    }
    const struct json *algorithms = json_get_array(keys, LIT("algorithms"));
    const struct json *public_keys = json_get_object(keys, LIT("keys"));
    if (!algorithms || !are_strings(algorithms)) {
        return err_public(ERR_M_BAD_JSON, "device_keys.algorithms must be a list of strings.");
    }
    if (!public_keys || !are_strings(public_keys)) {
        return err_public(ERR_M_BAD_JSON, "device_keys.keys must map key ids to strings.");
    }
    if (!json_get_object(keys, LIT("signatures"))) {
        return err_public(ERR_M_BAD_JSON, "device_keys.signatures must be an object.");
    }
    if (json_check_canonical(keys).code != 0) {
        return err_public(ERR_M_BAD_JSON, "device_keys holds a number that is not allowed.");
    }
    return OK;
}

/* Spec: client-server, "Device keys": user_id and device_id must be those of the access token. */
static struct err check_owner(const struct key_upload *upload)
{
    struct slice user_id = json_get_string(upload->device_keys, LIT("user_id"));
    struct slice device_id = json_get_string(upload->device_keys, LIT("device_id"));
    if (!user_id.ptr || !device_id.ptr) {
        return err_public(ERR_M_BAD_JSON, "device_keys needs user_id and device_id.");
    }
    if (!slice_eq(user_id, upload->user_id) || !slice_eq(device_id, upload->device_id)) {
        return err_public(ERR_M_INVALID_PARAM,
                          "device_keys must be those of the user and device that upload them.");
    }
    return OK;
}

/* The same keys again keep the signatures that were added meanwhile; other keys start anew. */
static struct err put_device_keys(struct keys_write *write, const struct key_upload *upload)
{
    static const struct slice left_out[] = {{"unsigned", 8}};
    struct ctx *ctx = write->ctx;
    struct json older;
    struct json keys = json_without(ctx->arena, upload->device_keys, left_out, 1);
    bool found = false;
    TRY(hs_device_keys_get(write->hs, ctx, upload->user, upload->device_id, &older, &found));
    if (found && keys_say_same(ctx->arena, &older, &keys)) {
        struct json merged = json_without(ctx->arena, &older, NULL, 0);
        keys_add_signatures(ctx->arena, &merged, &keys);
        if (json_eq(&merged, &older)) {
            return OK;
        }
        keys = merged;
    }
    struct slice json = json_canonical(ctx->arena, &keys);
    if (json.len > KEYS_KEY_BYTES_MAX) {
        return err_public(ERR_M_TOO_LARGE, "The device keys are too large.");
    }
    store_put(write->update, keys_key(ctx, KEYS_ROW_DEVICE, upload->device_id), json);
    keys_write_list(write, upload->user, 0);
    return OK;
}

static struct err check_device(struct hs *hs, struct ctx *ctx, const struct key_upload *upload)
{
    struct device device;
    bool found = false;
    bool is_key = false;
    TRY(hs_device_get(hs, ctx, upload->user, upload->device_id, &device, &found));
    if (!found) {
        return err_public(ERR_M_UNKNOWN_TOKEN, "The device has been removed; log in again.");
    }
    /* Spec: client-server, "Cross-signing": public keys and device ids share a name space. */
    TRY(cross_is_public_key(hs, ctx, upload->user, upload->device_id, &is_key));
    return is_key ? err_public(ERR_M_INVALID_PARAM, "The device id is a cross-signing key.") : OK;
}

static struct err upload_in_lane(struct hs *hs, struct ctx *ctx, const struct key_upload *upload)
{
    struct one_time_plan *plan = NULL;
    struct keys_write write = keys_write_of(hs, ctx, upload->user);
    TRY(check_device(hs, ctx, upload));
    TRY(one_time_check(hs, ctx, upload, &plan));
    if (upload->device_keys) {
        TRY(check_device_keys(upload));
        TRY(check_owner(upload));
        TRY(put_device_keys(&write, upload));
    }
    TRY(one_time_apply(&write, plan));
    return keys_write_commit(&write);
}

struct err hs_keys_upload(struct hs *hs, struct ctx *ctx, const struct key_upload *upload)
{
    if (upload->device_id.len == 0) {
        return err_public(ERR_M_MISSING_PARAM, "Keys belong to a device; name one with device_id.");
    }
    hs_user_lane_enter(hs, upload->user);
    struct err err = upload_in_lane(hs, ctx, upload);
    hs_user_lane_leave(hs, upload->user);
    return err;
}

/* --- reading --- */

static bool is_wanted(const struct json *wanted, struct slice device_id)
{
    if (!wanted || wanted->count == 0) {
        return true;
    }
    for (uint32_t i = 0; i < wanted->count; i++) {
        if (json_is_string(&wanted->items[i], device_id)) {
            return true;
        }
    }
    return false;
}

static struct slice name_of(const struct devices *devices, struct slice device_id)
{
    for (size_t i = 0; i < devices->count; i++) {
        if (slice_eq(devices->items[i].device_id, device_id)) {
            return devices->items[i].display_name;
        }
    }
    return (struct slice){0};
}

/* The stored bytes are served as they are; `unsigned` is put in before the last brace. */
static void write_keys(struct json_out *out, struct slice json, struct slice display_name)
{
    if (!display_name.ptr) {
        json_out_raw(out, json);
        return;
    }
    json_out_raw(out, slice_sub(json, 0, json.len - 1));
    buf_add(out->buf, LIT(",\"unsigned\":{\"device_display_name\":"));
    json_write_string(out->buf, display_name);
    buf_add(out->buf, LIT("}}"));
}

struct err hs_keys_write_devices(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 const struct json *wanted, struct json_out *out)
{
    struct store_rows rows;
    struct devices devices = {0};
    TRY(keys_rows(hs, ctx, user, keys_key(ctx, KEYS_ROW_DEVICE, LIT("")), 0, &rows));
    if (rows.count > 0) {
        TRY(hs_devices_list(hs, ctx, user, &devices));
    }
    json_out_object(out);
    for (size_t i = 0; i < rows.count; i++) {
        struct slice device_id = slice_from(rows.rows[i].key, 1);
        if (is_wanted(wanted, device_id)) {
            json_out_key(out, device_id);
            write_keys(out, rows.rows[i].value, name_of(&devices, device_id));
        }
    }
    json_out_object_end(out);
    return OK;
}

/* --- what happens to devices and accounts --- */

static struct err on_device_removed(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    struct slice device_id)
{
    struct keys_write write = keys_write_of(hs, ctx, user);
    store_delete(write.update, keys_key(ctx, KEYS_ROW_DEVICE, device_id));
    one_time_drop(&write, device_id);
    keys_write_list(&write, user, 0);
    TRY(keys_write_commit(&write));
    counts_forget(hs, ctx, user, device_id);
    return OK;
}

/* Spec: server-server, "Device Management": other servers hear of a new name, whether the device
 * has keys or not. */
static struct err on_device_renamed(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    struct slice device_id)
{
    (void)device_id;
    return hs_device_list_changed(hs, ctx, user);
}

static struct err forget_account(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    struct keys_write write = keys_write_of(hs, ctx, user);
    store_delete_range(write.update, LIT(""), LIT(""));
    keys_write_list(&write, user, 0);
    return keys_write_commit(&write);
}

/* The devices are gone already; cross-signing keys, signatures and backups go now. */
static struct err on_deactivated(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct slice user_id)
{
    (void)user_id;
    hs_user_lane_enter(hs, user);
    struct err err = forget_account(hs, ctx, user);
    hs_user_lane_leave(hs, user);
    return err;
}

/* --- life --- */

struct hs_keys *hs_keys_new(struct hs *hs)
{
    struct hs_keys *keys = mem_alloc(sizeof *keys);
    recent_init(&keys->recent, positions_newest(hs->positions));
    counts_init(keys);
    hs_on_device_removed(hs, on_device_removed);
    hs_on_device_renamed(hs, on_device_renamed);
    hs_on_deactivated(hs, on_deactivated);
    return keys;
}

void hs_keys_free(struct hs_keys **keys)
{
    if (*keys) {
        recent_deinit(&(*keys)->recent);
        counts_deinit(*keys);
        mem_free(*keys);
        *keys = NULL;
    }
}

void hs_keys_set_remote(struct hs *hs, struct hs_keys_remote remote)
{
    hs->keys->remote = remote;
}

struct hs_keys_remote hs_keys_get_remote(const struct hs *hs)
{
    return hs->keys->remote;
}
