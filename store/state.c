#include "store/state_tree.h"

#include "homeserver/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct state_store *state_store_new(struct store *store, size_t cache_bytes_max)
{
    struct state_store *states = mem_alloc(sizeof *states);
    states->store = store;
    states->cache = state_cache_new(cache_bytes_max);
    states->counters = map_new();
    pthread_mutex_init(&states->lock, NULL);
    return states;
}

void state_store_free(struct state_store **states)
{
    struct state_store *own = *states;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    if (!own) {
        return;
    }
    while (map_next(own->counters, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&own->counters);
    state_cache_free(&own->cache);
    pthread_mutex_destroy(&own->lock);
    mem_free(own);
    *states = NULL;
}

size_t state_store_bytes(struct state_store *states)
{
    return state_cache_bytes(states->cache);
}

/* --- the hash of a set of entries --- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* Adds the entry's hash; a removed or absent one (event 0) counts nothing. */
static void hash_add(struct state_hash *hash, uint64_t key, int64_t event)
{
    if (event == 0) {
        return;
    }
    uint64_t low = mix(mix(key + UINT64_C(0x9E3779B97F4A7C15)) + (uint64_t)event);
    uint64_t high = mix(mix((uint64_t)event + UINT64_C(0xD1B54A32D192ED03)) + key);
    hash->low += low;
    hash->high += high + (hash->low < low);
}

static void hash_remove(struct state_hash *hash, uint64_t key, int64_t event)
{
    struct state_hash one = {0};
    hash_add(&one, key, event);
    hash->high -= one.high + (hash->low < one.low);
    hash->low -= one.low;
}

static bool hash_eq(struct state_hash a, struct state_hash b)
{
    return a.low == b.low && a.high == b.high;
}

/* --- reading --- */

static bool list_get(const struct state_root *root, uint64_t key, int64_t *event_out)
{
    for (uint32_t i = 0; i < root->list_count; i++) {
        if (root->list[i].key == key) {
            *event_out = root->list[i].event;
            return true;
        }
    }
    return false;
}

struct err state_get(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t root,
                     uint64_t key, int64_t *event_out, bool *found_out)
{
    struct state_reader reader = {.states = states, .ctx = ctx, .room = room};
    struct state_root loaded;
    TRY(state_tree_load_root(&reader, root, &loaded));
    if (!list_get(&loaded, key, event_out)) {
        TRY(state_tree_get(&reader, &loaded, key, event_out));
    }
    *found_out = *event_out != 0;
    return OK;
}

/* `base` with `changes` on top (both ascending, each key once). With removals kept, the result is a
 * list of changes again. */
enum removals { REMOVALS_DROP, REMOVALS_KEEP };
static struct state_entries overlay(struct arena *arena, struct state_entries base,
                                    struct state_entries changes, enum removals removals)
{
    struct state_entries out = {0};
    size_t left = 0;
    size_t right = 0;
    out.items = arena_array(arena, base.count + changes.count, sizeof *out.items);
    while (left < base.count || right < changes.count) {
        bool from_base = right == changes.count ||
                         (left < base.count && base.items[left].key < changes.items[right].key);
        if (from_base) {
            out.items[out.count++] = base.items[left++];
            continue;
        }
        if (left < base.count && base.items[left].key == changes.items[right].key) {
            left++;
        }
        if (changes.items[right].event != 0 || removals == REMOVALS_KEEP) {
            out.items[out.count++] = changes.items[right];
        }
        right++;
    }
    return out;
}

struct err state_read(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t root,
                      struct state_entries *entries_out)
{
    struct state_reader reader = {.states = states, .ctx = ctx, .room = room};
    struct state_root loaded;
    struct state_entries tree;
    TRY(state_tree_load_root(&reader, root, &loaded));
    TRY(state_tree_read(&reader, &loaded, &tree));
    struct state_entries list = {loaded.list, loaded.list_count};
    *entries_out = list.count ? overlay(ctx->arena, tree, list, REMOVALS_DROP) : tree;
    return OK;
}

/* --- applying --- */

struct numbered {
    struct state_entry entry;
    size_t at;
};

static int by_key_then_place(const void *a, const void *b)
{
    const struct numbered *left = a;
    const struct numbered *right = b;
    if (left->entry.key != right->entry.key) {
        return left->entry.key < right->entry.key ? -1 : 1;
    }
    return left->at < right->at ? -1 : 1;
}

/* The changes in ascending order, each key once: the last one given wins. */
static struct state_entries sort_changes(struct arena *arena, const struct state_entry *changes,
                                         size_t count)
{
    struct numbered *sorted = arena_array(arena, count, sizeof *sorted);
    struct state_entries out = {.items = arena_array(arena, count, sizeof *out.items)};
    for (size_t i = 0; i < count; i++) {
        ASSERT(changes[i].key >= 1);
        ASSERT(changes[i].key <= STATE_KEY_MAX);
        sorted[i] = (struct numbered){changes[i], i};
    }
    if (count > 1) {
        qsort(sorted, count, sizeof *sorted, by_key_then_place);
    }
    for (size_t i = 0; i < count; i++) {
        if (i + 1 == count || sorted[i + 1].entry.key != sorted[i].entry.key) {
            out.items[out.count++] = sorted[i].entry;
        }
    }
    return out;
}

/* Drops changes that change nothing from `changes` and brings the root's hash up to date. What
 * remains may still equal the tree: `tree_events` gets the tree's event for each. */
static struct err drop_idle_changes(const struct state_reader *reader, struct state_root *root,
                                    struct state_entries *changes, int64_t *tree_events)
{
    size_t kept = 0;
    for (size_t i = 0; i < changes->count; i++) {
        struct state_entry change = changes->items[i];
        int64_t in_tree = 0;
        TRY(state_tree_get(reader, root, change.key, &in_tree));
        int64_t now = in_tree;
        list_get(root, change.key, &now);
        if (now == change.event) {
            continue;
        }
        hash_remove(&root->hash, change.key, now);
        hash_add(&root->hash, change.key, change.event);
        tree_events[kept] = in_tree;
        changes->items[kept++] = change;
    }
    changes->count = kept;
    return OK;
}

/* Removes entries from a list of changes that bring the tree's own value back. */
static void drop_restored(struct state_entries *list, const struct state_entries *changes,
                          const int64_t *tree_events)
{
    size_t kept = 0;
    size_t at = 0;
    for (size_t i = 0; i < list->count; i++) {
        while (at < changes->count && changes->items[at].key < list->items[i].key) {
            at++;
        }
        bool restored = at < changes->count && changes->items[at].key == list->items[i].key &&
                        tree_events[at] == list->items[i].event;
        if (!restored) {
            list->items[kept++] = list->items[i];
        }
    }
    list->count = kept;
}

static struct err write_root(const struct state_reader *reader, const struct state_root *root,
                             struct store_update *update, uint64_t *root_out)
{
    char bytes[STATE_ROW_KEY_BYTES_MAX];
    struct buf record;
    if (root->height == 0 && root->list_count == 0) {
        *root_out = 0;
        return OK;
    }
    buf_init_arena(&record, reader->ctx->arena, STATE_PART_BYTES_MAX);
    state_record_encode_root(&record, root);
    TRY(buf_check(&record));
    uint64_t number = state_counters_take(reader, STATE_RECORD_ROOT);
    struct state_cache_id id = {reader->room, number, STATE_RECORD_ROOT};
    TRY(state_cache_add(reader->states->cache, &id, buf_slice(&record)));
    store_put(update, state_record_key(STATE_RECORD_ROOT, number, bytes), buf_slice(&record));
    *root_out = number;
    return OK;
}

struct err state_apply(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t root,
                       const struct state_entry *changes, size_t count, struct store_update *update,
                       uint64_t *root_out)
{
    struct state_reader reader = {states, ctx, room, update};
    struct state_root next;
    TRY(state_tree_load_root(&reader, root, &next));
    struct state_entries sorted = sort_changes(ctx->arena, changes, count);
    int64_t *tree_events = arena_array(ctx->arena, sorted.count, sizeof *tree_events);
    TRY(drop_idle_changes(&reader, &next, &sorted, tree_events));
    *root_out = root;
    if (sorted.count == 0) {
        return OK;
    }
    TRY(state_counters_load(&reader));
    struct state_entries list = {next.list, next.list_count};
    list = overlay(ctx->arena, list, sorted, REMOVALS_KEEP);
    drop_restored(&list, &sorted, tree_events);
    if (list.count > STATE_LIST_MAX) {
        TRY(state_tree_fold(&reader, list.items, list.count, update, &next));
    } else {
        next.list_count = (uint32_t)list.count;
        memcpy(next.list, list.items, list.count * sizeof *list.items);
    }
    return write_root(&reader, &next, update, root_out);
}

/* --- comparing --- */

/* The smallest key at the heads of the three lists. */
static bool next_key(const struct state_entries *left, const struct state_entries *right,
                     const struct state_differences *trees, uint64_t *key_out)
{
    *key_out = UINT64_MAX;
    if (left->count) {
        *key_out = left->items[0].key;
    }
    if (right->count && right->items[0].key < *key_out) {
        *key_out = right->items[0].key;
    }
    if (trees->count && trees->items[0].key < *key_out) {
        *key_out = trees->items[0].key;
    }
    return left->count || right->count || trees->count;
}

/* Cuts the entry for `key` off the front, if it stands there. */
static bool take_entry(struct state_entries *entries, uint64_t key, int64_t *event_out)
{
    if (!entries->count || entries->items[0].key != key) {
        return false;
    }
    *event_out = entries->items[0].event;
    entries->items++;
    entries->count--;
    return true;
}

/* The part of a root's list that stands in [from, last]. */
static struct state_entries list_within(struct state_root *root, uint64_t from, uint64_t last)
{
    struct state_entries list = {root->list, root->list_count};
    while (list.count && list.items[0].key < from) {
        list.items++;
        list.count--;
    }
    while (list.count && list.items[list.count - 1].key > last) {
        list.count--;
    }
    return list;
}

/* The last key of which the difference of the trees tells. */
static uint64_t last_told(const struct state_differences *trees)
{
    return trees->stopped ? trees->items[trees->count - 1].key : UINT64_MAX;
}

/* The difference of the roots: that of their trees, overlaid with both lists. */
static struct err merge_diff(const struct state_reader *reader, struct state_root *left,
                             struct state_root *right, struct state_differences trees,
                             struct state_differences *out)
{
    struct state_entries left_list = list_within(left, trees.from, last_told(&trees));
    struct state_entries right_list = list_within(right, trees.from, last_told(&trees));
    struct state_difference item;
    while (next_key(&left_list, &right_list, &trees, &item.key)) {
        bool in_trees = trees.count && trees.items[0].key == item.key;
        if (in_trees) {
            item = trees.items[0];
            trees.items++;
            trees.count--;
        } else {
            TRY(state_tree_get(reader, left, item.key, &item.left));
            item.right = item.left;
        }
        take_entry(&left_list, item.key, &item.left);
        take_entry(&right_list, item.key, &item.right);
        if (item.left != item.right) {
            state_differences_add(reader->ctx->arena, out, item);
        }
    }
    return OK;
}

struct err state_diff_page(struct state_store *states, struct ctx *ctx, uint64_t room,
                           struct state_page *page)
{
    struct state_reader reader = {.states = states, .ctx = ctx, .room = room};
    struct state_root roots[2];
    struct state_differences trees = {.from = page->from, .limit = page->limit};
    struct state_differences all = {0};
    page->items = NULL;
    page->count = 0;
    page->more = false;
    if (page->left == page->right) {
        return OK;
    }
    TRY(state_tree_load_root(&reader, page->left, &roots[0]));
    TRY(state_tree_load_root(&reader, page->right, &roots[1]));
    if (hash_eq(roots[0].hash, roots[1].hash)) {
        return OK;
    }
    TRY(state_tree_diff(&reader, &roots[0], &roots[1], &trees));
    TRY(merge_diff(&reader, &roots[0], &roots[1], trees, &all));
    page->more = trees.stopped;
    page->from = trees.stopped ? last_told(&trees) + 1 : page->from;
    page->items = all.items;
    page->count = all.count;
    return OK;
}

struct err state_diff(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t left,
                      uint64_t right, struct state_difference **items_out, size_t *count_out)
{
    struct state_page page = {.left = left, .right = right};
    struct err err = state_diff_page(states, ctx, room, &page);
    *items_out = page.items;
    *count_out = page.count;
    return err;
}

struct err state_eq(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t left,
                    uint64_t right, bool *equal_out)
{
    struct state_reader reader = {.states = states, .ctx = ctx, .room = room};
    struct state_root roots[2];
    *equal_out = left == right;
    if (*equal_out) {
        return OK;
    }
    TRY(state_tree_load_root(&reader, left, &roots[0]));
    TRY(state_tree_load_root(&reader, right, &roots[1]));
    *equal_out = hash_eq(roots[0].hash, roots[1].hash);
    return OK;
}

/* --- checking --- */

struct err state_check(struct state_store *states, struct ctx *ctx, uint64_t room, uint64_t root)
{
    struct state_reader reader = {.states = states, .ctx = ctx, .room = room};
    struct state_root loaded;
    struct state_entries entries;
    struct state_hash hash = {0};
    TRY(state_tree_load_root(&reader, root, &loaded));
    TRY(state_read(states, ctx, room, root, &entries));
    for (size_t i = 0; i < entries.count; i++) {
        hash_add(&hash, entries.items[i].key, entries.items[i].event);
    }
    return hash_eq(hash, loaded.hash)
               ? OK
               : err_make(ERR_CORRUPT, "a state snapshot does not have its hash");
}

enum { ROOTS_PER_PAGE = 1000 };

/* The roots from `from` on, at most ROOTS_PER_PAGE. */
static struct err read_roots(struct state_store *states, struct ctx *ctx, uint64_t room,
                             uint64_t from, struct store_rows *rows_out)
{
    char bytes[STATE_ROW_KEY_BYTES_MAX];
    const char behind = STATE_RECORD_ROOT + 1;
    struct store_range range = {
        .from = state_record_key(STATE_RECORD_ROOT, from, bytes),
        .to = {&behind, 1},
        .limit = ROOTS_PER_PAGE,
    };
    return store_read_range(states->store, ctx, state_object(ctx, room), range, rows_out);
}

struct err state_each_root(struct state_store *states, struct ctx *ctx, uint64_t room,
                           struct err (*visit)(void *arg, uint64_t root), void *arg)
{
    struct store_rows rows = {.count = ROOTS_PER_PAGE};
    uint64_t root = 0;
    while (rows.count == ROOTS_PER_PAGE) {
        TRY(read_roots(states, ctx, room, root + 1, &rows));
        for (size_t i = 0; i < rows.count; i++) {
            enum state_record_kind kind = STATE_RECORD_ROOT;
            if (!state_record_parse_key(rows.rows[i].key, &kind, &root)) {
                return err_make(ERR_CORRUPT, "a state record has a malformed key");
            }
            TRY(visit(arg, root));
        }
    }
    return OK;
}

void state_forget(struct state_store *states, uint64_t room)
{
    state_cache_forget(states->cache, room);
}
