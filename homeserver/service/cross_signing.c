#include "homeserver/service/cross_signing.h"

#include "crypto/json_sign.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/keys_priv.h"
#include "homeserver/service/users.h"

static const struct slice usages[CROSS_KEY_COUNT] = {
    [CROSS_MASTER] = {"master", 6},
    [CROSS_SELF_SIGNING] = {"self_signing", 12},
    [CROSS_USER_SIGNING] = {"user_signing", 12},
};
static const char row_letters[CROSS_KEY_COUNT] = {'m', 's', 'u'};

struct slice hs_cross_key_usage(enum cross_key key)
{
    return usages[key];
}

static struct slice row_of(struct ctx *ctx, enum cross_key key)
{
    return keys_key(ctx, KEYS_ROW_CROSS, (struct slice){&row_letters[key], 1});
}

/* --- keys --- */

/* A key object's one key: "ed25519:<text>", where the text is the public key. */
struct cross_public {
    struct slice key_id, text;
    struct ed25519_public key;
};

static bool public_of(const struct json *object, struct cross_public *public_out)
{
    const struct json *keys = json_get_object(object, LIT("keys"));
    if (!keys || keys->count != 1 || keys->members[0].value.type != JSON_STRING) {
        return false;
    }
    public_out->key_id = keys->members[0].key;
    public_out->text = keys->members[0].value.text;
    return slice_has_prefix(public_out->key_id, LIT("ed25519:")) &&
           slice_eq(slice_from(public_out->key_id, 8), public_out->text) &&
           ed25519_parse_public(public_out->text, &public_out->key);
}

static bool is_signed_by(struct ctx *ctx, const struct json *object, struct slice user_id,
                         const struct json *signing_key)
{
    struct cross_public by;
    return public_of(signing_key, &by) &&
           json_sign_verify(ctx->arena, object, user_id, by.key_id, &by.key);
}

static struct err load(struct hs *hs, struct ctx *ctx, uint64_t user, enum cross_key key,
                       struct json *object_out, bool *found_out)
{
    return keys_object_get(hs, ctx, user, row_of(ctx, key), object_out, found_out);
}

struct err cross_is_public_key(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice text,
                               bool *is_out)
{
    *is_out = false;
    for (int key = 0; key < CROSS_KEY_COUNT; key++) {
        struct json object;
        struct cross_public present;
        bool found = false;
        TRY(load(hs, ctx, user, (enum cross_key)key, &object, &found));
        *is_out =
            *is_out || (found && public_of(&object, &present) && slice_eq(present.text, text));
    }
    return OK;
}

/* --- uploading keys --- */

struct uploading {
    struct hs *hs;
    struct ctx *ctx;
    const struct cross_upload *upload;
    struct json stored[CROSS_KEY_COUNT];
    bool is_stored[CROSS_KEY_COUNT];
    bool changes[CROSS_KEY_COUNT];
};

static bool has_usage(const struct json *object, struct slice usage)
{
    const struct json *list = json_get_array(object, LIT("usage"));
    for (uint32_t i = 0; list && i < list->count; i++) {
        if (json_is_string(&list->items[i], usage)) {
            return true;
        }
    }
    return false;
}

static struct err check_object(struct uploading *u, enum cross_key key)
{
    const struct json *object = u->upload->keys[key];
    struct cross_public given;
    struct device device;
    bool found = false;
    if (object->type != JSON_OBJECT || json_check_canonical(object).code != 0) {
        return err_public(ERR_M_BAD_JSON, "A cross-signing key must be an object.");
    }
    if (!slice_eq(json_get_string(object, LIT("user_id")), u->upload->user_id)) {
        return err_public(ERR_M_INVALID_PARAM, "A cross-signing key names another user.");
    }
    if (!has_usage(object, usages[key])) {
        return err_public(ERR_M_INVALID_PARAM, "A cross-signing key lacks its usage.");
    }
    if (!public_of(object, &given)) {
        return err_public(ERR_M_INVALID_PARAM,
                          "A cross-signing key has exactly one key, ed25519:<public key>.");
    }
    if (json_canonical(u->ctx->arena, object).len > KEYS_KEY_BYTES_MAX) {
        return err_public(ERR_M_TOO_LARGE, "A cross-signing key is too large.");
    }
    /* Spec: client-server, "Cross-signing": public keys and device ids share a name space. */
    TRY(hs_device_get(u->hs, u->ctx, u->upload->user, given.text, &device, &found));
    return found ? err_public(ERR_M_INVALID_PARAM, "A device has the id of this public key.") : OK;
}

