/* Keys of other servers: a cache over the store, filled by fetching. One fetch runs for a server at
 * a time, and one that failed or brought nothing new is not repeated at once. What is known is
 * never lost by an answer that does not mention it. Spec: server-server, "Retrieving server keys".
 */
#include "federation/keys_priv.h"

#include "crypto/base64.h"
#include "crypto/sha256.h"
#include "crypto/signing_key.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

enum {
    SERVERS_CACHED_MAX = 20000,
    KEYS_CACHED_MAX = 100000, /* of all servers: 18 MB */
    KEPT_BYTES_MAX = 1 << 14, /* of an answer that is kept for others, with each of its keys */
    PAUSE_MS_MIN = 5000,      /* between fetches for one server that bring nothing */
    PAUSE_MS_MAX = 300000,
    FLIGHT_WAIT_MS = 30000,
};

/* A key in memory; its id is kept in place. */
struct cached_key {
    struct ed25519_public public_key;
    int64_t valid_until_ms;
    uint8_t id_len;
    bool is_old;
    char id[SERVER_KEY_ID_BYTES_MAX];
};

struct cached_server {
    struct cached_key *keys;
    size_t count;
    unsigned refs;     /* threads that fetch or wait */
    bool loaded;       /* what the store has is here */
    bool refreshing;   /* a refresh is queued or runs */
    bool in_flight;    /* a thread fetches */
    unsigned failures; /* fetches in a row without an answer */
    int64_t pause_until_ms, fetched_ms;
};

struct fed_keys {
    pthread_mutex_t lock; /* leaf: nothing is called that waits */
    pthread_cond_t landed;
    struct map *servers;
    size_t key_count; /* of all of them */
};

struct fed_keys *fed_keys_new(void)
{
    struct fed_keys *keys = mem_alloc(sizeof *keys);
    pthread_condattr_t attributes;
    pthread_mutex_init(&keys->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&keys->landed, &attributes);
    pthread_condattr_destroy(&attributes);
    keys->servers = map_new();
    return keys;
}

static void free_server(struct cached_server *server)
{
    mem_free(server->keys);
    mem_free(server);
}

static void free_servers(struct fed_keys *keys)
{
    struct slice name;
    uint64_t value = 0;
    for (size_t at = 0; map_next(keys->servers, &at, &name, &value);) {
        free_server((struct cached_server *)(uintptr_t)value);
    }
    map_free(&keys->servers);
}

void fed_keys_free(struct fed_keys **pointer)
{
    struct fed_keys *keys = *pointer;
    if (!keys) {
        return;
    }
    free_servers(keys);
    pthread_cond_destroy(&keys->landed);
    pthread_mutex_destroy(&keys->lock);
    mem_free(keys);
    *pointer = NULL;
}

/* --- in memory; with the lock held --- */

static struct cached_key *find_key(const struct cached_server *server, struct slice id)
{
    for (size_t i = 0; server && i < server->count; i++) {
        if (slice_eq((struct slice){server->keys[i].id, server->keys[i].id_len}, id)) {
            return &server->keys[i];
        }
    }
    return NULL;
}

/* Newer answers replace what they mention; one that has run out already (a wrong clock, or an old
 * answer of a notary) shortens nothing. */
static bool merge_key(struct fed_keys *keys, struct cached_server *server,
                      const struct server_key *from, bool may_shorten)
{
    struct cached_key *key = find_key(server, from->id);
    if (!key) {
        if (server->count == SERVER_KEYS_MAX) {
            return false;
        }
        server->keys = mem_grow(server->keys, (server->count + 1) * sizeof *server->keys);
        key = &server->keys[server->count++];
        keys->key_count++;
        *key = (struct cached_key){.id_len = (uint8_t)from->id.len};
        memcpy(key->id, from->id.ptr, from->id.len);
    } else if (!may_shorten && from->valid_until_ms <= key->valid_until_ms) {
        return false;
    }
    key->public_key = from->public_key;
    key->valid_until_ms = from->valid_until_ms;
    key->is_old = from->is_old;
    return true;
}

