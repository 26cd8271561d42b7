/* What this server knows about the health of others. After a failure a server is left alone, longer
 * each time; an answer or a request of it ends that. */
#include "federation/fed_priv.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/room/glob.h"

#include <pthread.h>
#include <sys/random.h>

enum {
    PEERS_MAX = 100000,
    PAUSE_MS_MIN = 10000,
    PAUSE_MS_MAX = 24 * 3600 * 1000,
};

struct peer {
    int64_t until_ms; /* wall; left alone until then */
    int64_t pause_ms; /* the last pause */
};

struct fed_peers {
    pthread_mutex_t lock; /* leaf */
    struct map *down;     /* server -> struct peer; those that failed last */
};

struct fed_peers *fed_peers_new(void)
{
    struct fed_peers *peers = mem_alloc(sizeof *peers);
    pthread_mutex_init(&peers->lock, NULL);
    peers->down = map_new();
    return peers;
}

static void clear(struct fed_peers *peers)
{
    struct slice name;
    uint64_t value = 0;
    for (size_t at = 0; map_next(peers->down, &at, &name, &value);) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&peers->down);
}

void fed_peers_free(struct fed_peers **pointer)
{
    struct fed_peers *peers = *pointer;
    if (!peers) {
        return;
    }
    clear(peers);
    pthread_mutex_destroy(&peers->lock);
    mem_free(peers);
    *pointer = NULL;
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

static void note_failure(struct fed_peers *peers, struct slice server, int64_t now_ms)
{
    struct peer *peer = map_get_ptr(peers->down, server);
    if (!peer && map_count(peers->down) >= PEERS_MAX) {
        return;
    }
    if (!peer) {
        peer = mem_alloc(sizeof *peer);
        map_set_ptr(peers->down, server, peer);
    }
    if (peer->until_ms <= now_ms) { /* several that failed at once count once */
        peer->pause_ms = next_pause(peer->pause_ms);
        peer->until_ms = now_ms + peer->pause_ms;
    }
}

static void note_life(struct fed_peers *peers, struct slice server)
{
    struct peer *peer = map_get_ptr(peers->down, server);
    if (peer) {
        map_remove(peers->down, server);
        mem_free(peer);
    }
}

void fed_peer_note(struct fed *fed, struct ctx *ctx, struct slice server,
                   enum fed_peer_result result)
{
    pthread_mutex_lock(&fed->peers->lock);
    if (result == FED_PEER_FAILED) {
        note_failure(fed->peers, server, now_wall_ms(ctx->now));
    } else {
        note_life(fed->peers, server);
    }
    pthread_mutex_unlock(&fed->peers->lock);
}

void fed_peer_alive(struct fed *fed, struct slice server)
{
    pthread_mutex_lock(&fed->peers->lock);
    note_life(fed->peers, server);
    pthread_mutex_unlock(&fed->peers->lock);
}

bool fed_peer_is_down(struct fed *fed, struct slice server, int64_t *until_out)
{
    pthread_mutex_lock(&fed->peers->lock);
    const struct peer *peer = map_get_ptr(fed->peers->down, server);
    int64_t until_ms = peer ? peer->until_ms : 0;
    pthread_mutex_unlock(&fed->peers->lock);
    if (until_out) {
        *until_out = until_ms;
    }
    return until_ms > now_wall_ms(fed->hs->now);
}
