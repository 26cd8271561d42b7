#include "homeserver/service/row_cache.h"

#include "homeserver/base/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { SHARDS = 16, BUCKETS = 512, ROW_SHARE = 8 };

struct cached_row {
    struct cached_row *bucket_next;
    struct cached_row *older, *newer;
    uint64_t room;
    int64_t number;
    size_t len;
    char bytes[];
};

struct shard {
    pthread_mutex_t lock;
    struct cached_row *buckets[BUCKETS];
    struct cached_row *oldest, *newest;
    size_t bytes;
};

struct row_cache {
    size_t shard_bytes_max;
    _Atomic uint64_t version; /* counts what was dropped */
    struct shard shards[SHARDS];
};

struct row_cache *row_cache_new(size_t bytes_max)
{
    struct row_cache *cache = mem_alloc(sizeof *cache);
    cache->shard_bytes_max = bytes_max / SHARDS;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&cache->shards[i].lock, NULL);
    }
    return cache;
}

void row_cache_free(struct row_cache **cache)
{
    if (!*cache) {
        return;
    }
    for (size_t i = 0; i < SHARDS; i++) {
        struct cached_row *row = (*cache)->shards[i].oldest;
        while (row) {
            struct cached_row *newer = row->newer;
            mem_free(row);
            row = newer;
        }
        pthread_mutex_destroy(&(*cache)->shards[i].lock);
    }
    mem_free(*cache);
    *cache = NULL;
}

static uint64_t hash_of(uint64_t room, int64_t number)
{
    return (room * UINT64_C(0x9E3779B97F4A7C15) + (uint64_t)number) * UINT64_C(0xD1B54A32D192ED03);
}

static struct shard *shard_of(struct row_cache *cache, uint64_t hash)
{
    return &cache->shards[hash >> 60];
}

/* Where the row hangs in its bucket, or the end of the bucket. */
static struct cached_row **place_of(struct shard *shard, uint64_t hash, uint64_t room,
                                    int64_t number)
{
    struct cached_row **at = &shard->buckets[(hash >> 40) % BUCKETS];
    while (*at && ((*at)->number != number || (*at)->room != room)) {
        at = &(*at)->bucket_next;
    }
    return at;
}

static size_t size_of(const struct cached_row *row)
{
    return sizeof *row + row->len;
}

static void remove_at(struct shard *shard, struct cached_row **at)
{
    struct cached_row *row = *at;
    *at = row->bucket_next;
    *(row->older ? &row->older->newer : &shard->oldest) = row->newer;
    *(row->newer ? &row->newer->older : &shard->newest) = row->older;
    shard->bytes -= size_of(row);
    mem_free(row);
}

static void insert_at(struct shard *shard, struct cached_row **at, struct cached_row *row)
{
    *at = row;
    row->bucket_next = NULL;
    row->newer = NULL;
    row->older = shard->newest;
    *(shard->newest ? &shard->newest->newer : &shard->oldest) = row;
    shard->newest = row;
    shard->bytes += size_of(row);
}

static struct cached_row *row_of(uint64_t room, int64_t number, struct slice bytes)
{
    struct cached_row *row = mem_alloc_raw(sizeof *row + bytes.len);
    *row = (struct cached_row){.room = room, .number = number, .len = bytes.len};
    memcpy(row->bytes, bytes.ptr, bytes.len);
    return row;
}

bool row_cache_get(struct row_cache *cache, struct arena *arena, uint64_t room, int64_t number,
                   struct slice *row_out)
{
    uint64_t hash = hash_of(room, number);
    struct shard *shard = shard_of(cache, hash);
    pthread_mutex_lock(&shard->lock);
    const struct cached_row *row = *place_of(shard, hash, room, number);
    if (row) {
        *row_out = arena_copy(arena, (struct slice){row->bytes, row->len});
    }
    pthread_mutex_unlock(&shard->lock);
    return row != NULL;
}

uint64_t row_cache_version(struct row_cache *cache)
{
    return atomic_load(&cache->version);
}

void row_cache_offer(struct row_cache *cache, uint64_t room, int64_t number, struct slice bytes,
                     uint64_t version)
{
    uint64_t hash = hash_of(room, number);
    struct shard *shard = shard_of(cache, hash);
    if (bytes.len == 0 || bytes.len > cache->shard_bytes_max / ROW_SHARE) {
        return;
    }
    struct cached_row *row = row_of(room, number, bytes);
    pthread_mutex_lock(&shard->lock);
    struct cached_row **at = place_of(shard, hash, room, number);
    bool take = *at == NULL && atomic_load(&cache->version) == version;
    if (take) {
        insert_at(shard, at, row);
    }
    while (shard->bytes > cache->shard_bytes_max) {
        struct cached_row *oldest = shard->oldest;
        hash = hash_of(oldest->room, oldest->number);
        remove_at(shard, place_of(shard, hash, oldest->room, oldest->number));
    }
    pthread_mutex_unlock(&shard->lock);
    if (!take) {
        mem_free(row);
    }
}

void row_cache_drop(struct row_cache *cache, uint64_t room, int64_t number)
{
    uint64_t hash = hash_of(room, number);
    struct shard *shard = shard_of(cache, hash);
    pthread_mutex_lock(&shard->lock);
    atomic_fetch_add(&cache->version, 1);
    struct cached_row **at = place_of(shard, hash, room, number);
    if (*at) {
        remove_at(shard, at);
    }
    pthread_mutex_unlock(&shard->lock);
}

void row_cache_drop_room(struct row_cache *cache, uint64_t room)
{
    atomic_fetch_add(&cache->version, 1);
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        struct cached_row *row = shard->oldest;
        while (row) {
            struct cached_row *newer = row->newer;
            if (row->room == room) {
                remove_at(shard, place_of(shard, hash_of(room, row->number), room, row->number));
            }
            row = newer;
        }
        pthread_mutex_unlock(&shard->lock);
    }
}
