/* What this server knows about others: whether they answered lately, and how many requests run to
 * each. After a failure a server is left alone, longer each time; an answer or a request of it ends
 * that. Pauses of some length are kept in the store, so that a restart does not disturb the dead.
 */
#include "federation/fed_priv.h"

#include "federation/device_lists.h"
#include "federation/outbox.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/room/glob.h"

#include <pthread.h>
#include <sys/random.h>
#include <time.h>

enum {
    PEERS_MAX = 100000,
    PAUSE_MS_MIN = 10000,
    PAUSE_MS_MAX = 24 * 3600 * 1000,
    PAUSE_MS_SAVED = 60000, /* shorter ones are not worth a row */
    RUNNING_MAX = 16,       /* requests to one server at once */
    WAITING_MAX = 16,       /* and those that wait for one of them to end */
    WAIT_MS_MAX = 10000,
};

/* (SERVER, "peers_down"): server -> until, pause. */
#define ROW_MS_MAX (INT64_C(30) * 24 * 3600 * 1000) /* after the end of the pause */
static const struct store_object down_rows = {STORE_SERVER, {"peers_down", 10}};

/* Exists while the server is left alone or is asked something. */
struct peer {
    int64_t until_ms; /* wall; left alone until then; 0 = it answered last */
    int64_t pause_ms; /* the last pause */
    bool saved;       /* has a row */
    unsigned running, waiting;
};

struct fed_peers {
    pthread_mutex_t lock; /* leaf */
    pthread_cond_t ended; /* a request to some server that others wait for */
    struct map *peers;    /* server -> struct peer */
};

struct fed_peers *fed_peers_new(void)
{
    struct fed_peers *peers = mem_alloc(sizeof *peers);
    pthread_condattr_t attributes;
    pthread_mutex_init(&peers->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&peers->ended, &attributes);
    pthread_condattr_destroy(&attributes);
    peers->peers = map_new();
    return peers;
}

void fed_peers_free(struct fed_peers **pointer)
{
    struct fed_peers *peers = *pointer;
    struct slice name;
    uint64_t value = 0;
    if (!peers) {
        return;
    }
    for (size_t at = 0; map_next(peers->peers, &at, &name, &value);) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&peers->peers);
    pthread_cond_destroy(&peers->ended);
    pthread_mutex_destroy(&peers->lock);
    mem_free(peers);
    *pointer = NULL;
}

/* Whom nothing is asked now, and who is not left alone, or had no pause as long as `pause_ms`, is
 * forgotten. */
static void forget_idle(struct fed_peers *peers, int64_t now_ms, int64_t pause_ms)
{
    struct map *kept = map_new();
    struct slice name;
    uint64_t value = 0;
    for (size_t at = 0; map_next(peers->peers, &at, &name, &value);) {
        struct peer *peer = (struct peer *)(uintptr_t)value;
        bool is_asked = peer->running || peer->waiting;
        if (is_asked || (peer->until_ms > now_ms && peer->pause_ms >= pause_ms)) {
            map_set_ptr(kept, name, peer);
        } else {
            mem_free(peer);
        }
    }
    map_free(&peers->peers);
    peers->peers = kept;
}

/* Anybody can make up names of servers that do not answer: those that were tried the least often
 * go first, so that they take nobody's place. */
static void make_room(struct fed_peers *peers, int64_t now_ms)
{
    static const int64_t steps_ms[] = {0, PAUSE_MS_SAVED, INT64_MAX};
    if (map_count(peers->peers) < PEERS_MAX) {
        return;
    }
    for (size_t i = 0; i < COUNT_OF(steps_ms) && map_count(peers->peers) > PEERS_MAX / 4 * 3; i++) {
        forget_idle(peers, now_ms, steps_ms[i]);
    }
}

/* With the lock held. */
static struct peer *get_peer(struct fed_peers *peers, struct slice server, int64_t now_ms)
{
    struct peer *peer = map_get_ptr(peers->peers, server);
    if (!peer) {
        make_room(peers, now_ms);
        peer = mem_alloc(sizeof *peer);
        map_set_ptr(peers->peers, server, peer);
    }
    return peer;
}

