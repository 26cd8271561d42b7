#include "store/state_cache.h"

#include "homeserver/base/mem.h"

#include <pthread.h>
#include <string.h>

enum { SHARDS = 16, BUCKETS_MIN = 64 };

struct item {
    struct state_cache_id id;
    struct item *next_in_bucket;
    struct item *newer, *older; /* by last use */
    uint32_t part_count;
    uint32_t record_len;
    uint16_t starts[]; /* part_count of them (none for a root), then the record */
};

struct shard {
    pthread_mutex_t lock;
    struct item **buckets;
    size_t bucket_count; /* power of two */
    size_t count;
    size_t bytes;
    struct item *newest, *oldest;
};

struct state_cache {
    size_t shard_bytes_max;
    struct shard shards[SHARDS];
};

static struct err corrupt(void)
{
    return err_make(ERR_CORRUPT, "a state record is malformed");
}

struct state_cache *state_cache_new(size_t bytes_max)
{
    struct state_cache *cache = mem_alloc(sizeof *cache);
    cache->shard_bytes_max = bytes_max / SHARDS;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        pthread_mutex_init(&shard->lock, NULL);
        shard->bucket_count = BUCKETS_MIN;
        shard->buckets = mem_alloc(BUCKETS_MIN * sizeof(struct item *));
    }
    return cache;
}

void state_cache_free(struct state_cache **cache)
{
    if (!*cache) {
        return;
    }
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &(*cache)->shards[i];
        for (struct item *item = shard->newest; item;) {
            struct item *older = item->older;
            mem_free(item);
            item = older;
        }
        mem_free(shard->buckets);
        pthread_mutex_destroy(&shard->lock);
    }
    mem_free(*cache);
    *cache = NULL;
}

size_t state_cache_bytes(struct state_cache *cache)
{
    size_t bytes = 0;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&cache->shards[i].lock);
        bytes += cache->shards[i].bytes;
        pthread_mutex_unlock(&cache->shards[i].lock);
    }
    return bytes;
}

static uint64_t hash_id(const struct state_cache_id *id)
{
    uint64_t hash = (id->room * 31 + (uint64_t)id->kind) * UINT64_C(0x9E3779B97F4A7C15);
    hash = (hash ^ id->number ^ hash >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
    return hash ^ hash >> 32;
}

static struct item **find(struct shard *shard, const struct state_cache_id *id, uint64_t hash)
{
    struct item **at = &shard->buckets[hash / SHARDS & (shard->bucket_count - 1)];
    while (*at && ((*at)->id.number != id->number || (*at)->id.room != id->room ||
                   (*at)->id.kind != id->kind)) {
        at = &(*at)->next_in_bucket;
    }
    return at;
}

static size_t item_bytes(const struct item *item)
{
    return sizeof *item + item->part_count * sizeof item->starts[0] + item->record_len;
}

static const char *item_record(const struct item *item)
{
    return (const char *)(item->starts + item->part_count);
}

static void unlink_item(struct shard *shard, struct item *item)
{
    *(item->newer ? &item->newer->older : &shard->newest) = item->older;
    *(item->older ? &item->older->newer : &shard->oldest) = item->newer;
}

static void link_newest(struct shard *shard, struct item *item)
{
    item->newer = NULL;
    item->older = shard->newest;
    *(shard->newest ? &shard->newest->newer : &shard->oldest) = item;
    shard->newest = item;
}

static void drop(struct shard *shard, struct item *item)
{
    struct item **at = find(shard, &item->id, hash_id(&item->id));
    *at = item->next_in_bucket;
    unlink_item(shard, item);
    shard->count--;
    shard->bytes -= item_bytes(item);
    mem_free(item);
}

static void grow_buckets(struct shard *shard)
{
    mem_free(shard->buckets);
    shard->bucket_count *= 2;
    shard->buckets = mem_alloc(shard->bucket_count * sizeof(struct item *));
    for (struct item *item = shard->newest; item; item = item->older) {
        size_t at = hash_id(&item->id) / SHARDS & (shard->bucket_count - 1);
        item->next_in_bucket = shard->buckets[at];
        shard->buckets[at] = item;
    }
}

/* Where the part lies in the item's record; false when it has no such part. */
static bool find_part(const struct item *item, uint64_t part, struct slice *part_out)
{
    if (item->id.kind == STATE_RECORD_ROOT) {
        *part_out = (struct slice){item_record(item), item->record_len};
        return part == 0;
    }
    if (part >= item->part_count) {
        return false;
    }
    const char *start = item_record(item) + item->starts[part];
    *part_out = (struct slice){start + 1, (unsigned char)start[0]};
    return true;
}

struct err state_cache_copy(struct state_cache *cache, const struct state_cache_id *id,
                            uint64_t part, struct state_cache_part *part_out, bool *found_out)
{
    uint64_t hash = hash_id(id);
    struct shard *shard = &cache->shards[hash % SHARDS];
    struct slice bytes = {0};
    bool good = true;
    pthread_mutex_lock(&shard->lock);
    struct item *item = *find(shard, id, hash);
    *found_out = item != NULL;
    if (item) {
        good = find_part(item, part, &bytes) && bytes.len <= STATE_PART_BYTES_MAX;
    }
    if (item && good) {
        memcpy(part_out->bytes, bytes.ptr, bytes.len);
        part_out->len = bytes.len;
        unlink_item(shard, item);
        link_newest(shard, item);
    }
    pthread_mutex_unlock(&shard->lock);
    return good ? OK : corrupt();
}

static struct item *item_new(const struct state_cache_id *id, struct slice record,
                             const uint16_t *starts, size_t count)
{
    struct item *item = mem_alloc_raw(sizeof *item + count * sizeof *starts + record.len);
    *item = (struct item){
        .id = *id,
        .part_count = (uint32_t)count,
        .record_len = (uint32_t)record.len,
    };
    memcpy(item->starts, starts, count * sizeof *starts);
    memcpy(item->starts + count, record.ptr, record.len);
    return item;
}

struct err state_cache_add(struct state_cache *cache, const struct state_cache_id *id,
                           struct slice record)
{
    uint16_t starts[STATE_PARTS_MAX];
    size_t count = 0;
    if (id->kind == STATE_RECORD_NODES) {
        TRY(state_record_split(record, starts, &count));
    }
    if (record.len == 0 || record.len > UINT16_MAX) {
        return corrupt();
    }
    uint64_t hash = hash_id(id);
    struct shard *shard = &cache->shards[hash % SHARDS];
    pthread_mutex_lock(&shard->lock);
    if (shard->count > shard->bucket_count) {
        grow_buckets(shard);
    }
    struct item **at = find(shard, id, hash);
    if (!*at) {
        *at = item_new(id, record, starts, count);
        shard->count++;
        shard->bytes += item_bytes(*at);
        link_newest(shard, *at);
        while (shard->bytes > cache->shard_bytes_max && shard->oldest != shard->newest) {
            drop(shard, shard->oldest);
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return OK;
}

void state_cache_forget(struct state_cache *cache, uint64_t room)
{
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        for (struct item *item = shard->newest; item;) {
            struct item *older = item->older;
            if (item->id.room == room) {
                drop(shard, item);
            }
            item = older;
        }
        pthread_mutex_unlock(&shard->lock);
    }
}