/* Spec: client-server, "Cross-signing": the master key signs the other two. */
static struct err check_signature(struct uploading *u, enum cross_key key)
{
    const struct json *master = u->upload->keys[CROSS_MASTER];
    if (!master && !u->is_stored[CROSS_MASTER]) {
        return err_public(ERR_M_MISSING_PARAM, "There is no master key; upload one.");
    }
    master = master ? master : &u->stored[CROSS_MASTER];
    if (!is_signed_by(u->ctx, u->upload->keys[key], u->upload->user_id, master)) {
        return err_public(ERR_M_INVALID_SIGNATURE, "The key is not signed by the master key.");
    }
    return OK;
}

static struct err check_all(struct uploading *u)
{
    for (int i = 0; i < CROSS_KEY_COUNT; i++) {
        enum cross_key key = (enum cross_key)i;
        const struct json *given = u->upload->keys[i];
        TRY(load(u->hs, u->ctx, u->upload->user, key, &u->stored[i], &u->is_stored[i]));
        if (!given) {
            continue;
        }
        TRY(check_object(u, key));
        if (key != CROSS_MASTER) {
            TRY(check_signature(u, key));
        }
        u->changes[i] = !u->is_stored[i] || !keys_say_same(u->ctx->arena, given, &u->stored[i]);
    }
    return OK;
}

