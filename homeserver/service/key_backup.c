#include "homeserver/service/key_backup.h"

#include "homeserver/service/keys_priv.h"
#include "homeserver/service/users.h"

enum {
    ROW_BYTES_MAX = 128 * 1024,
    NAME_BYTES_MAX = 255,
    ROWS_AT_ONCE = 500,
};

/* --- rows --- */

static struct slice version_row(struct ctx *ctx, uint64_t version)
{
    return keys_key(ctx, KEYS_ROW_BACKUP, store_id_u64(ctx->arena, version));
}

/* Where the keys of a scope begin, and so what all their rows begin with. */
static struct slice scope_prefix(struct ctx *ctx, const struct backup_scope *scope)
{
    struct buf key;
    keys_key_begin(ctx, &key, KEYS_ROW_BACKUP_KEY);
    pack_be64(&key, scope->version);
    if (scope->room_id.ptr) {
        keys_key_name(&key, scope->room_id);
    }
    if (scope->session_id.ptr) {
        keys_key_name(&key, scope->session_id);
    }
    return buf_slice(&key);
}

struct slice backup_encode(struct ctx *ctx, const struct key_backup *backup)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, SIZE_MAX / 2);
    pack_bytes(&out, backup->algorithm);
    pack_bytes(&out, backup->auth_data);
    pack_u64(&out, backup->etag);
    pack_u64(&out, backup->count);
    return buf_slice(&out);
}

static void put_version(struct keys_write *write, const struct key_backup *backup)
{
    store_put(write->update, version_row(write->ctx, backup->version),
              backup_encode(write->ctx, backup));
}

struct err backup_decode(const struct store_row *row, struct key_backup *backup_out)
{
    struct unpack key = unpack_of(slice_from(row->key, 1));
    struct unpack in = unpack_of(row->value);
    backup_out->version = unpack_be64(&key);
    backup_out->algorithm = unpack_bytes(&in);
    backup_out->auth_data = unpack_bytes(&in);
    backup_out->etag = unpack_u64(&in);
    backup_out->count = unpack_u64(&in);
    TRY(unpack_check(&key));
    return unpack_check(&in);
}

struct err hs_key_backup_get(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t version,
                             struct key_backup *backup_out, bool *found_out)
{
    struct slice prefix = keys_key(ctx, KEYS_ROW_BACKUP, LIT(""));
    struct store_range range = {.from = version ? version_row(ctx, version) : prefix,
                                .to = version ? keys_after(ctx, version_row(ctx, version))
                                              : keys_after(ctx, prefix),
                                .limit = 1,
                                .order = STORE_REVERSE};
    struct store_rows rows;
    *backup_out = (struct key_backup){0};
    TRY(store_read_range(hs->store, ctx, keys_object(ctx, user), range, &rows));
    *found_out = rows.count > 0;
    return *found_out ? backup_decode(&rows.rows[0], backup_out) : OK;
}

static struct err no_such_version(void)
{
    return err_public(ERR_M_NOT_FOUND, "There is no key backup of this version.");
}

static struct err require(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t version,
                          struct key_backup *backup_out)
{
    bool found = false;
    if (version == 0) {
        return no_such_version();
    }
    TRY(hs_key_backup_get(hs, ctx, user, version, backup_out, &found));
    return found ? OK : no_such_version();
}

/* --- versions --- */

/* The newest version ever made, 0 when there was none. */
static struct err load_last_version(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    uint64_t *last_out)
{
    struct slice row;
    bool found = false;
    *last_out = 0;
    TRY(store_get(hs->store, ctx, keys_object(ctx, user),
                  keys_key(ctx, KEYS_ROW_BACKUP_LAST, LIT("")), &row, &found));
    if (!found) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    *last_out = unpack_be64(&in);
    return unpack_check(&in);
}

static struct err create_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 const struct key_backup *draft, uint64_t *version_out)
{
    struct keys_write write = keys_write_of(hs, ctx, user);
    struct slice last_row = keys_key(ctx, KEYS_ROW_BACKUP_LAST, LIT(""));
    struct key_backup backup = *draft;
    uint64_t last = 0;
    TRY(load_last_version(hs, ctx, user, &last));
    backup.version = last + 1;
    store_put(write.update, last_row, store_id_u64(ctx->arena, backup.version));
    put_version(&write, &backup);
    *version_out = backup.version;
    return keys_write_commit(&write);
}

