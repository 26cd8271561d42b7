/* Account records: the second half of users.h. */
#include "homeserver/service/news.h"
#include "homeserver/service/users_priv.h"

enum { RECORD_VERSION = 1, RECORD_BYTES_MAX = 4096 };

bool users_is_named(const struct conf_texts *names, struct slice user_id)
{
    struct slice localpart = ids_user_localpart(ids_trust_user(user_id));
    for (size_t i = 0; i < names->count; i++) {
        if (slice_eq(names->items[i], user_id) || slice_eq(names->items[i], localpart)) {
            return true;
        }
    }
    return false;
}

static struct slice encode(struct ctx *ctx, const struct account *account)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, RECORD_BYTES_MAX);
    pack_u64(&out, RECORD_VERSION);
    pack_u64(&out, account->flags);
    pack_i64(&out, account->created_ms);
    pack_bytes(&out, account->password_hash);
    pack_bytes(&out, account->appservice);
    return buf_slice(&out);
}

/* The record as it is stored, without what the settings add. */
static struct err load(struct hs *hs, struct ctx *ctx, uint64_t user, struct account *account_out,
                       bool *found_out)
{
    struct slice value;
    *account_out = (struct account){.user = user};
    TRY(store_get(hs->store, ctx, users_object(ctx, user), LIT("a"), &value, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(value);
    if (unpack_u64(&in) != RECORD_VERSION) {
        return err_make(ERR_CORRUPT, "an account record has an unknown version");
    }
    account_out->flags = (uint32_t)unpack_u64(&in);
    account_out->created_ms = unpack_i64(&in);
    account_out->password_hash = unpack_bytes(&in);
    account_out->appservice = unpack_bytes(&in);
    TRY(unpack_check(&in));
    return hs_user_id_of(hs, ctx, user, &account_out->user_id);
}

struct err hs_account_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                          struct account *account_out, bool *found_out)
{
    TRY(load(hs, ctx, user, account_out, found_out));
    if (*found_out && !(account_out->flags & ACCOUNT_DEACTIVATED) &&
        users_is_named(&hs->conf->admins, account_out->user_id)) {
        account_out->flags |= ACCOUNT_ADMIN;
    }
    return OK;
}

struct err hs_account_flags(struct hs *hs, struct ctx *ctx, uint64_t user, uint32_t *flags_out,
                            bool *found_out)
{
    uint64_t flags = 0;
    struct account account;
    pthread_rwlock_rdlock(&hs->users->lock);
    *found_out = map_get(hs->users->flags, map_key_u64(&user), &flags);
    pthread_rwlock_unlock(&hs->users->lock);
    *flags_out = (uint32_t)flags;
    if (*found_out) {
        return OK;
    }
    uint64_t changes = atomic_load(&hs->users->changes);
    TRY(hs_account_get(hs, ctx, user, &account, found_out));
    *flags_out = account.flags;
    pthread_rwlock_wrlock(&hs->users->lock);
    if (*found_out && changes == atomic_load(&hs->users->changes)) {
        if (map_count(hs->users->flags) >= USERS_CACHED_MAX) {
            map_free(&hs->users->flags);
            hs->users->flags = map_new();
        }
        map_set(hs->users->flags, map_key_u64(&user), account.flags);
    }
    pthread_rwlock_unlock(&hs->users->lock);
    return OK;
}

/* The account was written. */
static void forget_flags(struct hs *hs, uint64_t user)
{
    pthread_rwlock_wrlock(&hs->users->lock);
    atomic_fetch_add(&hs->users->changes, 1);
    map_remove(hs->users->flags, map_key_u64(&user));
    pthread_rwlock_unlock(&hs->users->lock);
    hs_news_account(hs, user);
}

struct err hs_account_create(struct hs *hs, struct ctx *ctx, const struct account_draft *draft,
                             uint64_t *user_out)
{
    struct account account = {.flags = draft->flags,
                              .created_ms = now_wall_ms(ctx->now),
                              .appservice = draft->appservice};
    if (draft->password.ptr) {
        TRY(password_hash(hs->users->gate, ctx->arena, draft->password, &account.password_hash));
    }
    TRY(hs_user_intern(hs, ctx, draft->user_id, user_out));
    struct store_update *update = store_update_new(ctx, users_object(ctx, *user_out));
    store_expect(update, LIT("a"), (struct slice){0});
    store_put(update, LIT("a"), encode(ctx, &account));
    if (draft->display_name.ptr) {
        struct json name = json_string(draft->display_name);
        store_put(update, users_row_key(ctx, USER_ROW_PROFILE, LIT("displayname")),
                  json_canonical(ctx->arena, &name));
    }
    struct err err = store_write(hs->store, ctx, &update, 1);
    forget_flags(hs, *user_out);
    return err.code == ERR_CONFLICT ? err_make(ERR_M_USER_IN_USE, "the account exists") : err;
}

struct err hs_account_withdraw(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    struct store_update *update = store_update_new(ctx, users_object(ctx, user));
    store_delete_range(update, LIT(""), LIT(""));
    hs_user_lane_enter(hs, user);
    struct err err = store_write(hs->store, ctx, &update, 1);
    forget_flags(hs, user);
    hs_user_lane_leave(hs, user);
    return err;
}

/* Reads, lets `change` alter, and writes a record, in the account's lane. */
struct change_input {
    uint32_t mask, flags;
    struct slice password_hash; /* ptr NULL = stays */
    struct slice only_when;     /* ptr not NULL: only while this is the password's hash */
    struct store_update *note;  /* written before the record; NULL = none */
};

static struct err change_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 const struct change_input *change)
{
    struct account account;
    bool found = false;
    TRY(load(hs, ctx, user, &account, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no such account.");
    }
    if (change->only_when.ptr && !slice_eq(change->only_when, account.password_hash)) {
        return OK;
    }
    account.flags = (account.flags & ~change->mask) | (change->flags & change->mask);
    if (change->password_hash.ptr) {
        account.password_hash = change->password_hash;
    }
    struct store_update *update = store_update_new(ctx, users_object(ctx, user));
    struct store_update *updates[] = {update, change->note};
    store_put(update, LIT("a"), encode(ctx, &account));
    if (change->note) {
        updates[0] = change->note;
        updates[1] = update;
    }
    return store_write(hs->store, ctx, updates, change->note ? 2 : 1);
}

static struct err change_account(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 const struct change_input *change)
{
    hs_user_lane_enter(hs, user);
    struct err err = change_in_lane(hs, ctx, user, change);
    forget_flags(hs, user);
    hs_user_lane_leave(hs, user);
    return err;
}

struct err hs_account_check_password(struct hs *hs, struct ctx *ctx, uint64_t user,
                                     struct slice password, bool *right_out)
{
    struct account account = {0};
    bool found = false;
    *right_out = false;
    if (password.len > PASSWORD_BYTES_MAX) {
        return OK;
    }
    if (user != 0) {
        TRY(load(hs, ctx, user, &account, &found));
    }
    TRY(password_check(hs->users->gate, password, account.password_hash, right_out));
    if (*right_out && password_is_stale(hs->users->gate, account.password_hash)) {
        struct change_input change = {.only_when = account.password_hash};
        TRY(password_hash(hs->users->gate, ctx->arena, password, &change.password_hash));
        TRY(change_account(hs, ctx, user, &change));
    }
    return OK;
}

struct err hs_account_set_password(struct hs *hs, struct ctx *ctx, uint64_t user,
                                   struct slice password)
{
    struct change_input change = {0};
    TRY(password_hash(hs->users->gate, ctx->arena, password, &change.password_hash));
    return change_account(hs, ctx, user, &change);
}

struct err hs_account_set_flags(struct hs *hs, struct ctx *ctx, uint64_t user, uint32_t mask,
                                uint32_t flags)
{
    return change_account(hs, ctx, user, &(struct change_input){.mask = mask, .flags = flags});
}

/* --- the end of an account --- */

/* be64 user -> nothing, until the account is ended whole. */
static const struct store_object deactivations = {STORE_SERVER, {"deactivations", 13}};

static struct err forget_profile(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    struct store_update *update = store_update_new(ctx, users_object(ctx, user));
    struct store_update *done = store_update_new(ctx, deactivations);
    struct store_update *updates[] = {update, done};
    store_delete_range(update, LIT("p"), LIT("q"));
    store_delete(done, store_id_u64(ctx->arena, user));
    hs_user_lane_enter(hs, user);
    struct err err = store_write(hs->store, ctx, updates, COUNT_OF(updates));
    hs_user_lane_leave(hs, user);
    return err;
}

/* What goes with an account that is marked already. Each part may be repeated. */
static struct err clear_out(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    struct slice user_id;
    TRY(hs_user_id_of(hs, ctx, user, &user_id));
    TRY(hs_devices_delete_others(hs, ctx, user, (struct slice){0}));
    for (size_t i = 0; i < HOOKS_MAX && hs->users->on_deactivated[i]; i++) {
        TRY(hs->users->on_deactivated[i](hs, ctx, user, user_id));
    }
    return forget_profile(hs, ctx, user);
}

struct err hs_account_deactivate(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 enum account_erasure erasure)
{
    struct change_input change = {
        .mask = ACCOUNT_DEACTIVATED | ACCOUNT_ADMIN | ACCOUNT_ERASED,
        .flags = ACCOUNT_DEACTIVATED | (erasure == ACCOUNT_ERASE ? ACCOUNT_ERASED : 0),
        .password_hash = LIT(""),
        .note = store_update_new(ctx, deactivations),
    };
    store_put(change.note, store_id_u64(ctx->arena, user), (struct slice){0});
    TRY(change_account(hs, ctx, user, &change));
    return clear_out(hs, ctx, user);
}

/* A note without a mark on the account: the server stopped between the two. */
static struct err drop_note(struct hs *hs, struct ctx *ctx, struct slice key)
{
    struct store_update *update = store_update_new(ctx, deactivations);
    store_delete(update, key);
    return store_write(hs->store, ctx, &update, 1);
}

struct err hs_deactivations_finish(struct hs *hs, struct ctx *ctx)
{
    struct store_rows rows;
    TRY(store_read_range(hs->store, ctx, deactivations, (struct store_range){0}, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct account account;
        struct unpack key = unpack_of(rows.rows[i].key);
        bool found = false;
        TRY(load(hs, ctx, unpack_be64(&key), &account, &found));
        if (!found || !(account.flags & ACCOUNT_DEACTIVATED)) {
            TRY(drop_note(hs, ctx, rows.rows[i].key));
            continue;
        }
        struct err err = clear_out(hs, ctx, account.user);
        if (err.code != 0) { /* the server starts all the same; the next start tries again */
            log_warn(hs->log, "deactivation_not_finished", .user = account.user_id,
                     .err = slice_of(err.text));
        } else {
            log_info(hs->log, "deactivation_finished", .user = account.user_id);
        }
    }
    return OK;
}

void hs_on_deactivated(struct hs *hs, hs_deactivated_fn fn)
{
    size_t i = 0;
    while (i < HOOKS_MAX && hs->users->on_deactivated[i]) {
        i++;
    }
    ASSERT(i < HOOKS_MAX);
    hs->users->on_deactivated[i] = fn;
}
