/* One-time and fallback keys: uploading, counting, claiming.
 * Spec: client-server, "One-time and fallback keys". */
#include "crypto/sha256.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/keys_priv.h"
#include "homeserver/service/users.h"

#include <string.h>

enum {
    NAME_BYTES_MAX = 255,      /* "algorithm:id" */
    ONE_TIME_TOTAL_MAX = 1000, /* of a device, all algorithms */
    FALLBACK_MAX = 32,
    ROW_BYTES_MAX = KEYS_KEY_BYTES_MAX + 1024,
    CLAIMED_DROPPED_MAX = 200,
};
/* A claimed key that is uploaded once more within this time (the reply had been lost) is known to
 * be claimed, so that it cannot go out twice. */
#define CLAIMED_KEPT_MS (INT64_C(7) * 24 * 3600 * 1000)

static struct slice algorithm_of(struct slice name)
{
    return slice_sub(name, 0, slice_find(name, ':'));
}

static struct slice device_key(struct ctx *ctx, enum keys_row row, struct slice device_id)
{
    struct buf key;
    keys_key_begin(ctx, &key, row);
    keys_key_name(&key, device_id);
    return buf_slice(&key);
}

static struct slice algorithm_key(struct ctx *ctx, enum keys_row row, struct slice device_id,
                                  struct slice algorithm)
{
    struct buf key;
    keys_key_begin(ctx, &key, row);
    keys_key_name(&key, device_id);
    keys_key_name(&key, algorithm);
    return buf_slice(&key);
}

static struct slice id_key(struct ctx *ctx, struct slice device_id, struct slice name)
{
    struct slice prefix = algorithm_key(ctx, KEYS_ROW_KEY_ID, device_id, algorithm_of(name));
    return arena_concat(ctx->arena, prefix, slice_from(name, algorithm_of(name).len + 1));
}

static struct slice order_key(struct ctx *ctx, struct slice device_id, struct slice algorithm,
                              uint64_t order)
{
    return arena_concat(ctx->arena, algorithm_key(ctx, KEYS_ROW_ONE_TIME, device_id, algorithm),
                        store_id_u64(ctx->arena, order));
}

/* --- rows of keys --- */

struct key_row {
    struct slice name, json;
    bool used; /* fallback keys */
};

static struct slice encode_key(struct ctx *ctx, const struct key_row *row)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, ROW_BYTES_MAX);
    pack_u64(&out, row->used ? 1 : 0);
    pack_bytes(&out, row->name);
    pack_bytes(&out, row->json);
    return buf_slice(&out);
}

static struct err decode_key(struct slice value, struct key_row *row_out)
{
    struct unpack in = unpack_of(value);
    row_out->used = unpack_u64(&in) != 0;
    row_out->name = unpack_bytes(&in);
    row_out->json = unpack_bytes(&in);
    return unpack_check(&in);
}

/* --- checking an upload --- */

struct one_time_plan {
    struct slice device_id;
    struct key_row *keys, *fallbacks; /* new ones */
    size_t key_count, fallback_count;
};

static struct err bad_key(const char *text)
{
    return err_public(ERR_M_BAD_JSON, text);
}

/* Spec: client-server, "Key algorithms": a key is text or an object with `key`. */
static struct err check_key(struct ctx *ctx, const struct json_member *member,
                            struct slice *json_out)
{
    struct slice algorithm = algorithm_of(member->key);
    const struct json *value = &member->value;
    bool named = algorithm.len > 0 && member->key.len > algorithm.len + 1;
    if (!named || member->key.len > NAME_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "A key must be named <algorithm>:<key id>.");
    }
    bool is_object = value->type == JSON_OBJECT && json_get_string(value, LIT("key")).ptr;
    if (!is_object && value->type != JSON_STRING) {
        return bad_key("A key must be a string or an object with `key`.");
    }
    if (json_check_canonical(value).code != 0) {
        return bad_key("A key holds a number that canonical JSON does not allow.");
    }
    *json_out = json_canonical(ctx->arena, value);
    return json_out->len <= KEYS_KEY_BYTES_MAX
               ? OK
               : err_public(ERR_M_TOO_LARGE, "A one-time or fallback key is too large.");
}