/* When the cache is full, it starts again with those that are in use; the store has the rest. */
static void make_room(struct fed_keys *keys)
{
    if (map_count(keys->servers) < SERVERS_CACHED_MAX && keys->key_count < KEYS_CACHED_MAX) {
        return;
    }
    struct map *kept = map_new();
    struct slice name;
    uint64_t value = 0;
    keys->key_count = 0;
    for (size_t at = 0; map_next(keys->servers, &at, &name, &value);) {
        struct cached_server *server = (struct cached_server *)(uintptr_t)value;
        if (server->refs) {
            keys->key_count += server->count;
            map_set_ptr(kept, name, server);
        } else {
            free_server(server);
        }
    }
    map_free(&keys->servers);
    keys->servers = kept;
}

static struct cached_server *get_server(struct fed_keys *keys, struct slice name)
{
    struct cached_server *server = map_get_ptr(keys->servers, name);
    if (!server) {
        make_room(keys);
        server = mem_alloc(sizeof *server);
        map_set_ptr(keys->servers, name, server);
    }
    return server;
}

static bool is_good(const struct cached_key *key, const struct fed_key_query *query)
{
    if (!key || key->valid_until_ms < query->ts_ms) {
        return false;
    }
    return query->use == FED_KEY_EVENT || !key->is_old;
}

/* --- the store --- */

/* A name may be as long as the id of an object alone, so the longest are called by their hash. */
enum { SERVER_BYTES_MAX = STORE_ID_BYTES_MAX - (sizeof "keys:" - 1) };

/* (SERVER, "keys:" + server): "f" -> when they were fetched; "k" key id -> the key; "a" key id ->
 * the newest answer that lists it, as canonical JSON with its signatures, for those who ask this
 * server as a notary; none when it is too large: servers that are made up cost nothing. */
struct store_object fed_keys_object(struct ctx *ctx, struct slice server)
{
    if (server.len > SERVER_BYTES_MAX) {
        struct sha256 hash = sha256_of(server);
        struct slice name = base64_encode(ctx->arena, sha256_slice(&hash), BASE64_URL);
        return (struct store_object){STORE_SERVER, arena_concat(ctx->arena, LIT("keys="), name)};
    }
    return (struct store_object){STORE_SERVER, arena_concat(ctx->arena, LIT("keys:"), server)};
}

static struct slice encode_key(struct arena *arena, const struct server_key *key)
{
    struct buf out;
    buf_init_arena(&out, arena, 256);
    pack_bytes(&out, (struct slice){(const char *)key->public_key.bytes, ED25519_PUBLIC_BYTES});
    pack_i64(&out, key->valid_until_ms);
    pack_u64(&out, key->is_old);
    return buf_slice(&out);
}

static struct slice encode_time(struct arena *arena, int64_t time_ms)
{
    struct buf out;
    buf_init_arena(&out, arena, 16);
    pack_i64(&out, time_ms);
    return buf_slice(&out);
}

static bool decode_key(const struct store_row *row, struct server_key *key)
{
    struct unpack in = unpack_of(row->value);
    struct slice bytes = unpack_bytes(&in);
    *key = (struct server_key){.id = slice_from(row->key, 1)};
    key->valid_until_ms = unpack_i64(&in);
    key->is_old = unpack_u64(&in) != 0;
    if (in.bad || bytes.len != ED25519_PUBLIC_BYTES || key->id.len > SERVER_KEY_ID_BYTES_MAX) {
        return false;
    }
    memcpy(key->public_key.bytes, bytes.ptr, bytes.len);
    return true;
}

static struct err load(struct fed *fed, struct ctx *ctx, struct slice name)
{
    struct store_rows rows;
    struct store_range range = {.from = LIT("f"), .to = LIT("l")};
    TRY(store_read_range(fed->hs->store, ctx, fed_keys_object(ctx, name), range, &rows));
    pthread_mutex_lock(&fed->keys->lock);
    struct cached_server *server = get_server(fed->keys, name);
    for (size_t i = 0; i < rows.count; i++) {
        struct server_key key;
        if (rows.rows[i].key.ptr[0] == 'f') {
            struct unpack in = unpack_of(rows.rows[i].value);
            server->fetched_ms = unpack_i64(&in);
        } else if (decode_key(&rows.rows[i], &key)) {
            merge_key(fed->keys, server, &key, false);
        }
    }
    server->loaded = true;
    pthread_mutex_unlock(&fed->keys->lock);
    return OK;
}

static struct err ensure_loaded(struct fed *fed, struct ctx *ctx, struct slice name)
{
    pthread_mutex_lock(&fed->keys->lock);
    const struct cached_server *server = map_get_ptr(fed->keys->servers, name);
    bool loaded = server && server->loaded;
    pthread_mutex_unlock(&fed->keys->lock);
    return loaded ? OK : load(fed, ctx, name);
}