static void drop_if_unused(struct fed_peers *peers, struct slice server, struct peer *peer)
{
    if (!peer->until_ms && !peer->running && !peer->waiting) {
        map_remove(peers->peers, server);
        mem_free(peer);
    }
}

static bool matches(const struct conf_texts *patterns, struct slice server)
{
    for (size_t i = 0; i < patterns->count; i++) {
        if (glob_matches(patterns->items[i], server)) {
            return true;
        }
    }
    return false;
}

bool fed_peer_is_allowed(const struct fed *fed, struct slice server)
{
    const struct conf *conf = fed->hs->conf;
    bool listed = conf->federation_allow.count == 0 || matches(&conf->federation_allow, server);
    return conf->federation_enabled && listed && !matches(&conf->federation_deny, server);
}

/* Doubles with each failure, give or take a fifth, so that many servers do not come back at once.
 */
static int64_t next_pause(int64_t last_ms)
{
    uint32_t random = 0;
    int64_t pause_ms = last_ms ? last_ms * 2 : PAUSE_MS_MIN;
    pause_ms = pause_ms < PAUSE_MS_MAX ? pause_ms : PAUSE_MS_MAX;
    (void)!getrandom(&random, sizeof random, 0);
    return pause_ms * 4 / 5 + pause_ms * 2 / 5 * (random % 1000) / 1000;
}

/* --- rows --- */

static struct err save(struct fed *fed, struct ctx *ctx, struct slice server,
                       const struct peer *peer)
{
    struct store_update *update = store_update_new(ctx, down_rows);
    struct buf value;
    buf_init_arena(&value, ctx->arena, 32);
    if (peer->until_ms) {
        pack_i64(&value, peer->until_ms);
        pack_i64(&value, peer->pause_ms);
        store_put(update, server, buf_slice(&value));
    } else {
        store_delete(update, server);
    }
    return store_write(fed->hs->store, ctx, &update, 1);
}

/* A row that is missing or too many only costs a request: a failure is no reason to stop. */
static void save_quietly(struct fed *fed, struct slice server, const struct peer *peer)
{
    struct ctx ctx = {.arena = arena_new(), .now = fed->hs->now, .log = fed->hs->log};
    struct err err = save(fed, &ctx, server, peer);
    if (err.code) {
        log_warn(ctx.log, "peer_not_saved", .dest = server, .err = slice_of(err.text));
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
}

/* Rows of servers that nobody has asked for long are deleted. */
struct err fed_peers_load(struct fed *fed, struct ctx *ctx)
{
    struct store_rows rows;
    struct store_range all = {.limit = PEERS_MAX};
    struct store_update *update = store_update_new(ctx, down_rows);
    int64_t now_ms = now_wall_ms(ctx->now);
    TRY(store_read_range(fed->hs->store, ctx, down_rows, all, &rows));
    pthread_mutex_lock(&fed->peers->lock);
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(rows.rows[i].value);
        int64_t until_ms = unpack_i64(&in);
        int64_t pause_ms = unpack_i64(&in);
        if (in.bad || until_ms < now_ms - ROW_MS_MAX) {
            store_delete(update, rows.rows[i].key);
            continue;
        }
        *get_peer(fed->peers, rows.rows[i].key, now_ms) =
            (struct peer){.until_ms = until_ms, .pause_ms = pause_ms, .saved = true};
    }
    pthread_mutex_unlock(&fed->peers->lock);
    return store_write(fed->hs->store, ctx, &update, 1);
}

/* --- health --- */