/* The id row: what was uploaded under this id. */
static struct slice encode_id(struct ctx *ctx, struct slice json)
{
    struct sha256 hash = sha256_of(json);
    return arena_copy(ctx->arena, sha256_slice(&hash));
}

static struct err plan_one_time(struct hs *hs, struct ctx *ctx, const struct key_upload *upload,
                                const struct json_member *member, struct one_time_plan *plan)
{
    struct key_row *row = &plan->keys[plan->key_count];
    struct slice older;
    bool found = false;
    row->name = member->key;
    TRY(check_key(ctx, member, &row->json));
    TRY(store_get(hs->store, ctx, keys_object(ctx, upload->user),
                  id_key(ctx, upload->device_id, member->key), &older, &found));
    if (!found) {
        plan->key_count++;
        return OK;
    }
    if (!slice_eq(older, encode_id(ctx, row->json))) {
        return err_public(ERR_M_UNKNOWN_400,
                          "A one-time key of this id with other content exists already.");
    }
    return OK;
}

static uint32_t count_of(const struct key_counts *counts, struct slice algorithm)
{
    for (size_t i = 0; i < counts->one_time_count; i++) {
        if (slice_eq(counts->one_time[i].algorithm, algorithm)) {
            return counts->one_time[i].count;
        }
    }
    return 0;
}

static struct err check_limits(struct hs *hs, struct ctx *ctx, const struct key_upload *upload,
                               const struct one_time_plan *plan)
{
    struct key_counts counts;
    size_t total = plan->key_count;
    TRY(hs_key_counts(hs, ctx, upload->user, upload->device_id, &counts));
    for (size_t i = 0; i < counts.one_time_count; i++) {
        total += counts.one_time[i].count;
    }
    for (size_t i = 0; i < plan->key_count; i++) {
        struct slice algorithm = algorithm_of(plan->keys[i].name);
        size_t count = count_of(&counts, algorithm);
        for (size_t j = 0; j < plan->key_count; j++) {
            count += slice_eq(algorithm_of(plan->keys[j].name), algorithm) ? 1 : 0;
        }
        if (count > KEYS_ONE_TIME_MAX) {
            return err_public(ERR_M_INVALID_PARAM,
                              "A device has at most 200 one-time keys of an algorithm.");
        }
    }
    return total <= ONE_TIME_TOTAL_MAX
               ? OK
               : err_public(ERR_M_INVALID_PARAM, "A device has at most 1000 one-time keys.");
}

static struct err plan_fallback(struct ctx *ctx, const struct json_member *member,
                                struct one_time_plan *plan)
{
    struct key_row *row = &plan->fallbacks[plan->fallback_count];
    row->name = member->key;
    TRY(check_key(ctx, member, &row->json));
    if (++plan->fallback_count > FALLBACK_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "Too many fallback keys.");
    }
    return OK;
}

static struct err check_object(const struct json *keys)
{
    return !keys || keys->type == JSON_OBJECT
               ? OK
               : bad_key("one_time_keys and fallback_keys must be objects.");
}

struct err one_time_check(struct hs *hs, struct ctx *ctx, const struct key_upload *upload,
                          struct one_time_plan **plan_out)
{
    struct one_time_plan *plan = arena_alloc(ctx->arena, sizeof *plan);
    const struct json *keys = upload->one_time_keys;
    const struct json *fallbacks = upload->fallback_keys;
    TRY(check_object(keys));
    TRY(check_object(fallbacks));
    plan->device_id = upload->device_id;
    if (keys && keys->count > ONE_TIME_TOTAL_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "A device has at most 1000 one-time keys.");
    }
    plan->keys = arena_array(ctx->arena, keys ? keys->count + 1 : 1, sizeof *plan->keys);
    plan->fallbacks =
        arena_array(ctx->arena, fallbacks ? fallbacks->count + 1 : 1, sizeof *plan->fallbacks);
    for (uint32_t i = 0; keys && i < keys->count; i++) {
        TRY(plan_one_time(hs, ctx, upload, &keys->members[i], plan));
    }
    for (uint32_t i = 0; fallbacks && i < fallbacks->count; i++) {
        TRY(plan_fallback(ctx, &fallbacks->members[i], plan));
    }
    TRY(check_limits(hs, ctx, upload, plan));
    *plan_out = plan;
    return OK;
}

