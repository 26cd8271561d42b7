/* Rows of (STORE_USER_KEYS, user): what derives from the keys of devices and from key backups, and
 * whether what stands by itself can be read and belongs to somebody. */
#include "crypto/sha256.h"
#include "homeserver/service/check_priv.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/keys_priv.h"
#include "homeserver/service/users_priv.h"

struct key_check {
    struct store_object keys; /* of the user */
    uint64_t user;
};

static struct check_place place_of(const struct key_check *k, enum check_index index,
                                   struct slice key)
{
    return (struct check_place){index, k->keys, key};
}

/* Takes one name that stands behind its length; false when it is not whole. */
static bool take_name(struct slice *rest, struct slice *name_out)
{
    size_t len = rest->len > 0 ? (unsigned char)rest->ptr[0] : 0;
    *name_out = slice_sub(*rest, 1, len);
    if (rest->len < len + 1) {
        return false;
    }
    *rest = slice_from(*rest, len + 1);
    return true;
}

static struct err is_there(struct checker *c, const struct key_check *k, struct slice key,
                           bool *there_out)
{
    struct slice value;
    *there_out = false;
    return key.len <= STORE_KEY_BYTES_MAX
               ? store_get(c->hs->store, &c->page, k->keys, key, &value, there_out)
               : OK;
}

/* --- keys of devices --- */

/* A row of a device that is not there goes; found_out: it is there. */
static struct err device_is_there(struct checker *c, const struct key_check *k,
                                  struct check_place row, struct slice device_id, bool *there_out)
{
    check_compared(c, row.index);
    TRY(check_device_known(c, k->user, device_id, there_out));
    return *there_out ? OK : check_row_stray(c, row);
}

static struct err visit_device_keys(struct checker *c, void *arg, const struct store_row *row)
{
    struct json keys;
    bool there = false;
    struct check_place place = place_of(arg, CHECK_DEVICE_KEYS, row->key);
    TRY(device_is_there(c, arg, place, slice_from(row->key, 1), &there));
    if (there && json_parse(c->page.arena, row->value, &keys).code != 0) {
        check_report(c, CHECK_DEVICE_KEYS, row->key, "cannot be read", false);
    }
    return OK;
}

/* The parts of a row "k": used, "algorithm:id", JSON. */
static bool read_one_time(struct slice value, struct slice *name_out, struct slice *json_out)
{
    struct unpack in = unpack_of(value);
    unpack_u64(&in);
    *name_out = unpack_bytes(&in);
    *json_out = unpack_bytes(&in);
    return !in.bad && slice_find(*name_out, ':') < name_out->len;
}

/* "k" device, algorithm -> "i" device, algorithm, id. */
static struct slice id_key_of(struct checker *c, struct slice device_id, struct slice algorithm,
                              struct slice name)
{
    struct buf key;
    keys_key_begin(&c->page, &key, KEYS_ROW_KEY_ID);
    keys_key_name(&key, device_id);
    keys_key_name(&key, algorithm);
    buf_add(&key, slice_from(name, algorithm.len + 1));
    return buf_slice(&key);
}

struct one_time_walk {
    const struct key_check *k;
    struct map *claimed; /* "i" keys of keys that were given out */
    struct map *waiting; /* "i" keys of those that stand: each may stand once */
    struct map *devices; /* with keys or counts -> enum counted */
};
enum counted { COUNTED_NOT_YET, COUNTED };

/* A note of a claim: "g" device, time, "algorithm:id". It names the id, and goes with it. */
static struct err visit_claimed(struct checker *c, void *arg, const struct store_row *row)
{
    const struct one_time_walk *walk = arg;
    struct slice rest = slice_from(row->key, 1);
    struct slice device_id = {0};
    struct slice id_key = {0};
    uint64_t before = 0;
    bool there = take_name(&rest, &device_id) && rest.len > 8;
    struct slice name = slice_from(rest, 8);
    struct check_place place = place_of(walk->k, CHECK_ONE_TIME_KEYS, row->key);
    if (there && slice_find(name, ':') < name.len) {
        id_key = id_key_of(c, device_id, slice_sub(name, 0, slice_find(name, ':')), name);
        TRY(is_there(c, walk->k, id_key, &there));
    }
    if (!there || !id_key.ptr || map_get(walk->claimed, id_key, &before)) {
        return check_row_stray(c, place);
    }
    map_set(walk->claimed, id_key, 1);
    return check_row_is(c, place, id_key);
}

