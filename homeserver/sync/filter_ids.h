/* Ids of uploaded filters that were found in the store lately. An id is the hash of its filter, so
 * it means the same for ever: a sync with nothing new needs to know no more than that there is such
 * a filter, and need not read it. Bounded; forgetting means reading once more. Thread safe; the
 * lock is a leaf. */
#pragma once
#include "homeserver/base/slice.h"

struct sync_filter_ids;

struct sync_filter_ids *sync_filter_ids_new(size_t entries_max);
void sync_filter_ids_free(struct sync_filter_ids **ids);
bool sync_filter_ids_has(struct sync_filter_ids *ids, uint64_t user, struct slice id);
void sync_filter_ids_add(struct sync_filter_ids *ids, uint64_t user, struct slice id);