/* --- storing an upload --- */

/* Order of the newest key of this algorithm; keys of one upload count on from there. */
static struct err newest_order(struct keys_write *write, struct slice device_id,
                               struct slice algorithm, uint64_t *order_out)
{
    struct slice prefix = algorithm_key(write->ctx, KEYS_ROW_ONE_TIME, device_id, algorithm);
    struct store_range range = {
        .from = prefix, .to = keys_after(write->ctx, prefix), .limit = 1, .order = STORE_REVERSE};
    struct store_rows rows;
    TRY(store_read_range(write->hs->store, write->ctx, keys_object(write->ctx, write->user), range,
                         &rows));
    *order_out = 0;
    if (rows.count > 0) {
        struct unpack in = unpack_of(slice_from(rows.rows[0].key, prefix.len));
        *order_out = unpack_be64(&in);
        TRY(unpack_check(&in));
    }
    return OK;
}

/* Keys of an upload are sorted by name, so those of one algorithm stand together. */
static struct err put_one_time(struct keys_write *write, const struct one_time_plan *plan)
{
    struct slice algorithm = {0};
    uint64_t order = 0;
    for (size_t i = 0; i < plan->key_count; i++) {
        const struct key_row *row = &plan->keys[i];
        if (!slice_eq(algorithm_of(row->name), algorithm)) {
            algorithm = algorithm_of(row->name);
            TRY(newest_order(write, plan->device_id, algorithm, &order));
        }
        store_put(write->update, order_key(write->ctx, plan->device_id, algorithm, ++order),
                  encode_key(write->ctx, row));
        store_put(write->update, id_key(write->ctx, plan->device_id, row->name),
                  encode_id(write->ctx, row->json));
    }
    return OK;
}

/* The same key again stays used if it was: the reply to the first upload may have been lost. */
static struct err put_fallback(struct keys_write *write, struct slice device_id,
                               const struct key_row *row, bool *changed_out)
{
    struct slice key =
        algorithm_key(write->ctx, KEYS_ROW_FALLBACK, device_id, algorithm_of(row->name));
    struct slice value;
    struct key_row older;
    bool found = false;
    TRY(store_get(write->hs->store, write->ctx, keys_object(write->ctx, write->user), key, &value,
                  &found));
    if (found) {
        TRY(decode_key(value, &older));
    }
    if (!found || !slice_eq(older.name, row->name) || !slice_eq(older.json, row->json)) {
        store_put(write->update, key, encode_key(write->ctx, row));
        *changed_out = true;
    }
    return OK;
}

/* Forgets which keys were claimed long ago. */
static struct err drop_claimed(struct keys_write *write, struct slice device_id)
{
    struct store_rows rows;
    struct slice prefix = device_key(write->ctx, KEYS_ROW_CLAIMED, device_id);
    int64_t before = now_wall_ms(write->ctx->now) - CLAIMED_KEPT_MS;
    struct store_range range = {
        .from = prefix,
        .to = arena_concat(write->ctx->arena, prefix,
                           store_id_u64(write->ctx->arena, before > 0 ? (uint64_t)before : 0)),
        .limit = CLAIMED_DROPPED_MAX};
    TRY(store_read_range(write->hs->store, write->ctx, keys_object(write->ctx, write->user), range,
                         &rows));
    for (size_t i = 0; i < rows.count; i++) {
        store_delete(write->update, rows.rows[i].key);
        store_delete(write->update, rows.rows[i].value);
    }
    return OK;
}

struct err one_time_apply(struct keys_write *write, const struct one_time_plan *plan)
{
    bool changed = plan->key_count > 0;
    TRY(put_one_time(write, plan));
    for (size_t i = 0; i < plan->fallback_count; i++) {
        TRY(put_fallback(write, plan->device_id, &plan->fallbacks[i], &changed));
    }
    if (changed) {
        TRY(drop_claimed(write, plan->device_id));
        keys_write_counts(write, plan->device_id);
    }
    return OK;
}