struct err hs_key_backup_create(struct hs *hs, struct ctx *ctx, uint64_t user,
                                const struct key_backup *draft, uint64_t *version_out)
{
    hs_user_lane_enter(hs, user);
    struct err err = create_in_lane(hs, ctx, user, draft, version_out);
    hs_user_lane_leave(hs, user);
    return err;
}

static struct err update_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 const struct key_backup *draft)
{
    struct keys_write write = keys_write_of(hs, ctx, user);
    struct key_backup backup;
    TRY(require(hs, ctx, user, draft->version, &backup));
    if (!slice_eq(backup.algorithm, draft->algorithm)) {
        return err_public(ERR_M_INVALID_PARAM, "The algorithm of a backup cannot change.");
    }
    backup.auth_data = draft->auth_data;
    put_version(&write, &backup);
    return keys_write_commit(&write);
}

struct err hs_key_backup_update(struct hs *hs, struct ctx *ctx, uint64_t user,
                                const struct key_backup *draft)
{
    hs_user_lane_enter(hs, user);
    struct err err = update_in_lane(hs, ctx, user, draft);
    hs_user_lane_leave(hs, user);
    return err;
}

static struct err delete_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t version)
{
    struct keys_write write = keys_write_of(hs, ctx, user);
    struct backup_scope scope = {.user = user, .version = version};
    struct slice prefix = scope_prefix(ctx, &scope);
    uint64_t last = 0;
    TRY(load_last_version(hs, ctx, user, &last));
    /* Spec: "If the backup was previously deleted, the call should succeed". */
    if (version == 0 || version > last) {
        return no_such_version();
    }
    store_delete(write.update, version_row(ctx, version));
    store_delete_range(write.update, prefix, keys_after(ctx, prefix));
    return keys_write_commit(&write);
}

struct err hs_key_backup_delete(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t version)
{
    hs_user_lane_enter(hs, user);
    struct err err = delete_in_lane(hs, ctx, user, version);
    hs_user_lane_leave(hs, user);
    return err;
}

/* --- keys --- */

/* What decides which of two keys of a session is better. */
struct key_rank {
    bool verified;
    int64_t first_index, forwarded;
};

static struct err read_rank(const struct json *data, struct key_rank *rank_out)
{
    const struct json *verified = json_get(data, LIT("is_verified"));
    bool good = data->type == JSON_OBJECT && verified && verified->type == JSON_BOOL &&
                json_get_int(data, LIT("first_message_index"), &rank_out->first_index) &&
                json_get_int(data, LIT("forwarded_count"), &rank_out->forwarded) &&
                rank_out->first_index >= 0 && rank_out->forwarded >= 0 &&
                json_get_object(data, LIT("session_data"));
    if (!good) {
        return err_public(ERR_M_BAD_JSON, "A key needs first_message_index, forwarded_count, "
                                          "is_verified and session_data.");
    }
    rank_out->verified = verified->boolean;
    return OK;
}

/* Spec: client-server, "Server-side key backups": verified wins, then the lower first index, then
 * the lower count of forwards. */
static bool is_better(const struct key_rank *a, const struct key_rank *b)
{
    if (a->verified != b->verified) {
        return a->verified;
    }
    if (a->first_index != b->first_index) {
        return a->first_index < b->first_index;
    }
    return a->forwarded < b->forwarded;
}

static struct err encode_key(struct ctx *ctx, const struct json *data, const struct key_rank *rank,
                             struct slice *value_out)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, ROW_BYTES_MAX);
    pack_u64(&out, rank->verified ? 1 : 0);
    pack_i64(&out, rank->first_index);
    pack_i64(&out, rank->forwarded);
    pack_bytes(&out, json_canonical(ctx->arena, data));
    *value_out = buf_slice(&out);
    return out.overflow ? err_public(ERR_M_TOO_LARGE, "A backed up key is too large.") : OK;
}

static struct err decode_key(struct slice value, struct key_rank *rank_out, struct slice *json_out)
{
    struct unpack in = unpack_of(value);
    rank_out->verified = unpack_u64(&in) != 0;
    rank_out->first_index = unpack_i64(&in);
    rank_out->forwarded = unpack_i64(&in);
    *json_out = unpack_bytes(&in);
    return unpack_check(&in);
}