/* Signatures by a self-signing key that is replaced say nothing any more. */
static struct err drop_old_signatures(struct uploading *u, struct keys_write *write)
{
    struct ctx *ctx = u->ctx;
    struct store_rows rows;
    struct cross_public old;
    struct slice user_id = u->upload->user_id;
    if (!u->is_stored[CROSS_SELF_SIGNING] || !public_of(&u->stored[CROSS_SELF_SIGNING], &old)) {
        return OK;
    }
    TRY(keys_rows(u->hs, ctx, write->user, keys_key(ctx, KEYS_ROW_DEVICE, LIT("")), 0, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct json device;
        TRY(json_parse(ctx->arena, rows.rows[i].value, &device));
        if (!json_sign_find(&device, user_id, old.key_id).ptr) {
            continue;
        }
        const struct json *all = json_get_object(&device, LIT("signatures"));
        struct json own = json_without(ctx->arena, json_get_object(all, user_id), &old.key_id, 1);
        struct json kept = json_without(ctx->arena, all, NULL, 0);
        json_set(ctx->arena, &kept, user_id, own);
        struct json device_now = json_without(ctx->arena, &device, NULL, 0);
        json_set(ctx->arena, &device_now, LIT("signatures"), kept);
        store_put(write->update, rows.rows[i].key, json_canonical(ctx->arena, &device_now));
    }
    return OK;
}

static void drop_signed_users(struct keys_write *write)
{
    struct slice prefix = keys_key(write->ctx, KEYS_ROW_SIGNED, LIT(""));
    store_delete_range(write->update, prefix, keys_after(write->ctx, prefix));
}

/* With a new master key, keys that the old one signed are void. */
static void drop_voided(struct uploading *u, struct keys_write *write)
{
    for (int i = CROSS_SELF_SIGNING; u->changes[CROSS_MASTER] && i < CROSS_KEY_COUNT; i++) {
        if (!u->upload->keys[i] && u->is_stored[i]) {
            store_delete(write->update, row_of(u->ctx, (enum cross_key)i));
            u->changes[i] = true;
        }
    }
}

static struct err store_keys(struct uploading *u)
{
    static const struct slice left_out[] = {{"unsigned", 8}};
    struct keys_write write = keys_write_of(u->hs, u->ctx, u->upload->user);
    drop_voided(u, &write);
    for (int i = 0; i < CROSS_KEY_COUNT; i++) {
        if (u->upload->keys[i] && u->changes[i]) {
            struct json kept = json_without(u->ctx->arena, u->upload->keys[i], left_out, 1);
            store_put(write.update, row_of(u->ctx, (enum cross_key)i),
                      json_canonical(u->ctx->arena, &kept));
        }
    }
    if (u->changes[CROSS_SELF_SIGNING]) {
        TRY(drop_old_signatures(u, &write));
    }
    if (u->changes[CROSS_USER_SIGNING]) {
        drop_signed_users(&write);
    }
    /* Others do not see the user-signing key. */
    bool is_public = u->changes[CROSS_MASTER] || u->changes[CROSS_SELF_SIGNING];
    keys_write_list(&write, u->upload->user, is_public ? 0 : u->upload->user);
    return keys_write_commit(&write);
}

static struct err upload_in_lane(struct uploading *u, enum cross_answer *answer_out)
{
    bool changes = false;
    TRY(check_all(u));
    for (int i = 0; i < CROSS_KEY_COUNT; i++) {
        changes = changes || u->changes[i];
    }
    *answer_out = CROSS_DONE;
    if (!changes) {
        struct keys_write nothing = keys_write_of(u->hs, u->ctx, u->upload->user);
        return keys_write_commit(&nothing);
    }
    /* Spec: client-server, "Cross-signing": the first keys need no further authentication. */
    if (u->is_stored[CROSS_MASTER] && u->upload->proof == CROSS_UNPROVEN) {
        *answer_out = CROSS_NEEDS_PROOF;
        return OK;
    }
    return store_keys(u);
}

struct err hs_cross_signing_upload(struct hs *hs, struct ctx *ctx,
                                   const struct cross_upload *upload, enum cross_answer *answer_out)
{
    struct uploading uploading = {.hs = hs, .ctx = ctx, .upload = upload};
    hs_user_lane_enter(hs, upload->user);
    struct err err = upload_in_lane(&uploading, answer_out);
    hs_user_lane_leave(hs, upload->user);
    return err;
}

/* --- reading --- */

static struct slice signed_row(struct ctx *ctx, uint64_t target)
{
    return keys_key(ctx, KEYS_ROW_SIGNED, store_id_u64(ctx->arena, target));
}

/* Adds what the viewer has signed of this master key. */
static struct err add_own_signatures(struct hs *hs, struct ctx *ctx, struct cross_view view,
                                     struct json *master)
{
    struct json signed_one;
    struct cross_public present;
    bool found = false;
    TRY(keys_object_get(hs, ctx, view.viewer, signed_row(ctx, view.user), &signed_one, &found));
    if (found && public_of(master, &present) &&
        json_is_string(json_get(&signed_one, LIT("master")), present.text)) {
        keys_add_signatures(ctx->arena, master, &signed_one);
    }
    return OK;
}

struct err hs_cross_signing_get(struct hs *hs, struct ctx *ctx, struct cross_view view,
                                struct slice *json_out, bool *found_out)
{
    struct json object;
    *found_out = false;
    if (view.key == CROSS_USER_SIGNING && view.viewer != view.user) {
        return OK;
    }
    if (view.key != CROSS_MASTER || view.viewer == 0 || view.viewer == view.user) {
        return store_get(hs->store, ctx, keys_object(ctx, view.user), row_of(ctx, view.key),
                         json_out, found_out);
    }
    TRY(load(hs, ctx, view.user, CROSS_MASTER, &object, found_out));
    if (*found_out) {
        TRY(add_own_signatures(hs, ctx, view, &object));
        *json_out = json_canonical(ctx->arena, &object);
    }
    return OK;
}

struct err hs_cross_signing_add_signatures(struct hs *hs, struct ctx *ctx, uint64_t viewer,
                                           struct slice user_id, struct json *master)
{
    struct cross_view view = {.viewer = viewer, .key = CROSS_MASTER};
    bool found = false;
    if (master->type != JSON_OBJECT) {
        return OK;
    }
    TRY(hs_user_find(hs, ctx, user_id, &view.user, &found));
    if (found) {
        *master = json_without(ctx->arena, master, NULL, 0);
        TRY(add_own_signatures(hs, ctx, view, master));
    }
    return OK;
}

/* --- uploading signatures --- */

struct signing {
    struct hs *hs;
    struct ctx *ctx;
    const struct signature_upload *upload;
    struct keys_write write;
    bool own_changed;
    struct json failures;
};

/* Copies the signature of `user_id` with one key. */
static struct json only_signature(struct ctx *ctx, const struct json *object, struct slice user_id,
                                  struct slice key_id)
{
    struct json by_key = json_object();
    struct json by_user = json_object();
    struct json result = json_object();
    json_set(ctx->arena, &by_key, key_id, json_string(json_sign_find(object, user_id, key_id)));
    json_set(ctx->arena, &by_user, user_id, by_key);
    json_set(ctx->arena, &result, LIT("signatures"), by_user);
    return result;
}

static struct err no_valid_signature(void)
{
    return err_public(ERR_M_INVALID_SIGNATURE, "There is no valid signature by a key of yours.");
}

static struct err other_content(void)
{
    return err_public(ERR_M_INVALID_PARAM, "What is signed differs from the key stored here.");
}

/* Stores an own object once it carries more signatures. */
static void put_signed(struct signing *s, struct slice row, const struct json *stored,
                       const struct json *more)
{
    struct json merged = json_without(s->ctx->arena, stored, NULL, 0);
    keys_add_signatures(s->ctx->arena, &merged, more);
    if (!json_eq(&merged, stored)) {
        store_put(s->write.update, row, json_canonical(s->ctx->arena, &merged));
        s->own_changed = true;
    }
}

/* Own devices are signed by the self-signing key. */
static struct err sign_device(struct signing *s, struct slice device_id, const struct json *object)
{
    struct ctx *ctx = s->ctx;
    struct json stored;
    struct json self_signing;
    struct cross_public by;
    bool found = false;
    TRY(hs_device_keys_get(s->hs, ctx, s->upload->user, device_id, &stored, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "You have no device of this id with keys.");
    }
    TRY(load(s->hs, ctx, s->upload->user, CROSS_SELF_SIGNING, &self_signing, &found));
    if (!found || !public_of(&self_signing, &by)) {
        return err_public(ERR_M_NOT_FOUND, "You have no self-signing key.");
    }
    if (!keys_say_same(ctx->arena, object, &stored)) {
        return other_content();
    }
    if (!is_signed_by(ctx, object, s->upload->user_id, &self_signing)) {
        return no_valid_signature();
    }
    struct json more = only_signature(ctx, object, s->upload->user_id, by.key_id);
    put_signed(s, keys_key(ctx, KEYS_ROW_DEVICE, device_id), &stored, &more);
    return OK;
}

/* Whether one of the signatures on the master key is that of a device. */
static struct err device_signature(struct signing *s, const struct json *object,
                                   struct slice key_id, bool *valid_out)
{
    struct json device;
    struct ed25519_public key;
    bool found = false;
    *valid_out = false;
    if (!slice_has_prefix(key_id, LIT("ed25519:"))) {
        return OK;
    }
    TRY(hs_device_keys_get(s->hs, s->ctx, s->upload->user, slice_from(key_id, 8), &device, &found));
    if (found) {
        struct slice text = json_get_string(json_get_object(&device, LIT("keys")), key_id);
        *valid_out = text.ptr && ed25519_parse_public(text, &key) &&
                     json_sign_verify(s->ctx->arena, object, s->upload->user_id, key_id, &key);
    }
    return OK;
}

/* The own master key is signed by own devices. */
static struct err sign_master(struct signing *s, const struct json *stored,
                              const struct json *object)
{
    const struct json *signatures =
        json_get_object(json_get_object(object, LIT("signatures")), s->upload->user_id);
    struct json more = json_object();
    size_t valid_count = 0;
    if (!keys_say_same(s->ctx->arena, object, stored)) {
        return other_content();
    }
    for (uint32_t i = 0; signatures && i < signatures->count; i++) {
        struct slice key_id = signatures->members[i].key;
        bool valid = false;
        TRY(device_signature(s, object, key_id, &valid));
        if (valid) {
            struct json one = only_signature(s->ctx, object, s->upload->user_id, key_id);
            keys_add_signatures(s->ctx->arena, &more, &one);
            valid_count++;
        }
    }
    if (valid_count == 0) {
        return no_valid_signature();
    }
    put_signed(s, row_of(s->ctx, CROSS_MASTER), stored, &more);
    return OK;
}

static struct err sign_own(struct signing *s, struct slice id, const struct json *object)
{
    struct json master;
    struct cross_public present;
    bool found = false;
    TRY(load(s->hs, s->ctx, s->upload->user, CROSS_MASTER, &master, &found));
    if (found && public_of(&master, &present) && slice_eq(present.text, id)) {
        return sign_master(s, &master, object);
    }
    return sign_device(s, id, object);
}

/* Of a user of this server the stored master key must be what was signed; that of a remote user is
 * compared when it is shown. */
static struct err check_target(struct signing *s, struct slice user_id, struct slice id,
                               const struct json *object)
{
    struct json master;
    struct cross_public present;
    uint64_t target = 0;
    bool found = false;
    if (!slice_eq(json_get_string(object, LIT("user_id")), user_id) ||
        !public_of(object, &present) || !slice_eq(present.text, id)) {
        return err_public(ERR_M_INVALID_PARAM, "Of other users only the master key can be signed.");
    }
    if (!hs_user_is_local(s->hs, user_id)) {
        return OK;
    }
    TRY(hs_user_find(s->hs, s->ctx, user_id, &target, &found));
    if (found) {
        TRY(load(s->hs, s->ctx, target, CROSS_MASTER, &master, &found));
    }
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The user has no master key.");
    }
    return keys_say_same(s->ctx->arena, object, &master) ? OK : other_content();
}

