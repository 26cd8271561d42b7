#include "homeserver/service/tokens.h"

#include "crypto/token.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/users_priv.h"

#include <string.h>

enum {
    CACHE_MAX = 100000,
    LOGIN_TOKENS_MAX = 10000,
    DEVICE_ID_LETTERS = 10,
    SIBLING_TOKENS_MAX = 4, /* tokens of a generation that nobody has used yet */
    SEEN_EVERY_MS = 5 * 60 * 1000,
};

static const struct slice access_prefix = {"mya", 3};
static const struct slice refresh_prefix = {"myr", 3};
static const struct slice login_prefix = {"myl", 3};

/* What the cache knows about an access token. */
struct known_token {
    uint64_t user;
    uint64_t generation;
    int64_t expires_ms;
    bool ends_older; /* older generations still count until this one is used */
    _Atomic int64_t seen_ms;
    size_t user_id_len, device_id_len;
    char text[]; /* user id, device id */
};

struct login_token {
    uint64_t user;
    int64_t expires_mono_ms;
};

struct hs_tokens {
    pthread_rwlock_t lock;       /* known; held for lookups and inserts alone */
    struct map *known;           /* hash -> struct known_token */
    _Atomic uint64_t changes;    /* counts ended tokens: an overtaken reader caches nothing */
    pthread_mutex_t login_mutex; /* login */
    struct map *login;           /* hash -> struct login_token */
};

struct hs_tokens *hs_tokens_new(struct hs *hs)
{
    struct hs_tokens *tokens = mem_alloc(sizeof *tokens);
    (void)hs;
    pthread_rwlock_init(&tokens->lock, NULL);
    pthread_mutex_init(&tokens->login_mutex, NULL);
    tokens->known = map_new();
    tokens->login = map_new();
    return tokens;
}

static void free_values(struct map **map)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(*map, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(map);
}

void hs_tokens_free(struct hs_tokens **tokens)
{
    if (*tokens) {
        free_values(&(*tokens)->known);
        free_values(&(*tokens)->login);
        pthread_mutex_destroy(&(*tokens)->login_mutex);
        pthread_rwlock_destroy(&(*tokens)->lock);
        mem_free(*tokens);
        *tokens = NULL;
    }
}

/* --- index: (STORE_TOKENS, hash) "t" -> user, device id --- */

static struct store_object index_object(const struct sha256 *hash)
{
    return (struct store_object){STORE_TOKENS, sha256_slice(hash)};
}

static struct store_update *index_put(struct ctx *ctx, const struct sha256 *hash, uint64_t user,
                                      struct slice device_id)
{
    struct slice copy = arena_copy(ctx->arena, sha256_slice(hash));
    struct store_update *update = store_update_new(ctx, (struct store_object){STORE_TOKENS, copy});
    struct buf value;
    buf_init_arena(&value, ctx->arena, 512);
    pack_u64(&value, user);
    pack_bytes(&value, device_id);
    store_put(update, LIT("t"), buf_slice(&value));
    return update;
}

