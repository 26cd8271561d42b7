/* Inside of the account services: what they keep in memory, and device rows. */
#pragma once
#include "crypto/password.h"
#include "crypto/sha256.h"
#include "homeserver/base/map.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/profiles.h"
#include "homeserver/service/user_rows.h"
#include "homeserver/service/users.h"

#include <pthread.h>
#include <stdatomic.h>

enum { HOOKS_MAX = 8, USERS_CACHED_MAX = 200000 };

struct hs_users {
    struct password_gate *gate;
    pthread_rwlock_t lock;    /* the maps below; held for lookups and inserts alone */
    struct map *by_id;        /* user id -> struct user_name */
    struct map *by_number;    /* number -> struct user_name, owned here */
    struct map *flags;        /* number -> account flags */
    _Atomic uint64_t changes; /* counts flag changes: a reader that was overtaken caches nothing */
    _Atomic uint64_t next_number; /* 0 = not read from the store yet */
    hs_deactivated_fn on_deactivated[HOOKS_MAX];
    hs_device_fn on_device_removed[HOOKS_MAX];
    hs_device_fn on_device_renamed[HOOKS_MAX];
    hs_profile_fn on_profile_change[HOOKS_MAX];
    hs_profile_remote_fn profile_remote;
    struct profile_log *profile_log;
};

/* Object (STORE_USER, user), and a key of it: the row's letter and a name. */
struct store_object users_object(struct ctx *ctx, uint64_t user);
struct slice users_row_key(struct ctx *ctx, enum user_row row, struct slice name);
/* All rows of one letter, by name; `name` of the first key is key + 1. */
struct err users_rows(struct hs *hs, struct ctx *ctx, uint64_t user, enum user_row row,
                      struct store_rows *rows_out) MUST_USE;

/* --- device rows --- */
enum { DEVICE_TOKENS_MAX = 8 };
enum device_token_kind { DEVICE_TOKEN_ACCESS, DEVICE_TOKEN_REFRESH };
/* A refresh makes a new generation; its first use ends all older ones. */
struct device_token {
    enum device_token_kind kind;
    uint64_t generation;
    int64_t expires_ms; /* 0 = never */
    struct sha256 hash;
};
struct device_row {
    struct slice display_name; /* ptr NULL = none */
    int64_t created_ms;
    struct device_token tokens[DEVICE_TOKENS_MAX];
    size_t token_count;
};
struct err device_row_load(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                           struct device_row *row_out, bool *found_out) MUST_USE;
/* The caller is in the account's lane. */
void device_row_put(struct ctx *ctx, struct store_update *update, struct slice device_id,
                    const struct device_row *row);
/* Removes devices; the caller is in the account's lane. */
struct err devices_remove(struct hs *hs, struct ctx *ctx, uint64_t user,
                          const struct slice *device_ids, size_t count) MUST_USE;

/* Updates that take tokens out of the index; the cache forgets them at once. */
size_t tokens_end(struct hs *hs, struct ctx *ctx, const struct device_token *tokens, size_t count,
                  struct store_update **updates);
struct requester;
/* Whether the last use of the caller's token should be written down; then says so to nobody else
 * for some minutes. */
bool tokens_seen_is_due(struct hs *hs, const struct ctx *ctx, const struct requester *requester);
/* Whether a list of user names or ids holds this user. */
bool users_is_named(const struct conf_texts *names, struct slice user_id);
