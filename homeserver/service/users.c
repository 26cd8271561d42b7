#include "homeserver/service/profile_log.h"
#include "homeserver/service/users_priv.h"

#include "homeserver/base/mem.h"

#include <string.h>

/* In object (STORE_USER_IDS, ""): "i" user id -> number, "n" number -> user id. */
enum { KEY_BY_NUMBER = 'n' };

struct user_name {
    uint64_t number;
    size_t len;
    char id[];
};

struct hs_users *hs_users_new(struct hs *hs)
{
    struct hs_users *users = mem_alloc(sizeof *users);
    static const enum password_cost costs[] = {
        [CONF_PASSWORD_COST_LOWEST] = PASSWORD_COST_LOWEST,
        [CONF_PASSWORD_COST_INTERACTIVE] = PASSWORD_COST_INTERACTIVE,
        [CONF_PASSWORD_COST_MODERATE] = PASSWORD_COST_MODERATE,
    };
    users->gate =
        password_gate_new(costs[hs->conf->password_hash_cost],
                          (size_t)hs->conf->limits_password_checks, HS_PASSWORD_WAITING_MAX);
    pthread_rwlock_init(&users->lock, NULL);
    users->by_id = map_new();
    users->by_number = map_new();
    users->flags = map_new();
    users->profile_log = profile_log_new(hs->positions ? positions_published(hs->positions) : 0);
    return users;
}

static void drop_names(struct hs_users *users)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(users->by_number, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&users->by_id);
    map_free(&users->by_number);
}

void hs_users_free(struct hs_users **users)
{
    if (*users) {
        drop_names(*users);
        map_free(&(*users)->flags);
        profile_log_free(&(*users)->profile_log);
        pthread_rwlock_destroy(&(*users)->lock);
        password_gate_free(&(*users)->gate);
        mem_free(*users);
        *users = NULL;
    }
}

/* --- numbers --- */

static struct store_object ids_object(void)
{
    return (struct store_object){.kind = STORE_USER_IDS};
}

static struct slice key_of_id(struct ctx *ctx, struct slice user_id)
{
    return arena_concat(ctx->arena, LIT("i"), user_id);
}

static struct slice key_of_number(struct ctx *ctx, uint64_t number)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 16);
    buf_add_byte(&key, KEY_BY_NUMBER);
    pack_be64(&key, number);
    return buf_slice(&key);
}

static void remember(struct hs_users *users, struct slice user_id, uint64_t number)
{
    struct user_name *name = mem_alloc_raw(sizeof *name + user_id.len);
    name->number = number;
    name->len = user_id.len;
    memcpy(name->id, user_id.ptr, user_id.len);
    pthread_rwlock_wrlock(&users->lock);
    if (map_count(users->by_number) >= USERS_CACHED_MAX) {
        drop_names(users);
        users->by_id = map_new();
        users->by_number = map_new();
    }
    if (map_get_ptr(users->by_number, map_key_u64(&number))) {
        mem_free(name);
    } else {
        map_set_ptr(users->by_number, map_key_u64(&number), name);
        map_set_ptr(users->by_id, (struct slice){name->id, name->len}, name);
    }
    pthread_rwlock_unlock(&users->lock);
}

static bool remembered_number(struct hs_users *users, struct slice user_id, uint64_t *number_out)
{
    pthread_rwlock_rdlock(&users->lock);
    const struct user_name *name = map_get_ptr(users->by_id, user_id);
    *number_out = name ? name->number : 0;
    pthread_rwlock_unlock(&users->lock);
    return *number_out != 0;
}

struct err hs_user_find(struct hs *hs, struct ctx *ctx, struct slice user_id, uint64_t *number_out,
                        bool *found_out)
{
    struct slice value;
    *found_out = remembered_number(hs->users, user_id, number_out);
    if (*found_out || user_id.len == 0 || user_id.len > STORE_ID_BYTES_MAX) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, ids_object(), key_of_id(ctx, user_id), &value, found_out));
    if (*found_out) {
        struct unpack in = unpack_of(value);
        *number_out = unpack_u64(&in);
        TRY(unpack_check(&in));
        remember(hs->users, user_id, *number_out);
    }
    return OK;
}

/* Numbers are given out by counting up from the highest that is stored. */
static struct err take_number(struct hs *hs, struct ctx *ctx, uint64_t *number_out)
{
    if (atomic_load(&hs->users->next_number) == 0) {
        struct store_rows rows;
        uint64_t expected = 0;
        uint64_t next = 1;
        TRY(store_read_range(
            hs->store, ctx, ids_object(),
            (struct store_range){
                .from = LIT("n"), .to = LIT("o"), .limit = 1, .order = STORE_REVERSE},
            &rows));
        if (rows.count > 0) {
            struct unpack in = unpack_of(slice_from(rows.rows[0].key, 1));
            next = unpack_be64(&in) + 1;
            TRY(unpack_check(&in));
        }
        atomic_compare_exchange_strong(&hs->users->next_number, &expected, next);
    }
    *number_out = atomic_fetch_add(&hs->users->next_number, 1);
    return OK;
}