static void note_failure(struct fed *fed, struct slice server, int64_t now_ms)
{
    struct fed_peers *peers = fed->peers;
    struct peer copy = {0};
    pthread_mutex_lock(&peers->lock);
    struct peer *peer = get_peer(peers, server, now_ms);
    bool counts = peer->until_ms <= now_ms; /* several that failed at once count once */
    if (counts) {
        peer->pause_ms = next_pause(peer->pause_ms);
        peer->until_ms = now_ms + peer->pause_ms;
        peer->saved = peer->saved || peer->pause_ms >= PAUSE_MS_SAVED;
        copy = *peer;
    }
    pthread_mutex_unlock(&peers->lock);
    if (copy.saved) {
        save_quietly(fed, server, &copy);
    }
}

static void note_life(struct fed *fed, struct slice server)
{
    struct fed_peers *peers = fed->peers;
    pthread_mutex_lock(&peers->lock);
    struct peer *peer = map_get_ptr(peers->peers, server);
    bool was_down = peer && peer->until_ms;
    struct peer copy = peer ? *peer : (struct peer){0};
    if (was_down) {
        peer->until_ms = 0;
        peer->pause_ms = 0;
        peer->saved = false;
        drop_if_unused(peers, server, peer);
    }
    pthread_mutex_unlock(&peers->lock);
    if (copy.saved) {
        copy.until_ms = 0;
        save_quietly(fed, server, &copy);
    }
    if (was_down && fed->on_alive) {
        fed->on_alive(fed, server);
    }
}

/* What waits for the server goes out now. */
static void wake(struct fed *fed, struct slice server)
{
    if (fed->outbox) {
        outbox_peer_alive(fed->outbox, server);
    }
    fed_device_lists_alive(fed, server);
}

void fed_peer_note(struct fed *fed, struct ctx *ctx, struct slice server,
                   enum fed_peer_result result)
{
    if (result == FED_PEER_FAILED) {
        note_failure(fed, server, now_wall_ms(ctx->now));
    } else {
        note_life(fed, server);
    }
    if (result == FED_PEER_ANSWERED) {
        wake(fed, server);
    }
}

void fed_peer_alive(struct fed *fed, struct slice server)
{
    note_life(fed, server);
    wake(fed, server);
}

bool fed_peer_is_down(struct fed *fed, struct slice server, int64_t *until_out)
{
    pthread_mutex_lock(&fed->peers->lock);
    const struct peer *peer = map_get_ptr(fed->peers->peers, server);
    int64_t until_ms = peer ? peer->until_ms : 0;
    pthread_mutex_unlock(&fed->peers->lock);
    if (until_out) {
        *until_out = until_ms;
    }
    return until_ms > now_wall_ms(fed->hs->now);
}

/* --- requests under way --- */

static bool wait_for_turn(struct fed_peers *peers, struct peer *peer)
{
    struct timespec until;
    int failed = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WAIT_MS_MAX / 1000;
    peer->waiting++;
    while (peer->running >= RUNNING_MAX && !failed) {
        failed = pthread_cond_timedwait(&peers->ended, &peers->lock, &until);
    }
    peer->waiting--;
    return peer->running < RUNNING_MAX;
}

struct err fed_peer_enter(struct fed *fed, struct slice server)
{
    struct fed_peers *peers = fed->peers;
    pthread_mutex_lock(&peers->lock);
    struct peer *peer = get_peer(peers, server, now_wall_ms(fed->hs->now));
    bool may =
        peer->running < RUNNING_MAX || (peer->waiting < WAITING_MAX && wait_for_turn(peers, peer));
    if (may) {
        peer->running++;
    }
    pthread_mutex_unlock(&peers->lock);
    return may ? OK : err_make(ERR_UNAVAILABLE, "too many requests to the server are under way");
}

void fed_peer_leave(struct fed *fed, struct slice server)
{
    struct fed_peers *peers = fed->peers;
    pthread_mutex_lock(&peers->lock);
    struct peer *peer = map_get_ptr(peers->peers, server);
    ASSERT(peer);
    peer->running--;
    if (peer->waiting) {
        pthread_cond_broadcast(&peers->ended);
    }
    drop_if_unused(peers, server, peer);
    pthread_mutex_unlock(&peers->lock);
}