static bool is_nameable(struct slice name)
{
    return name.len > 0 && name.len <= NAME_BYTES_MAX;
}

static struct err put_key(struct keys_write *write, struct key_backup *backup,
                          const struct backup_key *key, bool *changed_out)
{
    struct ctx *ctx = write->ctx;
    struct backup_scope scope = {write->user, backup->version, key->room_id, key->session_id};
    struct key_rank rank;
    struct key_rank older_rank;
    struct slice older;
    struct slice older_json;
    struct slice value;
    bool found = false;
    TRY(read_rank(key->data, &rank));
    if (!is_nameable(key->room_id) || !is_nameable(key->session_id)) {
        return err_public(ERR_M_INVALID_PARAM, "A room id and a session id have 1 to 255 bytes.");
    }
    struct slice row = scope_prefix(ctx, &scope);
    TRY(store_get(write->hs->store, ctx, keys_object(ctx, write->user), row, &older, &found));
    if (found) {
        TRY(decode_key(older, &older_rank, &older_json));
    }
    if (found && !is_better(&rank, &older_rank)) {
        return OK;
    }
    TRY(encode_key(ctx, key->data, &rank, &value));
    store_put(write->update, row, value);
    backup->count += found ? 0 : 1;
    *changed_out = true;
    return OK;
}

struct putting {
    uint64_t user, version;
    const struct backup_key *keys;
    size_t count;
};

static struct err put_in_lane(struct hs *hs, struct ctx *ctx, const struct putting *putting,
                              struct key_backup *backup_out)
{
    struct keys_write write = keys_write_of(hs, ctx, putting->user);
    bool found = false;
    bool changed = false;
    TRY(require(hs, ctx, putting->user, putting->version, backup_out));
    TRY(hs_key_backup_get(hs, ctx, putting->user, 0, backup_out, &found));
    if (backup_out->version != putting->version) {
        return err_public(ERR_M_WRONG_ROOM_KEYS_VERSION,
                          "There is a newer key backup; add keys to that one.");
    }
    for (size_t i = 0; i < putting->count; i++) {
        TRY(put_key(&write, backup_out, &putting->keys[i], &changed));
    }
    if (changed) {
        backup_out->etag++;
        put_version(&write, backup_out);
    }
    return keys_write_commit(&write);
}

struct err hs_backup_keys_put(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t version,
                              const struct backup_key *keys, size_t count,
                              struct key_backup *backup_out)
{
    struct putting putting = {user, version, keys, count};
    hs_user_lane_enter(hs, user);
    struct err err = put_in_lane(hs, ctx, &putting, backup_out);
    hs_user_lane_leave(hs, user);
    return err;
}

/* --- keys of a scope --- */

static bool is_impossible(const struct backup_scope *scope)
{
    return (scope->room_id.ptr && !is_nameable(scope->room_id)) ||
           (scope->session_id.ptr && !is_nameable(scope->session_id));
}

/* A row by name is one key; the others are what begins with the prefix. */
static struct err read_piece(struct hs *hs, struct ctx *ctx, const struct backup_scope *scope,
                             struct slice from, struct store_rows *rows_out)
{
    struct slice prefix = scope_prefix(ctx, scope);
    struct store_range range = {
        .from = from.ptr ? from : prefix, .to = keys_after(ctx, prefix), .limit = ROWS_AT_ONCE};
    return store_read_range(hs->store, ctx, keys_object(ctx, scope->user), range, rows_out);
}

/* The key right after this one. */
static struct slice next_key(struct ctx *ctx, struct slice key)
{
    return arena_concat(ctx->arena, key, LIT("\0"));
}

static struct err count_rows(struct hs *hs, struct ctx *ctx, const struct backup_scope *scope,
                             uint64_t *count_out)
{
    struct slice from = {0};
    struct store_rows rows = {.count = ROWS_AT_ONCE};
    *count_out = 0;
    while (rows.count == ROWS_AT_ONCE) {
        TRY(read_piece(hs, ctx, scope, from, &rows));
        *count_out += rows.count;
        from = rows.count > 0 ? next_key(ctx, rows.rows[rows.count - 1].key) : from;
    }
    return OK;
}