static struct err index_get(struct hs *hs, struct ctx *ctx, const struct sha256 *hash,
                            uint64_t *user_out, struct slice *device_id_out, bool *found_out)
{
    struct slice value;
    TRY(store_get(hs->store, ctx, index_object(hash), LIT("t"), &value, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(value);
    *user_out = unpack_u64(&in);
    *device_id_out = unpack_bytes(&in);
    return unpack_check(&in);
}

static void forget(struct hs_tokens *tokens, const struct sha256 *hash)
{
    pthread_rwlock_wrlock(&tokens->lock);
    atomic_fetch_add(&tokens->changes, 1);
    void *known = map_get_ptr(tokens->known, sha256_slice(hash));
    map_remove(tokens->known, sha256_slice(hash));
    pthread_rwlock_unlock(&tokens->lock);
    mem_free(known);
}

size_t tokens_end(struct hs *hs, struct ctx *ctx, const struct device_token *tokens, size_t count,
                  struct store_update **updates)
{
    for (size_t i = 0; i < count; i++) {
        struct slice hash = arena_copy(ctx->arena, sha256_slice(&tokens[i].hash));
        updates[i] = store_update_new(ctx, (struct store_object){STORE_TOKENS, hash});
        store_delete(updates[i], LIT("t"));
        forget(hs->tokens, &tokens[i].hash);
    }
    return count;
}

/* --- looking up --- */

static const struct device_token *find_in_row(const struct device_row *row,
                                              const struct sha256 *hash)
{
    for (size_t i = 0; i < row->token_count; i++) {
        if (token_eq(sha256_slice(&row->tokens[i].hash), sha256_slice(hash))) {
            return &row->tokens[i];
        }
    }
    return NULL;
}

static bool has_older(const struct device_row *row, uint64_t generation)
{
    for (size_t i = 0; i < row->token_count; i++) {
        if (row->tokens[i].generation < generation) {
            return true;
        }
    }
    return false;
}

/* What a lookup found, in the caller's arena. */
struct found_token {
    uint64_t user;
    uint64_t generation;
    int64_t expires_ms;
    int64_t seen_ms;
    bool ends_older;
    struct slice user_id, device_id;
};

static bool find_known(struct hs_tokens *tokens, struct ctx *ctx, const struct sha256 *hash,
                       struct found_token *found_out)
{
    pthread_rwlock_rdlock(&tokens->lock);
    const struct known_token *known = map_get_ptr(tokens->known, sha256_slice(hash));
    if (known) {
        struct slice text = arena_copy(
            ctx->arena, (struct slice){known->text, known->user_id_len + known->device_id_len});
        *found_out = (struct found_token){
            .user = known->user,
            .generation = known->generation,
            .expires_ms = known->expires_ms,
            .seen_ms = atomic_load(&known->seen_ms),
            .ends_older = known->ends_older,
            .user_id = slice_sub(text, 0, known->user_id_len),
            .device_id = slice_from(text, known->user_id_len),
        };
    }
    pthread_rwlock_unlock(&tokens->lock);
    return known != NULL;
}

static void remember(struct hs_tokens *tokens, const struct sha256 *hash,
                     const struct found_token *found, uint64_t changes)
{
    struct known_token *known =
        mem_alloc(sizeof *known + found->user_id.len + found->device_id.len);
    known->user = found->user;
    known->generation = found->generation;
    known->expires_ms = found->expires_ms;
    known->ends_older = found->ends_older;
    known->user_id_len = found->user_id.len;
    known->device_id_len = found->device_id.len;
    memcpy(known->text, found->user_id.ptr, found->user_id.len);
    memcpy(known->text + found->user_id.len, found->device_id.ptr, found->device_id.len);
    pthread_rwlock_wrlock(&tokens->lock);
    if (changes == atomic_load(&tokens->changes) &&
        !map_get_ptr(tokens->known, sha256_slice(hash))) {
        if (map_count(tokens->known) >= CACHE_MAX) {
            free_values(&tokens->known);
            tokens->known = map_new();
        }
        map_set_ptr(tokens->known, sha256_slice(hash), known);
        known = NULL;
    }
    pthread_rwlock_unlock(&tokens->lock);
    mem_free(known);
}

static struct err find_stored(struct hs *hs, struct ctx *ctx, const struct sha256 *hash,
                              struct found_token *out, bool *found_out)
{
    struct device_row row;
    uint64_t changes = atomic_load(&hs->tokens->changes);
    TRY(index_get(hs, ctx, hash, &out->user, &out->device_id, found_out));
    if (!*found_out) {
        return OK;
    }
    TRY(device_row_load(hs, ctx, out->user, out->device_id, &row, found_out));
    const struct device_token *token = *found_out ? find_in_row(&row, hash) : NULL;
    *found_out = token && token->kind == DEVICE_TOKEN_ACCESS;
    if (!*found_out) {
        return OK;
    }
    out->generation = token->generation;
    out->expires_ms = token->expires_ms;
    out->ends_older = has_older(&row, token->generation);
    TRY(hs_user_id_of(hs, ctx, out->user, &out->user_id));
    remember(hs->tokens, hash, out, changes);
    return OK;
}

/* Takes tokens older than `generation` out of a row; returns how many updates end them. */
static size_t drop_older(struct hs *hs, struct ctx *ctx, struct device_row *row,
                         uint64_t generation, struct store_update **updates)
{
    size_t kept = 0;
    size_t count = 0;
    for (size_t i = 0; i < row->token_count; i++) {
        if (row->tokens[i].generation < generation) {
            count += tokens_end(hs, ctx, &row->tokens[i], 1, updates + count);
        } else {
            row->tokens[kept++] = row->tokens[i];
        }
    }
    row->token_count = kept;
    return count;
}

static struct err end_older_in_lane(struct hs *hs, struct ctx *ctx, const struct found_token *found,
                                    const struct sha256 *hash)
{
    struct store_update *updates[DEVICE_TOKENS_MAX + 1];
    struct device_row row;
    bool exists = false;
    TRY(device_row_load(hs, ctx, found->user, found->device_id, &row, &exists));
    if (!exists) {
        return OK;
    }
    size_t count = drop_older(hs, ctx, &row, found->generation, updates + 1);
    updates[0] = store_update_new(ctx, users_object(ctx, found->user));
    device_row_put(ctx, updates[0], found->device_id, &row);
    forget(hs->tokens, hash); /* it comes back without ends_older */
    return store_write(hs->store, ctx, updates, count + 1);
}

/* The first use of a new pair ends the old one. Spec: client-server, "Refreshing access tokens" */
static struct err end_older(struct hs *hs, struct ctx *ctx, const struct found_token *found,
                            const struct sha256 *hash)
{
    hs_user_lane_enter(hs, found->user);
    struct err err = end_older_in_lane(hs, ctx, found, hash);
    hs_user_lane_leave(hs, found->user);
    return err;
}

struct err hs_token_find(struct hs *hs, struct ctx *ctx, struct slice token,
                         struct requester *requester_out, enum token_state *state_out)
{
    struct found_token found = {0};
    uint32_t flags = 0;
    *requester_out = (struct requester){0};
    *state_out = TOKEN_UNKNOWN;
    if (!token_is_formed(token, access_prefix)) {
        return OK;
    }
    struct sha256 hash = token_hash(token);
    bool exists = find_known(hs->tokens, ctx, &hash, &found);
    if (!exists) {
        TRY(find_stored(hs, ctx, &hash, &found, &exists));
    }
    if (!exists) {
        return OK;
    }
    TRY(hs_account_flags(hs, ctx, found.user, &flags, &exists));
    if (!exists || (flags & ACCOUNT_DEACTIVATED)) {
        return OK;
    }
    if (found.expires_ms != 0 && now_wall_ms(ctx->now) >= found.expires_ms) {
        *state_out = TOKEN_EXPIRED;
        return OK;
    }
    if (found.ends_older) {
        if (ctx->on_loop) {
            return err_make(ERR_WAITS, "older tokens are ended");
        }
        TRY(end_older(hs, ctx, &found, &hash));
    }
    *state_out = TOKEN_VALID;
    *requester_out = (struct requester){
        .user_id = found.user_id,
        .user = found.user,
        .device_id = found.device_id,
        .token_hash = hash,
        .is_admin = flags & ACCOUNT_ADMIN,
        .is_guest = flags & ACCOUNT_GUEST,
        .is_locked = flags & ACCOUNT_LOCKED,
        .is_suspended = flags & ACCOUNT_SUSPENDED,
    };
    return OK;
}

struct err hs_token_recheck(struct hs *hs, struct ctx *ctx, const struct requester *requester)
{
    struct found_token known = {0};
    struct device_row row;
    uint32_t flags = 0;
    bool exists = false;
    TRY(hs_account_flags(hs, ctx, requester->user, &flags, &exists));
    if (!exists || (flags & ACCOUNT_DEACTIVATED)) {
        return err_make(ERR_M_UNKNOWN_TOKEN, "the account has ended");
    }
    if (flags & ACCOUNT_LOCKED) {
        return err_make(ERR_M_USER_LOCKED, "locked account");
    }
    if (!requester->device_id.ptr || find_known(hs->tokens, ctx, &requester->token_hash, &known)) {
        return OK;
    }
    TRY(device_row_load(hs, ctx, requester->user, requester->device_id, &row, &exists));
    return exists ? OK : err_make(ERR_M_UNKNOWN_TOKEN, "the device has gone");
}

bool tokens_seen_is_due(struct hs *hs, const struct ctx *ctx, const struct requester *requester)
{
    bool due = false;
    int64_t now_ms = now_wall_ms(ctx->now);
    struct hs_tokens *tokens = hs->tokens;
    pthread_rwlock_rdlock(&tokens->lock);
    struct known_token *known = map_get_ptr(tokens->known, sha256_slice(&requester->token_hash));
    if (known) {
        int64_t seen_ms = atomic_load(&known->seen_ms);
        due = now_ms - seen_ms >= SEEN_EVERY_MS;
        if (due && !ctx->on_loop) {
            due = atomic_compare_exchange_strong(&known->seen_ms, &seen_ms, now_ms);
        }
    }
    pthread_rwlock_unlock(&tokens->lock);
    return due;
}

/* --- giving out --- */

/* Adds a pair (or one access token) to a row, with its index rows. */
struct issue {
    uint64_t user;
    struct slice device_id;
    uint64_t generation;
    bool refreshable;
};

static size_t add_tokens(struct hs *hs, struct ctx *ctx, const struct issue *issue,
                         struct device_row *row, struct issued_tokens *out,
                         struct store_update **updates)
{
    int64_t now_ms = now_wall_ms(ctx->now);
    int64_t refresh_life_ms = hs->conf->tokens_refresh_life;
    size_t count = 0;
    ASSERT(row->token_count + 2 <= DEVICE_TOKENS_MAX);
    out->device_id = issue->device_id;
    out->access_token = token_make(ctx->arena, access_prefix);
    out->expires_in_ms = issue->refreshable ? hs->conf->tokens_access_life : 0;
    struct device_token *access = &row->tokens[row->token_count++];
    *access = (struct device_token){
        .kind = DEVICE_TOKEN_ACCESS,
        .generation = issue->generation,
        .expires_ms = out->expires_in_ms ? now_ms + out->expires_in_ms : 0,
        .hash = token_hash(out->access_token),
    };
    updates[count++] = index_put(ctx, &access->hash, issue->user, issue->device_id);
    if (issue->refreshable) {
        out->refresh_token = token_make(ctx->arena, refresh_prefix);
        struct device_token *refresh = &row->tokens[row->token_count++];
        *refresh = (struct device_token){
            .kind = DEVICE_TOKEN_REFRESH,
            .generation = issue->generation,
            .expires_ms = refresh_life_ms ? now_ms + refresh_life_ms : 0,
            .hash = token_hash(out->refresh_token),
        };
        updates[count++] = index_put(ctx, &refresh->hash, issue->user, issue->device_id);
    }
    return count;
}

/* One device more than allowed: the one that was not seen for the longest time goes. */
static struct err make_room_for_device(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    struct devices devices;
    TRY(hs_devices_list(hs, ctx, user, &devices));
    if ((int64_t)devices.count < hs->conf->limits_devices_per_user) {
        return OK;
    }
    size_t oldest = 0;
    int64_t oldest_ms = INT64_MAX;
    for (size_t i = 0; i < devices.count; i++) {
        const struct device *device = &devices.items[i];
        int64_t used_ms =
            device->last_seen_ms > device->created_ms ? device->last_seen_ms : device->created_ms;
        if (used_ms < oldest_ms) {
            oldest_ms = used_ms;
            oldest = i;
        }
    }
    return devices_remove(hs, ctx, user, &devices.items[oldest].device_id, 1);
}

static struct err issue_in_lane(struct hs *hs, struct ctx *ctx, const struct sign_in *sign_in,
                                struct issued_tokens *out)
{
    struct store_update *updates[DEVICE_TOKENS_MAX + 3];
    struct device_row row;
    bool found = false;
    struct issue issue = {
        .user = sign_in->user,
        .device_id = sign_in->device_id.ptr ? sign_in->device_id
                                            : token_random_letters(ctx->arena, DEVICE_ID_LETTERS),
        .generation = 1,
        .refreshable = sign_in->kind == SIGN_IN_REFRESHABLE,
    };
    TRY(device_row_load(hs, ctx, issue.user, issue.device_id, &row, &found));
    size_t count = 1;
    if (found) {
        count += tokens_end(hs, ctx, row.tokens, row.token_count, updates + 1);
    } else {
        TRY(make_room_for_device(hs, ctx, issue.user));
        row.display_name = sign_in->display_name;
        row.created_ms = now_wall_ms(ctx->now);
    }
    row.token_count = 0;
    count += add_tokens(hs, ctx, &issue, &row, out, updates + count);
    updates[0] = store_update_new(ctx, users_object(ctx, issue.user));
    device_row_put(ctx, updates[0], issue.device_id, &row);
    return store_write(hs->store, ctx, updates, count);
}

struct err hs_token_issue(struct hs *hs, struct ctx *ctx, const struct sign_in *sign_in,
                          struct issued_tokens *tokens_out)
{
    *tokens_out = (struct issued_tokens){0};
    if (sign_in->device_id.ptr &&
        (sign_in->device_id.len == 0 || sign_in->device_id.len > DEVICE_ID_BYTES_MAX)) {
        return err_public(ERR_M_INVALID_PARAM, "A device id has 1 to 255 bytes.");
    }
    if (sign_in->display_name.len > DEVICE_NAME_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "The device name is too long.");
    }
    hs_user_lane_enter(hs, sign_in->user);
    struct err err = issue_in_lane(hs, ctx, sign_in, tokens_out);
    hs_user_lane_leave(hs, sign_in->user);
    return err;
}

static struct err unknown_refresh_token(void)
{
    return err_public(ERR_M_UNKNOWN_TOKEN, "The refresh token is not known; sign in again.");
}

/* Keeps pairs that were asked for and never used from piling up: the oldest of them go. */
static size_t drop_siblings(struct hs *hs, struct ctx *ctx, struct device_row *row,
                            uint64_t generation, struct store_update **updates)
{
    size_t siblings = 0;
    size_t count = 0;
    for (size_t i = 0; i < row->token_count; i++) {
        siblings += row->tokens[i].generation == generation;
    }
    for (size_t i = 0; siblings + 2 > SIBLING_TOKENS_MAX && i < row->token_count;) {
        if (row->tokens[i].generation != generation) {
            i++;
            continue;
        }
        count += tokens_end(hs, ctx, &row->tokens[i], 1, updates + count);
        memmove(&row->tokens[i], &row->tokens[i + 1],
                (row->token_count - i - 1) * sizeof row->tokens[0]);
        row->token_count--;
        siblings--;
    }
    return count;
}

static struct err refresh_in_lane(struct hs *hs, struct ctx *ctx, struct issue *issue,
                                  const struct sha256 *hash, struct issued_tokens *out)
{
    struct store_update *updates[2 * DEVICE_TOKENS_MAX + 3];
    struct device_row row;
    bool found = false;
    TRY(device_row_load(hs, ctx, issue->user, issue->device_id, &row, &found));
    const struct device_token *token = found ? find_in_row(&row, hash) : NULL;
    if (!token || token->kind != DEVICE_TOKEN_REFRESH ||
        (token->expires_ms != 0 && now_wall_ms(ctx->now) >= token->expires_ms)) {
        return unknown_refresh_token();
    }
    issue->generation = token->generation + 1;
    size_t count = 1;
    count += drop_older(hs, ctx, &row, issue->generation - 1, updates + count);
    count += drop_siblings(hs, ctx, &row, issue->generation, updates + count);
    count += add_tokens(hs, ctx, issue, &row, out, updates + count);
    updates[0] = store_update_new(ctx, users_object(ctx, issue->user));
    device_row_put(ctx, updates[0], issue->device_id, &row);
    return store_write(hs->store, ctx, updates, count);
}

struct err hs_token_refresh(struct hs *hs, struct ctx *ctx, struct slice refresh_token,
                            struct issued_tokens *tokens_out)
{
    struct issue issue = {.refreshable = true};
    uint32_t flags = 0;
    bool found = false;
    *tokens_out = (struct issued_tokens){0};
    if (!token_is_formed(refresh_token, refresh_prefix)) {
        return unknown_refresh_token();
    }
    struct sha256 hash = token_hash(refresh_token);
    TRY(index_get(hs, ctx, &hash, &issue.user, &issue.device_id, &found));
    if (found) {
        TRY(hs_account_flags(hs, ctx, issue.user, &flags, &found));
    }
    if (!found || (flags & ACCOUNT_DEACTIVATED)) {
        return unknown_refresh_token();
    }
    hs_user_lane_enter(hs, issue.user);
    struct err err = refresh_in_lane(hs, ctx, &issue, &hash, tokens_out);
    hs_user_lane_leave(hs, issue.user);
    return err;
}

/* --- login tokens --- */

static void drop_expired_logins(struct hs_tokens *tokens, int64_t now_mono)
{
    struct map *kept = map_new();
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(tokens->login, &cursor, &key, &value)) {
        struct login_token *login = (struct login_token *)(uintptr_t)value;
        if (login->expires_mono_ms > now_mono) {
            map_set_ptr(kept, key, login);
        } else {
            mem_free(login);
        }
    }
    map_free(&tokens->login);
    tokens->login = kept;
}