struct err hs_user_intern(struct hs *hs, struct ctx *ctx, struct slice user_id,
                          uint64_t *number_out)
{
    bool found = false;
    ASSERT(user_id.len > 0 && user_id.len <= STORE_ID_BYTES_MAX);
    TRY(hs_user_find(hs, ctx, user_id, number_out, &found));
    if (found) {
        return OK;
    }
    struct store_update *update = store_update_new(ctx, ids_object());
    struct slice key = key_of_id(ctx, user_id);
    struct buf value;
    buf_init_arena(&value, ctx->arena, 16);
    TRY(take_number(hs, ctx, number_out));
    pack_u64(&value, *number_out);
    store_expect(update, key, (struct slice){0});
    store_put(update, key, buf_slice(&value));
    store_put(update, key_of_number(ctx, *number_out), user_id);
    struct err err = store_write(hs->store, ctx, &update, 1);
    if (err.code == ERR_CONFLICT) { /* another job met the user in the same moment */
        TRY(hs_user_find(hs, ctx, user_id, number_out, &found));
        return found ? OK : err_make(ERR_CORRUPT, "a user id is there and is not");
    }
    TRY(err);
    remember(hs->users, user_id, *number_out);
    return OK;
}

struct err hs_user_id_of(struct hs *hs, struct ctx *ctx, uint64_t number, struct slice *user_id_out)
{
    bool found = false;
    pthread_rwlock_rdlock(&hs->users->lock);
    const struct user_name *name = map_get_ptr(hs->users->by_number, map_key_u64(&number));
    if (name) {
        *user_id_out = arena_copy(ctx->arena, (struct slice){name->id, name->len});
        found = true;
    }
    pthread_rwlock_unlock(&hs->users->lock);
    if (found) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, ids_object(), key_of_number(ctx, number), user_id_out, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "a user number has no user id");
    }
    remember(hs->users, *user_id_out, number);
    return OK;
}

bool hs_user_is_local(const struct hs *hs, struct slice user_id)
{
    struct slice domain = slice_from(user_id, slice_find(user_id, ':') + 1);
    return user_id.len > 0 && user_id.ptr[0] == '@' && slice_eq(domain, hs->server_name);
}

/* --- rows and lanes --- */

struct store_object users_object(struct ctx *ctx, uint64_t user)
{
    return (struct store_object){STORE_USER, store_id_u64(ctx->arena, user)};
}

struct slice users_row_key(struct ctx *ctx, enum user_row row, struct slice name)
{
    char letter = (char)row;
    return arena_concat(ctx->arena, (struct slice){&letter, 1}, name);
}

struct err users_rows(struct hs *hs, struct ctx *ctx, uint64_t user, enum user_row row,
                      struct store_rows *rows_out)
{
    char after = (char)(row + 1);
    return store_read_range(hs->store, ctx, users_object(ctx, user),
                            (struct store_range){
                                .from = users_row_key(ctx, row, (struct slice){0}),
                                .to = arena_copy(ctx->arena, (struct slice){&after, 1}),
                            },
                            rows_out);
}

struct err hs_users_page(struct hs *hs, struct ctx *ctx, uint64_t from, size_t limit,
                         struct user_page *page_out)
{
    struct store_rows rows;
    const char after = KEY_BY_NUMBER + 1;
    struct store_range range = {
        .from = key_of_number(ctx, from), .to = {&after, 1}, .limit = limit};
    TRY(store_read_range(hs->store, ctx, ids_object(), range, &rows));
    *page_out = (struct user_page){
        .items = arena_array(ctx->arena, rows.count, sizeof *page_out->items), .count = rows.count};
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        page_out->items[i] =
            (struct numbered_user){.number = unpack_be64(&key),
                                   .user_id = rows.rows[i].value,
                                   .is_local = hs_user_is_local(hs, rows.rows[i].value)};
    }
    page_out->next =
        rows.count == limit && rows.count ? page_out->items[rows.count - 1].number + 1 : 0;
    return OK;
}

void hs_user_lane_enter(struct hs *hs, uint64_t user)
{
    workers_lane_enter(hs->workers, lane_of_user(user));
}

void hs_user_lane_leave(struct hs *hs, uint64_t user)
{
    workers_lane_leave(hs->workers, lane_of_user(user));
}

struct err hs_user_resolve_login(struct hs *hs, struct ctx *ctx, struct slice name,
                                 struct slice *user_id_out)
{
    struct user_id id = {name};
    uint64_t user = 0;
    uint32_t flags = 0;
    bool found = false;
    if (name.len == 0 || name.ptr[0] != '@') {
        id = ids_make_user(ctx->arena, name, ids_trust_server(hs->server_name));
    }
    if (!ids_is_user(id.s) || !hs_user_is_local(hs, id.s)) {
        return err_public(ERR_M_INVALID_USERNAME, "This is not a user name of this server.");
    }
    *user_id_out = id.s;
    TRY(hs_user_find(hs, ctx, id.s, &user, &found));
    if (found) {
        TRY(hs_account_flags(hs, ctx, user, &flags, &found));
    }
    if (!found) {
        char *folded = arena_cstr(ctx->arena, id.s);
        for (size_t i = 0; i < id.s.len && folded[i] != ':'; i++) {
            folded[i] = (char)(folded[i] >= 'A' && folded[i] <= 'Z' ? folded[i] + 32 : folded[i]);
        }
        user_id_out->ptr = folded;
    }
    return OK;
}
