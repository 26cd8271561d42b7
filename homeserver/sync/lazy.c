#include "homeserver/sync/lazy.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <string.h>

/* A cache of two generations: what is asked for moves to the young one; when that is full the old
 * one is dropped. */
struct sync_lazy {
    pthread_mutex_t lock;    /* leaf */
    struct map *young, *old; /* packed key -> position */
    size_t half_max;
};

enum { PACKED_MAX = 8 * 4 };

/* Device ids enter as their hash: keys stay short. */
static struct slice pack_key(char packed[PACKED_MAX], const struct sync_lazy_key *key)
{
    uint64_t device = slice_hash(key->device_id);
    uint64_t numbers[4] = {key->user, device, key->room, (uint64_t)key->member_event};
    memcpy(packed, numbers, sizeof numbers);
    return (struct slice){packed, sizeof numbers};
}

struct sync_lazy *sync_lazy_new(size_t entries_max)
{
    struct sync_lazy *lazy = mem_alloc(sizeof *lazy);
    pthread_mutex_init(&lazy->lock, NULL);
    lazy->young = map_new();
    lazy->old = map_new();
    lazy->half_max = entries_max / 2 + 1;
    return lazy;
}

void sync_lazy_free(struct sync_lazy **lazy)
{
    if (*lazy == NULL) {
        return;
    }
    map_free(&(*lazy)->young);
    map_free(&(*lazy)->old);
    pthread_mutex_destroy(&(*lazy)->lock);
    mem_free(*lazy);
    *lazy = NULL;
}

static void remember(struct sync_lazy *lazy, struct slice packed, uint64_t pos)
{
    if (map_count(lazy->young) >= lazy->half_max) {
        map_free(&lazy->old);
        lazy->old = lazy->young;
        lazy->young = map_new();
    }
    map_set(lazy->young, packed, pos);
}

static bool find(struct sync_lazy *lazy, struct slice packed, uint64_t *pos_out)
{
    if (map_get(lazy->young, packed, pos_out)) {
        return true;
    }
    if (!map_get(lazy->old, packed, pos_out)) {
        return false;
    }
    remember(lazy, packed, *pos_out);
    return true;
}

bool sync_lazy_has(struct sync_lazy *lazy, const struct sync_lazy_key *key, uint64_t since)
{
    char bytes[PACKED_MAX];
    struct slice packed = pack_key(bytes, key);
    uint64_t pos = 0;
    pthread_mutex_lock(&lazy->lock);
    bool has = find(lazy, packed, &pos) && pos <= since;
    pthread_mutex_unlock(&lazy->lock);
    return has;
}

void sync_lazy_sent(struct sync_lazy *lazy, const struct sync_lazy_key *key, uint64_t upto)
{
    char bytes[PACKED_MAX];
    struct slice packed = pack_key(bytes, key);
    uint64_t pos = 0;
    pthread_mutex_lock(&lazy->lock);
    /* The earliest answer counts: a client that got it may go on from there. */
    if (!find(lazy, packed, &pos) || pos > upto) {
        remember(lazy, packed, upto);
    }
    pthread_mutex_unlock(&lazy->lock);
}
