/* Inside of the key services: rows of (STORE_USER_KEYS, user), the write that they share, and what
 * they keep in memory. */
#pragma once
#include "homeserver/base/map.h"
#include "homeserver/service/device_keys.h"
#include "homeserver/service/key_backup.h"

#include <pthread.h>

/* First bytes of the keys. Device ids, algorithms and room ids inside keys carry a length. */
enum keys_row {
    KEYS_ROW_BACKUP = 'B',      /* version: a backup (key_backup.c) */
    KEYS_ROW_BACKUP_KEY = 'K',  /* version, room, session: a key in it */
    KEYS_ROW_BACKUP_LAST = 'V', /* number of the newest version ever */
    KEYS_ROW_CROSS = 'c',       /* letter of the usage: a cross-signing key */
    KEYS_ROW_DEVICE = 'd',      /* device id: device keys, canonical JSON */
    KEYS_ROW_FALLBACK = 'f',    /* device, algorithm: a fallback key */
    KEYS_ROW_CLAIMED = 'g',     /* device, time: id row of a key that was claimed then */
    KEYS_ROW_FOLLOWED = 'r',    /* of another server's user: how far the list is followed */
    KEYS_ROW_KEY_ID = 'i',      /* device, algorithm, id: hash of a one-time key, its order */
    KEYS_ROW_ONE_TIME = 'k',    /* device, algorithm, order: a one-time key */
    KEYS_ROW_COUNTED = 'n',     /* device: position of the last change of its counts */
    KEYS_ROW_SIGNED = 'o',      /* user number: this user's signatures of that user's master key */
};

struct store_object keys_object(struct ctx *ctx, uint64_t user);
/* Begins a key: the letter, and a length and a name for each of the names. */
void keys_key_begin(struct ctx *ctx, struct buf *key, enum keys_row row);
void keys_key_name(struct buf *key, struct slice name);
/* The letter and bytes as they are. */
struct slice keys_key(struct ctx *ctx, enum keys_row row, struct slice rest);
/* The first key after all that begin with `prefix`. */
struct slice keys_after(struct ctx *ctx, struct slice prefix);
/* All rows whose keys begin with `prefix`. */
struct err keys_rows(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice prefix,
                     size_t limit, struct store_rows *rows_out) MUST_USE;

/* --- one write of a user's keys, and the changes that it publishes --- */
struct list_change {
    uint64_t user;
    uint64_t viewer; /* who alone can see it; 0 = everybody */
};
struct keys_write {
    struct hs *hs;
    struct ctx *ctx;
    uint64_t user;
    struct store_update *update; /* of the user's keys */
    struct list_change *lists;
    size_t list_count, list_cap;
    struct slice *counted; /* devices whose counts change */
    size_t counted_count, counted_cap;
};
struct keys_write keys_write_of(struct hs *hs, struct ctx *ctx, uint64_t user);
void keys_write_list(struct keys_write *write, uint64_t user, uint64_t viewer);
void keys_write_counts(struct keys_write *write, struct slice device_id);
struct err keys_write_commit(struct keys_write *write) MUST_USE;

/* --- in memory --- */
enum { KEYS_STRIPES = 64, KEYS_STRIPE_MAX = 4096, KEYS_RECENT_MAX = 65536 };

/* Newest list changes in order of position: all those after `floor`. */
struct recent_change {
    uint64_t pos;
    struct list_change change;
};
struct recent_changes {
    pthread_mutex_t lock;
    struct recent_change *items; /* ring */
    size_t first, count;
    uint64_t floor;
};
void recent_init(struct recent_changes *recent, uint64_t floor);
void recent_deinit(struct recent_changes *recent);
void recent_add(struct recent_changes *recent, struct recent_change change);
/* The row that records a change, in place of the user's older one. */
struct err lists_put(struct hs *hs, struct ctx *ctx, struct store_update *update,
                     struct recent_change change) MUST_USE;
struct store_object lists_object(struct ctx *ctx);

/* Encoded counts by device. `changes` counts what was forgotten: a reader that was overtaken keeps
 * nothing. */
struct counts_stripe {
    pthread_mutex_t lock;
    struct map *entries;
    uint64_t changes;
};
void counts_forget(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id);

struct hs_keys {
    struct recent_changes recent;
    struct counts_stripe counts[KEYS_STRIPES];
    struct hs_keys_remote remote;
};
void counts_init(struct hs_keys *keys);
void counts_deinit(struct hs_keys *keys);
/* Rows of the stream of list changes, object lists_object: "p" position -> user, viewer; "u" user,
 * viewer -> position. */
enum lists_row { LISTS_ROW_BY_POS = 'p', LISTS_ROW_BY_USER = 'u' };
struct slice lists_key_pos(struct ctx *ctx, uint64_t pos);
struct slice lists_key_user(struct ctx *ctx, struct list_change change);
struct slice lists_encode(struct ctx *ctx, struct list_change change);
struct err lists_decode(struct slice row, struct list_change *change_out) MUST_USE;

/* The row of a backup. */
struct slice backup_encode(struct ctx *ctx, const struct key_backup *backup);
struct err backup_decode(const struct store_row *row, struct key_backup *backup_out) MUST_USE;

/* Deletes the one-time and fallback keys of a device. */
void one_time_drop(struct keys_write *write, struct slice device_id);
/* --- uploads of one-time and fallback keys --- */
struct one_time_plan;
/* Checks what is uploaded against what is there; changes nothing. */
struct err one_time_check(struct hs *hs, struct ctx *ctx, const struct key_upload *upload,
                          struct one_time_plan **plan_out) MUST_USE;
/* Adds what is new to the write. */
struct err one_time_apply(struct keys_write *write, const struct one_time_plan *plan) MUST_USE;
/* --- signatures --- */
/* Adds the signatures of `from` to `to`; equal places are overwritten. */
void keys_add_signatures(struct arena *arena, struct json *to, const struct json *from);
/* Whether two signed objects say the same, whoever signed them. */
bool keys_say_same(struct arena *arena, const struct json *a, const struct json *b);
/* A stored object. */
struct err keys_object_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice key,
                           struct json *object_out, bool *found_out) MUST_USE;
/* Whether this text is the public part of one of the user's cross-signing keys. */
struct err cross_is_public_key(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice text,
                               bool *is_out) MUST_USE;