/* A key that was given out, or that stands already, must not go out again. */
static struct err visit_one_time(struct checker *c, void *arg, const struct store_row *row)
{
    struct one_time_walk *walk = arg;
    struct slice rest = slice_from(row->key, 1);
    struct slice device_id;
    struct slice algorithm;
    struct slice name;
    struct slice json;
    bool there = false;
    uint64_t other = 0;
    struct check_place place = place_of(walk->k, CHECK_ONE_TIME_KEYS, row->key);
    if (!take_name(&rest, &device_id) || !take_name(&rest, &algorithm) || rest.len != 8 ||
        !read_one_time(row->value, &name, &json)) {
        return check_row_stray(c, place);
    }
    TRY(device_is_there(c, walk->k, place, device_id, &there));
    if (!there) {
        return OK;
    }
    struct slice id_key = id_key_of(c, device_id, algorithm, name);
    struct sha256 hash = sha256_of(json);
    if (map_get(walk->claimed, id_key, &other) || map_get(walk->waiting, id_key, &other)) {
        return check_row_stray(c, place);
    }
    map_set(walk->waiting, id_key, 1);
    map_set(walk->devices, device_id, COUNTED_NOT_YET);
    return check_row_is(c, place_of(walk->k, CHECK_ONE_TIME_KEYS, id_key), sha256_slice(&hash));
}

static struct err visit_fallback(struct checker *c, void *arg, const struct store_row *row)
{
    struct one_time_walk *walk = arg;
    struct slice rest = slice_from(row->key, 1);
    struct slice device_id;
    struct slice name;
    struct slice json;
    bool there = false;
    struct check_place place = place_of(walk->k, CHECK_ONE_TIME_KEYS, row->key);
    if (!take_name(&rest, &device_id) || !read_one_time(row->value, &name, &json)) {
        return check_row_stray(c, place);
    }
    TRY(device_is_there(c, walk->k, place, device_id, &there));
    if (there) {
        map_set(walk->devices, device_id, COUNTED_NOT_YET);
    }
    return OK;
}

/* An id is that of a key that waits, or of one that was given out. */
static struct err visit_key_id(struct checker *c, void *arg, const struct store_row *row)
{
    const struct one_time_walk *walk = arg;
    uint64_t there = 0;
    check_compared(c, CHECK_ONE_TIME_KEYS);
    return map_get(walk->waiting, row->key, &there) || map_get(walk->claimed, row->key, &there)
               ? OK
               : check_row_stray(c, place_of(walk->k, CHECK_ONE_TIME_KEYS, row->key));
}

static struct err visit_counted(struct checker *c, void *arg, const struct store_row *row)
{
    struct one_time_walk *walk = arg;
    bool there = false;
    struct slice device_id = slice_from(row->key, 1);
    struct unpack in = unpack_of(row->value);
    uint64_t pos = unpack_be64(&in);
    struct check_place place = place_of(walk->k, CHECK_KEY_COUNTS, row->key);
    TRY(device_is_there(c, walk->k, place, device_id, &there));
    if (there && !in.bad && pos > 0 && pos <= check_counter(c)) {
        map_set(walk->devices, device_id, COUNTED);
    } else if (there) {
        map_set(walk->devices, device_id, COUNTED_NOT_YET);
    }
    return OK;
}

/* The counts of a device with keys must say when they changed last; without that position, clients
 * are told anew: they get the newest one that there may be. */
static struct err need_counted(struct checker *c, const struct one_time_walk *walk)
{
    size_t cursor = 0;
    struct slice device_id;
    uint64_t counted = 0;
    while (map_next(walk->devices, &cursor, &device_id, &counted)) {
        struct slice key = keys_key(&c->page, KEYS_ROW_COUNTED, device_id);
        if (counted == COUNTED_NOT_YET) {
            TRY(check_row_is(c, place_of(walk->k, CHECK_KEY_COUNTS, key),
                             store_id_u64(c->page.arena, check_counter(c))));
        }
    }
    return OK;
}

static struct err walk_one_time(struct checker *c, struct one_time_walk *walk)
{
    static const struct {
        enum keys_row row;
        check_visit_fn visit;
    } steps[] = {{KEYS_ROW_CLAIMED, visit_claimed},
                 {KEYS_ROW_ONE_TIME, visit_one_time},
                 {KEYS_ROW_KEY_ID, visit_key_id},
                 {KEYS_ROW_FALLBACK, visit_fallback},
                 {KEYS_ROW_COUNTED, visit_counted}};
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        TRY(check_each_row(c, walk->k->keys, (char)steps[i].row, steps[i].visit, walk));
    }
    return need_counted(c, walk);
}

static struct err check_one_time(struct checker *c, const struct key_check *k)
{
    struct one_time_walk walk = {
        .k = k, .claimed = map_new(), .waiting = map_new(), .devices = map_new()};
    struct err err = walk_one_time(c, &walk);
    map_free(&walk.claimed);
    map_free(&walk.waiting);
    map_free(&walk.devices);
    return err;
}

/* --- cross-signing --- */

static struct err visit_cross(struct checker *c, void *arg, const struct store_row *row)
{
    struct json object;
    (void)arg;
    check_compared(c, CHECK_CROSS_SIGNING);
    if (json_parse(c->page.arena, row->value, &object).code != 0) {
        check_report(c, CHECK_CROSS_SIGNING, row->key, "cannot be read", false);
    }
    return OK;
}