static struct err delete_keys_in_lane(struct hs *hs, struct ctx *ctx,
                                      const struct backup_scope *scope,
                                      struct key_backup *backup_out)
{
    struct keys_write write = keys_write_of(hs, ctx, scope->user);
    uint64_t count = 0;
    TRY(require(hs, ctx, scope->user, scope->version, backup_out));
    if (is_impossible(scope)) {
        return OK;
    }
    TRY(count_rows(hs, ctx, scope, &count));
    if (count > 0) {
        struct slice prefix = scope_prefix(ctx, scope);
        store_delete_range(write.update, prefix, keys_after(ctx, prefix));
        backup_out->count -= count;
        backup_out->etag++;
        put_version(&write, backup_out);
    }
    return keys_write_commit(&write);
}

struct err hs_backup_keys_delete(struct hs *hs, struct ctx *ctx, const struct backup_scope *scope,
                                 struct key_backup *backup_out)
{
    hs_user_lane_enter(hs, scope->user);
    struct err err = delete_keys_in_lane(hs, ctx, scope, backup_out);
    hs_user_lane_leave(hs, scope->user);
    return err;
}

/* --- writing them out --- */

struct listing {
    struct hs *hs;
    struct ctx *ctx;
    const struct backup_scope *scope;
    struct json_out *out;
    struct slice room; /* whose sessions are being written; ptr NULL = none yet */
};

static struct slice name_at(struct slice key, size_t at)
{
    size_t len = at < key.len ? (unsigned char)key.ptr[at] : 0;
    return slice_sub(key, at + 1, len);
}

static void begin_room(struct listing *listing, struct slice room)
{
    if (listing->room.ptr) {
        json_out_object_end(listing->out);
        json_out_object_end(listing->out);
    }
    json_out_key_object(listing->out, room);
    json_out_key_object(listing->out, LIT("sessions"));
    listing->room = room;
}

static struct err write_row(struct listing *listing, const struct store_row *row)
{
    enum { ROOM_AT = 9 }; /* behind the letter and the version */
    struct slice room = name_at(row->key, ROOM_AT);
    struct key_rank rank;
    struct slice json;
    TRY(decode_key(row->value, &rank, &json));
    if (!listing->scope->room_id.ptr && (!listing->room.ptr || !slice_eq(listing->room, room))) {
        begin_room(listing, room);
    }
    json_out_key_raw(listing->out, name_at(row->key, ROOM_AT + 1 + room.len), json);
    return OK;
}

static struct err write_rows(struct listing *listing)
{
    struct slice from = {0};
    struct store_rows rows = {.count = ROWS_AT_ONCE};
    while (rows.count == ROWS_AT_ONCE) {
        TRY(read_piece(listing->hs, listing->ctx, listing->scope, from, &rows));
        for (size_t i = 0; i < rows.count; i++) {
            TRY(write_row(listing, &rows.rows[i]));
            from = next_key(listing->ctx, rows.rows[i].key);
        }
    }
    if (listing->room.ptr) {
        json_out_object_end(listing->out);
        json_out_object_end(listing->out);
    }
    return OK;
}

static struct err write_one(struct hs *hs, struct ctx *ctx, const struct backup_scope *scope,
                            struct json_out *out)
{
    struct slice value;
    struct slice json;
    struct key_rank rank;
    bool found = false;
    if (!is_impossible(scope)) {
        TRY(store_get(hs->store, ctx, keys_object(ctx, scope->user), scope_prefix(ctx, scope),
                      &value, &found));
    }
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The backup has no key of this session.");
    }
    TRY(decode_key(value, &rank, &json));
    json_out_raw(out, json);
    return OK;
}

struct err hs_backup_keys_write(struct hs *hs, struct ctx *ctx, const struct backup_scope *scope,
                                struct json_out *out)
{
    struct listing listing = {.hs = hs, .ctx = ctx, .scope = scope, .out = out};
    struct key_backup backup;
    TRY(require(hs, ctx, scope->user, scope->version, &backup));
    if (scope->session_id.ptr) {
        return write_one(hs, ctx, scope, out);
    }
    json_out_object(out);
    json_out_key_object(out, scope->room_id.ptr ? LIT("sessions") : LIT("rooms"));
    if (!is_impossible(scope)) {
        TRY(write_rows(&listing));
    }
    json_out_object_end(out);
    json_out_object_end(out);
    return OK;
}
