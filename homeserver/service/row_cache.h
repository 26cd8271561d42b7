/* Event rows in memory, as the store has them: what many readers want at about the same time - the
 * newest events of a room, its state - is read from the store once. Bounded by bytes; the row that
 * came first goes first.
 * A reader that misses takes the version, reads the store, and offers the row with that version: a
 * row that a writer has replaced meanwhile is not taken in. A writer drops a row after writing and
 * before anybody can hear of the change.
 * Thread safe; the locks are leaves. */
#pragma once
#include "homeserver/base/arena.h"

struct row_cache;

struct row_cache *row_cache_new(size_t bytes_max);
void row_cache_free(struct row_cache **cache);
/* The row, copied into the arena; false when it is not here (which says nothing of the store). */
bool row_cache_get(struct row_cache *cache, struct arena *arena, uint64_t room, int64_t number,
                   struct slice *row_out);
uint64_t row_cache_version(struct row_cache *cache);
/* Takes a row in that was read after `version` was taken, unless any row was dropped since. */
void row_cache_offer(struct row_cache *cache, uint64_t room, int64_t number, struct slice row,
                     uint64_t version);
void row_cache_drop(struct row_cache *cache, uint64_t room, int64_t number);
void row_cache_drop_room(struct row_cache *cache, uint64_t room);