void one_time_drop(struct keys_write *write, struct slice device_id)
{
    static const enum keys_row rows[] = {KEYS_ROW_FALLBACK, KEYS_ROW_CLAIMED, KEYS_ROW_KEY_ID,
                                         KEYS_ROW_ONE_TIME};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct slice prefix = device_key(write->ctx, rows[i], device_id);
        store_delete_range(write->update, prefix, keys_after(write->ctx, prefix));
    }
    store_delete(write->update, keys_key(write->ctx, KEYS_ROW_COUNTED, device_id));
}

/* --- claiming --- */

static size_t claimed_before(const struct key_claim *claims, size_t index)
{
    size_t count = 0;
    for (size_t i = 0; i < index; i++) {
        count += slice_eq(claims[i].device_id, claims[index].device_id) &&
                         slice_eq(claims[i].algorithm, claims[index].algorithm)
                     ? 1
                     : 0;
    }
    return count;
}

static void hand_out(struct key_claim *claim, const struct key_row *row)
{
    claim->found = true;
    claim->key_name = row->name;
    claim->json = row->json;
}

static void note_claimed(struct keys_write *write, struct slice device_id, struct slice name)
{
    struct ctx *ctx = write->ctx;
    struct buf key;
    keys_key_begin(ctx, &key, KEYS_ROW_CLAIMED);
    keys_key_name(&key, device_id);
    pack_be64(&key, (uint64_t)now_wall_ms(ctx->now));
    buf_add(&key, name);
    store_put(write->update, buf_slice(&key), id_key(ctx, device_id, name));
}

static struct err claim_fallback(struct keys_write *write, struct key_claim *claim)
{
    struct slice key =
        algorithm_key(write->ctx, KEYS_ROW_FALLBACK, claim->device_id, claim->algorithm);
    struct slice value;
    struct key_row row;
    bool found = false;
    TRY(store_get(write->hs->store, write->ctx, keys_object(write->ctx, write->user), key, &value,
                  &found));
    if (!found) {
        return OK;
    }
    TRY(decode_key(value, &row));
    hand_out(claim, &row);
    if (!row.used) {
        row.used = true;
        store_put(write->update, key, encode_key(write->ctx, &row));
        keys_write_counts(write, claim->device_id);
    }
    return OK;
}

static struct err claim_one(struct keys_write *write, struct key_claim *claims, size_t index)
{
    struct key_claim *claim = &claims[index];
    struct store_rows rows;
    struct key_row row;
    size_t nth = claimed_before(claims, index);
    claim->found = false;
    if (claim->device_id.len > DEVICE_ID_BYTES_MAX || claim->algorithm.len > NAME_BYTES_MAX) {
        return OK;
    }
    TRY(keys_rows(write->hs, write->ctx, write->user,
                  algorithm_key(write->ctx, KEYS_ROW_ONE_TIME, claim->device_id, claim->algorithm),
                  nth + 1, &rows));
    if (rows.count <= nth) {
        return claim_fallback(write, claim);
    }
    TRY(decode_key(rows.rows[nth].value, &row));
    hand_out(claim, &row);
    store_delete(write->update, rows.rows[nth].key);
    note_claimed(write, claim->device_id, row.name);
    keys_write_counts(write, claim->device_id);
    return OK;
}

static struct err claim_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct key_claim *claims, size_t count)
{
    struct keys_write write = keys_write_of(hs, ctx, user);
    for (size_t i = 0; i < count; i++) {
        TRY(claim_one(&write, claims, i));
    }
    return write.counted_count > 0 ? keys_write_commit(&write) : OK;
}

struct err hs_keys_claim(struct hs *hs, struct ctx *ctx, uint64_t user, struct key_claim *claims,
                         size_t count)
{
    hs_user_lane_enter(hs, user);
    struct err err = claim_in_lane(hs, ctx, user, claims, count);
    hs_user_lane_leave(hs, user);
    return err;
}

/* --- counts --- */

struct counts_entry {
    size_t len;
    char bytes[];
};