struct err fed_keys_take(struct fed *fed, struct ctx *ctx, const struct fed_keys_answer *answer)
{
    struct store_update *update = store_update_new(ctx, fed_keys_object(ctx, answer->server));
    struct slice text = json_canonical(ctx->arena, answer->object);
    bool has_run_out = answer->keys.valid_until_ms < now_wall_ms(ctx->now);
    bool changed = false;
    TRY(ensure_loaded(fed, ctx, answer->server));
    pthread_mutex_lock(&fed->keys->lock);
    struct cached_server *server = get_server(fed->keys, answer->server);
    for (size_t i = 0; i < answer->keys.count; i++) {
        const struct server_key *key = &answer->keys.keys[i];
        if (merge_key(fed->keys, server, key, answer->is_direct && !has_run_out)) {
            store_put(update, arena_concat(ctx->arena, LIT("k"), key->id),
                      encode_key(ctx->arena, key));
            struct slice row = arena_concat(ctx->arena, LIT("a"), key->id);
            if (text.len <= KEPT_BYTES_MAX) {
                store_put(update, row, text);
            } else {
                store_delete(update, row);
            }
            changed = true;
        }
    }
    if (answer->is_direct) {
        server->fetched_ms = now_wall_ms(ctx->now);
        store_put(update, LIT("f"), encode_time(ctx->arena, server->fetched_ms));
    }
    pthread_mutex_unlock(&fed->keys->lock);
    return changed ? store_write(fed->hs->store, ctx, &update, 1) : OK;
}

/* --- asking --- */

/* This server's own keys need no store. */
static bool find_own(const struct hs *hs, const struct fed_key_query *query,
                     struct ed25519_public *key_out)
{
    size_t count = 0;
    const struct signing_key_old *olds = signing_key_olds(hs->signing_key, &count);
    if (slice_eq(query->key_id, signing_key_id(hs->signing_key))) {
        *key_out = signing_key_public(hs->signing_key);
        return true;
    }
    for (size_t i = 0; i < count && query->use == FED_KEY_EVENT; i++) {
        if (slice_eq(query->key_id, olds[i].key_id) && olds[i].expired_ms >= query->ts_ms) {
            *key_out = olds[i].public_key;
            return true;
        }
    }
    return false;
}

static void wait_for_flight(struct fed_keys *keys, const struct cached_server *server)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += FLIGHT_WAIT_MS / 1000;
    int failed = 0;
    while (server->in_flight && !failed) {
        failed = pthread_cond_timedwait(&keys->landed, &keys->lock, &until);
    }
}

/* True: the caller fetches, and must land. False: somebody did meanwhile, or it is too early. */
static bool take_off(struct fed *fed, struct ctx *ctx, struct slice name)
{
    struct fed_keys *keys = fed->keys;
    pthread_mutex_lock(&keys->lock);
    struct cached_server *server = get_server(keys, name);
    server->refs++;
    bool waits = server->in_flight;
    if (waits) {
        wait_for_flight(keys, server);
    }
    bool mine = !waits && server->pause_until_ms <= now_mono_ms(ctx->now);
    server->in_flight |= mine;
    server->refs -= mine ? 0 : 1;
    pthread_mutex_unlock(&keys->lock);
    return mine;
}

/* A server that gave no answer is left alone longer each time; one that answered without the key
 * that was looked for, only for a moment. */
static void land(struct fed *fed, struct ctx *ctx, struct slice name, struct err fetched,
                 bool found)
{
    struct fed_keys *keys = fed->keys;
    pthread_mutex_lock(&keys->lock);
    struct cached_server *server = get_server(keys, name);
    server->failures = fetched.code ? server->failures + 1 : 0;
    int64_t pause_ms = (int64_t)PAUSE_MS_MIN << (server->failures < 8 ? server->failures : 8);
    pause_ms = pause_ms < PAUSE_MS_MAX ? pause_ms : PAUSE_MS_MAX;
    server->pause_until_ms = found ? 0 : now_mono_ms(ctx->now) + pause_ms;
    server->in_flight = false;
    server->refs--;
    pthread_cond_broadcast(&keys->landed);
    pthread_mutex_unlock(&keys->lock);
}