/* "o": a signature stands for a user that this server knows. */
static struct err visit_signed(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack key = unpack_of(slice_from(row->key, 1));
    bool known = false;
    TRY(check_user_known(c, unpack_be64(&key), &known));
    if (!known || key.bad || key.rest.len) {
        return check_row_stray(c, place_of(arg, CHECK_CROSS_SIGNING, row->key));
    }
    return visit_cross(c, arg, row);
}

/* --- backups --- */

/* Versions are few: the whole of one is counted at once. */
struct backup_walk {
    const struct key_check *k;
    uint64_t newest;
    struct map *counts; /* version -> its keys */
};

static struct err visit_backup_key(struct checker *c, void *arg, const struct store_row *row)
{
    struct backup_walk *walk = arg;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t version = unpack_be64(&key);
    uint64_t count = 0;
    bool there = false;
    check_compared(c, CHECK_KEY_BACKUPS);
    if (!key.bad) {
        TRY(is_there(c, walk->k,
                     keys_key(&c->page, KEYS_ROW_BACKUP, store_id_u64(c->page.arena, version)),
                     &there));
    }
    if (!there) {
        return check_row_stray(c, place_of(walk->k, CHECK_KEY_BACKUPS, row->key));
    }
    map_get(walk->counts, map_key_u64(&version), &count);
    map_set(walk->counts, map_key_u64(&version), count + 1);
    return OK;
}

static struct err visit_backup(struct checker *c, void *arg, const struct store_row *row)
{
    struct backup_walk *walk = arg;
    struct key_backup backup;
    uint64_t count = 0;
    if (backup_decode(row, &backup).code != 0) {
        check_report(c, CHECK_KEY_BACKUPS, row->key, "cannot be read", false);
        return OK;
    }
    map_get(walk->counts, map_key_u64(&backup.version), &count);
    walk->newest = backup.version > walk->newest ? backup.version : walk->newest;
    /* Other keys than the client knows of: it must see that something changed. */
    backup.etag += backup.count == count ? 0 : 1;
    backup.count = count;
    return check_row_is(c, place_of(walk->k, CHECK_KEY_BACKUPS, row->key),
                        backup_encode(&c->page, &backup));
}

/* Versions count up for ever: the newest one ever may be gone, but not be behind one that is. */
static struct err check_last_version(struct checker *c, const struct backup_walk *walk)
{
    struct slice value;
    bool found = false;
    struct slice key = keys_key(&c->page, KEYS_ROW_BACKUP_LAST, LIT(""));
    TRY(store_get(c->hs->store, &c->page, walk->k->keys, key, &value, &found));
    struct unpack in = unpack_of(found ? value : (struct slice){0});
    uint64_t last = found ? unpack_be64(&in) : 0;
    if (!in.bad && last >= walk->newest) {
        return OK;
    }
    return check_row_is(c, place_of(walk->k, CHECK_KEY_BACKUPS, key),
                        store_id_u64(c->page.arena, walk->newest));
}

static struct err check_backups(struct checker *c, const struct key_check *k)
{
    struct backup_walk walk = {.k = k, .counts = map_new()};
    struct err err = check_each_row(c, k->keys, KEYS_ROW_BACKUP_KEY, visit_backup_key, &walk);
    err = err.code ? err : check_each_row(c, k->keys, KEYS_ROW_BACKUP, visit_backup, &walk);
    map_free(&walk.counts);
    TRY(err);
    return check_last_version(c, &walk);
}

/* --- all of a user --- */

static struct err check_user_keys(struct checker *c, const struct key_check *k)
{
    void *arg = (void *)(uintptr_t)k;
    TRY(check_each_row(c, k->keys, KEYS_ROW_DEVICE, visit_device_keys, arg));
    TRY(check_one_time(c, k));
    TRY(check_each_row(c, k->keys, KEYS_ROW_CROSS, visit_cross, arg));
    TRY(check_each_row(c, k->keys, KEYS_ROW_SIGNED, visit_signed, arg));
    return check_backups(c, k);
}

static struct err visit_user(void *arg, struct slice id)
{
    struct checker *c = arg;
    struct slice user_id;
    bool known = false;
    struct unpack number = unpack_of(id);
    struct key_check k = {.keys = {STORE_USER_KEYS, arena_copy(c->room.arena, id)},
                          .user = unpack_be64(&number)};
    arena_reset(c->page.arena);
    TRY(check_user_known(c, k.user, &known));
    if (known) {
        TRY(hs_user_id_of(c->hs, &c->page, k.user, &user_id));
    }
    if (!known) {
        check_report(c, CHECK_DEVICE_KEYS, id, "are keys of an unknown user", false);
    } else if (hs_user_is_local(c->hs, user_id)) {
        TRY(check_user_keys(c, &k));
    }
    arena_reset(c->room.arena);
    return OK;
}

struct err check_keys(struct checker *c)
{
    return store_each_object(c->hs->store, c->ctx, STORE_USER_KEYS, visit_user, c);
}
