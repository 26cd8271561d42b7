#include "homeserver/service/row_cache.h"

#include "homeserver/base/mem.h"
#include "homeserver/service/kept_event.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { SHARDS = 16, BUCKETS = 512, ROW_SHARE = 8 };

struct cached_row {
    struct cached_row *bucket_next;
    struct cached_row *older, *newer;
    uint64_t room;
    int64_t number;
    size_t cost; /* bytes that count for the bound, all told; under the shard's lock */
    _Atomic uint32_t refs;
    bool is_in; /* the cache; under the shard's lock */
    uint32_t len;
    _Atomic(struct stored_event *) event_owned;
    _Atomic(struct event_facts *) facts_owned;
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
            row_cache_release(row);
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

static void remove_at(struct shard *shard, struct cached_row **at)
{
    struct cached_row *row = *at;
    *at = row->bucket_next;
    *(row->older ? &row->older->newer : &shard->oldest) = row->newer;
    *(row->newer ? &row->newer->older : &shard->newest) = row->older;
    shard->bytes -= row->cost;
    row->is_in = false;
    row_cache_release(row);
}

static void insert_at(struct shard *shard, struct cached_row **at, struct cached_row *row)
{
    *at = row;
    row->bucket_next = NULL;
    row->newer = NULL;
    row->older = shard->newest;
    *(shard->newest ? &shard->newest->newer : &shard->oldest) = row;
    shard->newest = row;
    shard->bytes += row->cost;
    row->is_in = true;
}

static struct cached_row *row_of(uint64_t room, int64_t number, struct slice bytes)
{
    struct cached_row *row = mem_alloc_raw(sizeof *row + bytes.len);
    *row = (struct cached_row){.room = room,
                               .number = number,
                               .cost = sizeof *row + bytes.len,
                               .len = (uint32_t)bytes.len};
    atomic_init(&row->refs, 1);
    memcpy(row->bytes, bytes.ptr, bytes.len);
    return row;
}

/* Under the shard's lock. */
static void shrink(const struct row_cache *cache, struct shard *shard)
{
    while (shard->bytes > cache->shard_bytes_max) {
        struct cached_row *oldest = shard->oldest;
        uint64_t hash = hash_of(oldest->room, oldest->number);
        remove_at(shard, place_of(shard, hash, oldest->room, oldest->number));
    }
}

struct cached_row *row_cache_hold(struct row_cache *cache, uint64_t room, int64_t number)
{
    uint64_t hash = hash_of(room, number);
    struct shard *shard = shard_of(cache, hash);
    pthread_mutex_lock(&shard->lock);
    struct cached_row *row = *place_of(shard, hash, room, number);
    if (row) {
        atomic_fetch_add_explicit(&row->refs, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&shard->lock);
    return row;
}

void row_cache_release(struct cached_row *row)
{
    if (atomic_fetch_sub_explicit(&row->refs, 1, memory_order_acq_rel) == 1) {
        mem_free(atomic_load(&row->event_owned));
        mem_free(atomic_load(&row->facts_owned));
        mem_free(row);
    }
}

static void release_row(void *owner, void *thing)
{
    (void)owner;
    row_cache_release(thing);
}

void row_cache_release_later(struct ctx *ctx, struct cached_row *row)
{
    ctx_defer(ctx, release_row, NULL, row);
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
    shrink(cache, shard);
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

size_t row_cache_bytes(struct row_cache *cache)
{
    size_t bytes = 0;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&cache->shards[i].lock);
        bytes += cache->shards[i].bytes;
        pthread_mutex_unlock(&cache->shards[i].lock);
    }
    return bytes;
}

/* --- a held row --- */

int64_t cached_row_number(const struct cached_row *row)
{
    return row->number;
}

struct slice cached_row_bytes(const struct cached_row *row)
{
    return (struct slice){row->bytes, row->len};
}

const struct stored_event *cached_row_event(const struct cached_row *row)
{
    return atomic_load_explicit(&row->event_owned, memory_order_acquire);
}

/* What hangs on a row counts like the row. */
static void add_cost(struct row_cache *cache, struct cached_row *row, size_t bytes)
{
    struct shard *shard = shard_of(cache, hash_of(row->room, row->number));
    pthread_mutex_lock(&shard->lock);
    row->cost += bytes;
    if (row->is_in) {
        shard->bytes += bytes;
        shrink(cache, shard);
    }
    pthread_mutex_unlock(&shard->lock);
}

const struct stored_event *cached_row_give_event(struct row_cache *cache, struct cached_row *row,
                                                 struct arena *arena,
                                                 const struct stored_event *event)
{
    size_t bytes = 0;
    struct stored_event *known = NULL;
    struct stored_event *copy = kept_event_new(arena, event, cached_row_bytes(row), &bytes);
    if (!atomic_compare_exchange_strong(&row->event_owned, &known, copy)) {
        mem_free(copy);
        return known;
    }
    add_cost(cache, row, bytes);
    return copy;
}

const struct event_facts *cached_row_facts(const struct cached_row *row)
{
    return atomic_load_explicit(&row->facts_owned, memory_order_acquire);
}

const struct event_facts *cached_row_give_facts(struct row_cache *cache, struct cached_row *row,
                                                struct event_facts *facts, size_t bytes)
{
    struct event_facts *known = NULL;
    if (!atomic_compare_exchange_strong(&row->facts_owned, &known, facts)) {
        mem_free(facts);
        return known;
    }
    add_cost(cache, row, bytes);
    return facts;
}