static struct err sign_other(struct signing *s, struct slice user_id, struct slice id,
                             const struct json *object)
{
    struct ctx *ctx = s->ctx;
    struct json user_signing;
    struct cross_public by;
    uint64_t target = 0;
    bool found = false;
    TRY(load(s->hs, ctx, s->upload->user, CROSS_USER_SIGNING, &user_signing, &found));
    if (!found || !public_of(&user_signing, &by)) {
        return err_public(ERR_M_NOT_FOUND, "You have no user-signing key.");
    }
    TRY(check_target(s, user_id, id, object));
    if (!is_signed_by(ctx, object, s->upload->user_id, &user_signing)) {
        return no_valid_signature();
    }
    TRY(hs_user_intern(s->hs, ctx, user_id, &target));
    struct json row = only_signature(ctx, object, s->upload->user_id, by.key_id);
    json_set(ctx->arena, &row, LIT("master"), json_string(id));
    store_put(s->write.update, signed_row(ctx, target), json_canonical(ctx->arena, &row));
    keys_write_list(&s->write, target, s->upload->user);
    return OK;
}

static void add_failure(struct signing *s, struct slice user_id, struct slice id, struct err err)
{
    struct arena *arena = s->ctx->arena;
    const struct errcode_info *info = errcode_get(err.code);
    const struct json *present = json_get_object(&s->failures, user_id);
    struct json of_user = present ? *present : json_object();
    struct json failure = json_object();
    json_set(arena, &failure, LIT("errcode"), json_string(info->wire));
    json_set(arena, &failure, LIT("error"),
             json_string(err.is_public ? slice_of(err.text) : info->text));
    json_set(arena, &of_user, id, failure);
    json_set(arena, &s->failures, user_id, of_user);
}