void counts_init(struct hs_keys *keys)
{
    for (size_t i = 0; i < KEYS_STRIPES; i++) {
        pthread_mutex_init(&keys->counts[i].lock, NULL);
        keys->counts[i].entries = map_new();
    }
}

static void drop_entries(struct counts_stripe *stripe)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(stripe->entries, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&stripe->entries);
}

void counts_deinit(struct hs_keys *keys)
{
    for (size_t i = 0; i < KEYS_STRIPES; i++) {
        drop_entries(&keys->counts[i]);
        pthread_mutex_destroy(&keys->counts[i].lock);
    }
}

static struct slice cache_key(struct ctx *ctx, uint64_t user, struct slice device_id)
{
    return arena_concat(ctx->arena, store_id_u64(ctx->arena, user), device_id);
}

static struct counts_stripe *stripe_of(struct hs *hs, struct slice key)
{
    return &hs->keys->counts[slice_hash(key) % KEYS_STRIPES];
}

void counts_forget(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id)
{
    struct slice key = cache_key(ctx, user, device_id);
    struct counts_stripe *stripe = stripe_of(hs, key);
    pthread_mutex_lock(&stripe->lock);
    mem_free(map_get_ptr(stripe->entries, key));
    map_remove(stripe->entries, key);
    stripe->changes++;
    pthread_mutex_unlock(&stripe->lock);
}

/* A copy of what is remembered (ptr NULL: nothing), and the stripe's count of changes. */
static struct slice recall(struct counts_stripe *stripe, struct ctx *ctx, struct slice key,
                           uint64_t *changes_out)
{
    struct slice copy = {0};
    pthread_mutex_lock(&stripe->lock);
    const struct counts_entry *entry = map_get_ptr(stripe->entries, key);
    if (entry) {
        copy = arena_copy(ctx->arena, (struct slice){entry->bytes, entry->len});
    }
    *changes_out = stripe->changes;
    pthread_mutex_unlock(&stripe->lock);
    return copy;
}

static void remember(struct counts_stripe *stripe, struct slice key, struct slice record,
                     uint64_t changes)
{
    pthread_mutex_lock(&stripe->lock);
    if (stripe->changes == changes && !map_get_ptr(stripe->entries, key)) {
        if (map_count(stripe->entries) >= KEYS_STRIPE_MAX) {
            drop_entries(stripe);
            stripe->entries = map_new();
        }
        struct counts_entry *entry = mem_alloc_raw(sizeof *entry + record.len);
        entry->len = record.len;
        memcpy(entry->bytes, record.ptr, record.len);
        map_set_ptr(stripe->entries, key, entry);
    }
    pthread_mutex_unlock(&stripe->lock);
}

static void pack_one_time_counts(struct buf *out, const struct store_rows *rows, size_t skip)
{
    for (size_t i = 0; i < rows->count;) {
        struct slice rest = slice_from(rows->rows[i].key, skip);
        size_t len = rest.len > 0 ? (unsigned char)rest.ptr[0] : 0;
        struct slice group = slice_sub(rest, 0, len + 1);
        size_t first = i;
        while (i < rows->count && slice_has_prefix(slice_from(rows->rows[i].key, skip), group)) {
            i++;
        }
        pack_bytes(out, slice_from(group, 1));
        pack_u64(out, i - first);
    }
    pack_bytes(out, LIT(""));
}

static struct err count_stored(struct hs *hs, struct ctx *ctx, uint64_t user,
                               struct slice device_id, struct slice *record_out)
{
    struct slice prefix = device_key(ctx, KEYS_ROW_ONE_TIME, device_id);
    struct store_rows keys;
    struct store_rows fallbacks;
    struct slice pos = LIT("\0\0\0\0\0\0\0\0");
    struct buf out;
    bool found = false;
    TRY(keys_rows(hs, ctx, user, prefix, 0, &keys));
    TRY(keys_rows(hs, ctx, user, device_key(ctx, KEYS_ROW_FALLBACK, device_id), 0, &fallbacks));
    TRY(store_get(hs->store, ctx, keys_object(ctx, user),
                  keys_key(ctx, KEYS_ROW_COUNTED, device_id), &pos, &found));
    buf_init_arena(&out, ctx->arena, SIZE_MAX / 2);
    buf_add(&out, found ? pos : LIT("\0\0\0\0\0\0\0\0"));
    pack_one_time_counts(&out, &keys, prefix.len);
    for (size_t i = 0; i < fallbacks.count; i++) {
        struct key_row row;
        TRY(decode_key(fallbacks.rows[i].value, &row));
        if (!row.used) {
            pack_bytes(&out, algorithm_of(row.name));
        }
    }
    pack_bytes(&out, LIT(""));
    *record_out = buf_slice(&out);
    return OK;
}