/* A key that is used past half of its time is fetched again by the way, so that it does not run out
 * while the server happens to be away. */
struct refresh {
    struct fed *fed;
    struct slice server;
    struct arena *arena;
};

static bool is_due(struct cached_server *server, const struct cached_key *key, struct ctx *ctx)
{
    int64_t life_ms = key->valid_until_ms - server->fetched_ms;
    bool due = !server->in_flight && !server->refreshing &&
               server->pause_until_ms <= now_mono_ms(ctx->now) &&
               now_wall_ms(ctx->now) > server->fetched_ms + life_ms / 2;
    server->refreshing |= due;
    return due;
}

static void run_refresh(void *arg)
{
    struct refresh *refresh = arg;
    struct fed *fed = refresh->fed;
    struct ctx ctx = {
        .arena = refresh->arena, .now = fed->hs->now, .log = fed->hs->log, .may_wait = true};
    if (take_off(fed, &ctx, refresh->server)) {
        struct err err = fed_keys_ask_server(fed, &ctx, refresh->server);
        land(fed, &ctx, refresh->server, err, !err.code);
    }
    pthread_mutex_lock(&fed->keys->lock);
    get_server(fed->keys, refresh->server)->refreshing = false;
    pthread_mutex_unlock(&fed->keys->lock);
    ctx_finish(&ctx);
    arena_free(&refresh->arena);
    mem_free(refresh);
}

static void refresh_later(struct fed *fed, struct slice server)
{
    struct refresh *refresh = mem_alloc(sizeof *refresh);
    refresh->fed = fed;
    refresh->arena = arena_new();
    refresh->server = arena_copy(refresh->arena, server);
    if (!fed->hs->waiters || !workers_submit(fed->hs->waiters, 0, run_refresh, refresh)) {
        arena_free(&refresh->arena);
        mem_free(refresh);
    }
}

struct err fed_key_find(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query,
                        struct ed25519_public *key_out, bool *found_out)
{
    if (hs_is_local(fed->hs, query->server)) {
        *found_out = find_own(fed->hs, query, key_out);
        return OK;
    }
    TRY(ensure_loaded(fed, ctx, query->server));
    pthread_mutex_lock(&fed->keys->lock);
    struct cached_server *server = map_get_ptr(fed->keys->servers, query->server);
    const struct cached_key *key = find_key(server, query->key_id);
    *found_out = is_good(key, query);
    if (*found_out) {
        *key_out = key->public_key;
    }
    bool due = *found_out && query->use == FED_KEY_REQUEST && is_due(server, key, ctx);
    pthread_mutex_unlock(&fed->keys->lock);
    if (due) {
        refresh_later(fed, query->server);
    }
    return OK;
}

bool fed_keys_may_fetch(struct fed *fed, struct ctx *ctx, struct slice name)
{
    pthread_mutex_lock(&fed->keys->lock);
    const struct cached_server *server = map_get_ptr(fed->keys->servers, name);
    bool may = !server || server->in_flight || server->pause_until_ms <= now_mono_ms(ctx->now);
    pthread_mutex_unlock(&fed->keys->lock);
    return may;
}

struct err fed_keys_get_by(struct fed *fed, struct ctx *ctx, const struct fed_keys_want *want,
                           struct ed25519_public *key_out, bool *found_out)
{
    const struct fed_key_query *query = want->query;
    TRY(fed_key_find(fed, ctx, query, key_out, found_out));
    if (*found_out || hs_is_local(fed->hs, query->server) ||
        !fed_keys_may_fetch(fed, ctx, query->server)) {
        return OK;
    }
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "a key must be fetched");
    }
    if (!take_off(fed, ctx, query->server)) {
        return fed_key_find(fed, ctx, query, key_out, found_out);
    }
    struct err err = want->fetch(fed, ctx, query);
    struct err found = fed_key_find(fed, ctx, query, key_out, found_out);
    land(fed, ctx, query->server, err, !found.code && *found_out);
    if (err.code) {
        log_debug(ctx->log, "keys_not_fetched", .req = ctx->req, .dest = query->server,
                  .err = slice_of(err.text));
    }
    return found;
}

struct err fed_key_get(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query,
                       struct ed25519_public *key_out, bool *found_out)
{
    struct fed_keys_want want = {query, fed_keys_fetch};
    return fed_keys_get_by(fed, ctx, &want, key_out, found_out);
}
