/* Hash map from short byte keys to 64-bit values (a number or a pointer). Keys are copied in. Not
 * thread safe: the owner locks. Robin-hood open addressing, grows by doubling. */
#pragma once
#include "homeserver/base/slice.h"

struct map;

struct map *map_new(void);
/* Frees the map and its key copies, not what values point to. */
void map_free(struct map **map);
size_t map_count(const struct map *map);
bool map_get(const struct map *map, struct slice key, uint64_t *value_out);
/* The pointer stored under key, or NULL. */
void *map_get_ptr(const struct map *map, struct slice key);
void map_set(struct map *map, struct slice key, uint64_t value);
void map_set_ptr(struct map *map, struct slice key, void *value);
/* Returns whether the key was there. */
bool map_remove(struct map *map, struct slice key);
/* Visits all entries in no particular order; `*cursor` starts at 0; false at the end. The map must
 * not change meanwhile; the key lives until it does. */
bool map_next(const struct map *map, size_t *cursor, struct slice *key_out, uint64_t *value_out);
/* Convenience for maps keyed by numbers. */
struct slice map_key_u64(const uint64_t *number);