static struct err decode_counts(struct ctx *ctx, struct slice record, struct key_counts *counts)
{
    struct unpack in = unpack_of(record);
    bool has_curve = false;
    size_t max = record.len + 1;
    *counts = (struct key_counts){.pos = unpack_be64(&in)};
    counts->one_time = arena_array(ctx->arena, max, sizeof *counts->one_time);
    counts->unused_fallback = arena_array(ctx->arena, max, sizeof *counts->unused_fallback);
    for (struct slice name = unpack_bytes(&in); name.len > 0; name = unpack_bytes(&in)) {
        counts->one_time[counts->one_time_count++] =
            (struct key_count){.algorithm = name, .count = (uint32_t)unpack_u64(&in)};
        has_curve = has_curve || slice_eq(name, LIT("signed_curve25519"));
    }
    if (!has_curve) {
        counts->one_time[counts->one_time_count++] =
            (struct key_count){.algorithm = LIT("signed_curve25519")};
    }
    for (struct slice name = unpack_bytes(&in); name.len > 0; name = unpack_bytes(&in)) {
        counts->unused_fallback[counts->unused_fallback_count++] = name;
    }
    return unpack_check(&in);
}

struct err hs_key_counts(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                         struct key_counts *counts_out)
{
    struct slice key = cache_key(ctx, user, device_id);
    struct counts_stripe *stripe = stripe_of(hs, key);
    uint64_t changes = 0;
    struct slice record = recall(stripe, ctx, key, &changes);
    if (!record.ptr) {
        TRY(count_stored(hs, ctx, user, device_id, &record));
        remember(stripe, key, record, changes);
    }
    return decode_counts(ctx, record, counts_out);
}

struct err hs_keys_check_claims(const struct json *wanted)
{
    for (uint32_t i = 0; i < wanted->count; i++) {
        const struct json *devices = &wanted->members[i].value;
        bool good = devices->type == JSON_OBJECT;
        for (uint32_t j = 0; good && j < devices->count; j++) {
            good = devices->members[j].value.type == JSON_STRING;
        }
        if (!good) {
            return err_public(ERR_M_BAD_JSON,
                              "one_time_keys maps user ids to device ids and these to algorithms.");
        }
    }
    return OK;
}

struct err hs_keys_write_claims(struct hs *hs, struct ctx *ctx, const struct json_member *wanted,
                                struct json_out *out)
{
    uint64_t user = 0;
    bool found = false;
    size_t found_count = 0;
    size_t count = wanted->value.count;
    if (hs_user_is_local(hs, wanted->key)) {
        TRY(hs_user_find(hs, ctx, wanted->key, &user, &found));
    }
    if (!found) {
        return OK;
    }
    struct key_claim *claims = arena_array(ctx->arena, count + 1, sizeof *claims);
    for (size_t i = 0; i < count; i++) {
        claims[i].device_id = wanted->value.members[i].key;
        claims[i].algorithm = wanted->value.members[i].value.text;
    }
    TRY(hs_keys_claim(hs, ctx, user, claims, count));
    for (size_t i = 0; i < count; i++) {
        if (!claims[i].found) {
            continue;
        }
        if (found_count++ == 0) {
            json_out_key_object(out, wanted->key);
        }
        json_out_key_object(out, claims[i].device_id);
        json_out_key_raw(out, claims[i].key_name, claims[i].json);
        json_out_object_end(out);
    }
    if (found_count > 0) {
        json_out_object_end(out);
    }
    return OK;
}