struct err hs_login_token_make(struct hs *hs, struct ctx *ctx, uint64_t user,
                               struct slice *token_out)
{
    struct hs_tokens *tokens = hs->tokens;
    int64_t now_mono = now_mono_ms(ctx->now);
    struct err err = OK;
    *token_out = token_make(ctx->arena, login_prefix);
    struct sha256 hash = token_hash(*token_out);
    pthread_mutex_lock(&tokens->login_mutex);
    if (map_count(tokens->login) >= LOGIN_TOKENS_MAX) {
        drop_expired_logins(tokens, now_mono);
    }
    if (map_count(tokens->login) >= LOGIN_TOKENS_MAX) {
        err = err_make(ERR_UNAVAILABLE, "too many login tokens");
    } else {
        struct login_token *login = mem_alloc(sizeof *login);
        *login = (struct login_token){user, now_mono + hs->conf->tokens_login_life};
        map_set_ptr(tokens->login, sha256_slice(&hash), login);
    }
    pthread_mutex_unlock(&tokens->login_mutex);
    return err;
}

bool hs_login_token_take(struct hs *hs, struct slice token, uint64_t *user_out)
{
    struct hs_tokens *tokens = hs->tokens;
    if (!token_is_formed(token, login_prefix)) {
        return false;
    }
    struct sha256 hash = token_hash(token);
    pthread_mutex_lock(&tokens->login_mutex);
    struct login_token *login = map_get_ptr(tokens->login, sha256_slice(&hash));
    map_remove(tokens->login, sha256_slice(&hash));
    pthread_mutex_unlock(&tokens->login_mutex);
    bool valid = login && now_mono_ms(hs->now) < login->expires_mono_ms;
    *user_out = valid ? login->user : 0;
    mem_free(login);
    return valid;
}
