#include "homeserver/base/map.h"

#include "homeserver/base/mem.h"

#include <string.h>

enum { INLINE_BYTES = sizeof(char *), CAP_FIRST = 4 };

/* A short key, as that of a number, lies in the slot itself. */
struct slot {
    union {
        char *owned;
        char bytes[INLINE_BYTES];
    } key;
    uint32_t len_plus_1; /* 0 = empty */
    uint32_t hash;
    uint64_t value;
};

struct map {
    struct slot *slots;
    size_t cap; /* power of two, or 0 */
    size_t count;
};

static bool is_inline(const struct slot *slot)
{
    return slot->len_plus_1 <= INLINE_BYTES + 1;
}

static struct slice key_of(const struct slot *slot)
{
    return (struct slice){is_inline(slot) ? slot->key.bytes : slot->key.owned,
                          slot->len_plus_1 - 1};
}

static void set_key(struct slot *slot, struct slice key)
{
    slot->len_plus_1 = (uint32_t)key.len + 1;
    char *at = slot->key.bytes;
    if (!is_inline(slot)) {
        at = slot->key.owned = mem_alloc_raw(key.len);
    }
    if (key.len) {
        memcpy(at, key.ptr, key.len);
    }
}

static void clear_key(struct slot *slot)
{
    if (!is_inline(slot)) {
        mem_free(slot->key.owned);
    }
    slot->len_plus_1 = 0;
}

struct map *map_new(void)
{
    return mem_alloc(sizeof(struct map));
}

void map_free(struct map **map)
{
    if (!*map) {
        return;
    }
    for (size_t i = 0; i < (*map)->cap; i++) {
        clear_key(&(*map)->slots[i]);
    }
    mem_free((*map)->slots);
    mem_free(*map);
    *map = NULL;
}

size_t map_count(const struct map *map)
{
    return map->count;
}

/* The slot that holds the key, or the empty slot where it would go. */
static size_t find_slot(const struct map *map, struct slice key, uint32_t hash)
{
    size_t at = hash & (map->cap - 1);
    for (;;) {
        const struct slot *slot = &map->slots[at];
        bool same = slot->hash == hash && slot->len_plus_1 == key.len + 1 &&
                    (key.len == 0 || memcmp(key_of(slot).ptr, key.ptr, key.len) == 0);
        if (slot->len_plus_1 == 0 || same) {
            return at;
        }
        at = (at + 1) & (map->cap - 1);
    }
}

static uint32_t hash_of(struct slice key)
{
    return (uint32_t)slice_hash(key);
}

bool map_get(const struct map *map, struct slice key, uint64_t *value_out)
{
    if (map->count == 0) {
        return false;
    }
    const struct slot *slot = &map->slots[find_slot(map, key, hash_of(key))];
    if (slot->len_plus_1 == 0) {
        return false;
    }
    *value_out = slot->value;
    return true;
}

void *map_get_ptr(const struct map *map, struct slice key)
{
    uint64_t value = 0;
    return map_get(map, key, &value) ? (void *)(uintptr_t)value : NULL;
}

static void grow(struct map *map)
{
    struct map bigger = {.cap = map->cap ? map->cap * 2 : CAP_FIRST};
    bigger.slots = mem_alloc(bigger.cap * sizeof *bigger.slots);
    for (size_t i = 0; i < map->cap; i++) {
        struct slot *slot = &map->slots[i];
        if (slot->len_plus_1 != 0) {
            size_t at = find_slot(&bigger, key_of(slot), slot->hash);
            bigger.slots[at] = *slot;
        }
    }
    mem_free(map->slots);
    map->slots = bigger.slots;
    map->cap = bigger.cap;
}

void map_set(struct map *map, struct slice key, uint64_t value)
{
    if ((map->count + 1) * 4 > map->cap * 3) {
        grow(map);
    }
    uint32_t hash = hash_of(key);
    struct slot *slot = &map->slots[find_slot(map, key, hash)];
    if (slot->len_plus_1 == 0) {
        set_key(slot, key);
        slot->hash = hash;
        map->count++;
    }
    slot->value = value;
}

void map_set_ptr(struct map *map, struct slice key, void *value)
{
    map_set(map, key, (uint64_t)(uintptr_t)value);
}

bool map_remove(struct map *map, struct slice key)
{
    if (map->count == 0) {
        return false;
    }
    size_t hole = find_slot(map, key, hash_of(key));
    if (map->slots[hole].len_plus_1 == 0) {
        return false;
    }
    clear_key(&map->slots[hole]);
    map->count--;
    /* Entries behind the hole move up, so that probing never meets a false end. */
    size_t mask = map->cap - 1;
    for (size_t at = (hole + 1) & mask; map->slots[at].len_plus_1 != 0; at = (at + 1) & mask) {
        size_t home = map->slots[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            map->slots[hole] = map->slots[at];
            map->slots[at].len_plus_1 = 0;
            hole = at;
        }
    }
    return true;
}

bool map_next(const struct map *map, size_t *cursor, struct slice *key_out, uint64_t *value_out)
{
    for (; *cursor < map->cap; (*cursor)++) {
        const struct slot *slot = &map->slots[*cursor];
        if (slot->len_plus_1 != 0) {
            *key_out = key_of(slot);
            *value_out = slot->value;
            (*cursor)++;
            return true;
        }
    }
    return false;
}

struct slice map_key_u64(const uint64_t *number)
{
    return (struct slice){(const char *)number, sizeof *number};
}