/* What the client got wrong is reported per key; what went wrong here fails the request. */
static struct err sign_one(struct signing *s, struct slice user_id,
                           const struct json_member *member)
{
    struct err err = err_public(ERR_M_BAD_JSON, "A signed key must be an object.");
    if (member->value.type == JSON_OBJECT && json_check_canonical(&member->value).code == 0) {
        err = slice_eq(user_id, s->upload->user_id)
                  ? sign_own(s, member->key, &member->value)
                  : sign_other(s, user_id, member->key, &member->value);
    }
    if (err.code != 0 && err.code < ERR_MATRIX_FIRST) {
        return err;
    }
    if (err.code != 0) {
        add_failure(s, user_id, member->key, err);
    }
    return OK;
}

static struct err sign_in_lane(struct signing *s)
{
    const struct json *users = s->upload->signed_objects;
    s->write = keys_write_of(s->hs, s->ctx, s->upload->user);
    for (uint32_t i = 0; i < users->count; i++) {
        const struct json *objects = &users->members[i].value;
        if (objects->type != JSON_OBJECT || !ids_is_user(users->members[i].key)) {
            return err_public(ERR_M_BAD_JSON, "The body maps user ids to objects.");
        }
        for (uint32_t j = 0; j < objects->count; j++) {
            TRY(sign_one(s, users->members[i].key, &objects->members[j]));
        }
    }
    if (s->own_changed) {
        keys_write_list(&s->write, s->upload->user, 0);
    }
    return keys_write_commit(&s->write);
}

struct err hs_signatures_upload(struct hs *hs, struct ctx *ctx,
                                const struct signature_upload *upload, struct json *failures_out)
{
    struct signing signing = {.hs = hs, .ctx = ctx, .upload = upload, .failures = json_object()};
    hs_user_lane_enter(hs, upload->user);
    struct err err = sign_in_lane(&signing);
    hs_user_lane_leave(hs, upload->user);
    *failures_out = signing.failures;
    return err;
}
