#include "homeserver/sync/filter_ids.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <string.h>

enum { ID_BYTES_MAX = 64, KEY_BYTES_MAX = 8 + ID_BYTES_MAX };

struct sync_filter_ids {
    pthread_mutex_t lock;
    struct map *known; /* user, id */
    size_t entries_max;
};

struct sync_filter_ids *sync_filter_ids_new(size_t entries_max)
{
    struct sync_filter_ids *ids = mem_alloc(sizeof *ids);
    pthread_mutex_init(&ids->lock, NULL);
    ids->known = map_new();
    ids->entries_max = entries_max;
    return ids;
}

void sync_filter_ids_free(struct sync_filter_ids **ids)
{
    if (*ids == NULL) {
        return;
    }
    map_free(&(*ids)->known);
    pthread_mutex_destroy(&(*ids)->lock);
    mem_free(*ids);
    *ids = NULL;
}

/* Empty when the id is longer than any that exists. */
static struct slice pack_key(char packed[KEY_BYTES_MAX], uint64_t user, struct slice id)
{
    if (id.len == 0 || id.len > ID_BYTES_MAX) {
        return (struct slice){0};
    }
    memcpy(packed, &user, sizeof user);
    memcpy(packed + sizeof user, id.ptr, id.len);
    return (struct slice){packed, sizeof user + id.len};
}

bool sync_filter_ids_has(struct sync_filter_ids *ids, uint64_t user, struct slice id)
{
    char packed[KEY_BYTES_MAX];
    struct slice key = pack_key(packed, user, id);
    uint64_t value = 0;
    pthread_mutex_lock(&ids->lock);
    bool known = key.len > 0 && map_get(ids->known, key, &value);
    pthread_mutex_unlock(&ids->lock);
    return known;
}

void sync_filter_ids_add(struct sync_filter_ids *ids, uint64_t user, struct slice id)
{
    char packed[KEY_BYTES_MAX];
    struct slice key = pack_key(packed, user, id);
    if (key.len == 0) {
        return;
    }
    pthread_mutex_lock(&ids->lock);
    if (map_count(ids->known) >= ids->entries_max) {
        map_free(&ids->known);
        ids->known = map_new();
    }
    map_set(ids->known, key, 1);
    pthread_mutex_unlock(&ids->lock);
}
