#include "store/state_tree.h"

#include "homeserver/base/mem.h"

enum { COUNTERS_MAX = 50000 };

/* Stands for the ancestors that a lower tree lacks beside a higher one. */
static const struct state_ref virtual_ref = {.record = 0, .part = 1};

struct store_object state_object(struct ctx *ctx, uint64_t room)
{
    return (struct store_object){STORE_ROOM_STATE, store_id_u64(ctx->arena, room)};
}

static unsigned slot_of(uint64_t key, uint32_t level)
{
    return (unsigned)(key >> (STATE_FANOUT_BITS * level)) & (STATE_FANOUT - 1);
}

/* --- record numbers --- */

static struct err newest_number(const struct state_reader *reader, enum state_record_kind kind,
                                uint64_t *number_out)
{
    const char from = (char)kind;
    const char to = (char)(kind + 1);
    struct store_range range = {.from = {&from, 1}, .to = {&to, 1}, .limit = 1};
    struct store_rows rows;
    range.order = STORE_REVERSE;
    *number_out = 0;
    TRY(store_read_range(reader->states->store, reader->ctx,
                         state_object(reader->ctx, reader->room), range, &rows));
    if (rows.count && !state_record_parse_key(rows.rows[0].key, &kind, number_out)) {
        return err_make(ERR_CORRUPT, "a state record has a malformed key");
    }
    return OK;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Rooms forgotten here go on above the floor, as numbers given out may not be stored yet. */
static void forget_counters(struct state_store *states)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(states->counters, &cursor, &key, &value)) {
        struct state_counters *counters = (struct state_counters *)(uintptr_t)value;
        states->floor.root = larger(states->floor.root, counters->root);
        states->floor.nodes = larger(states->floor.nodes, counters->nodes);
        mem_free(counters);
    }
    map_free(&states->counters);
    states->counters = map_new();
}

struct err state_counters_load(const struct state_reader *reader)
{
    struct state_store *states = reader->states;
    struct state_counters loaded = {0};
    pthread_mutex_lock(&states->lock);
    bool known = map_get_ptr(states->counters, map_key_u64(&reader->room)) != NULL;
    pthread_mutex_unlock(&states->lock);
    if (known) {
        return OK;
    }
    TRY(newest_number(reader, STATE_RECORD_ROOT, &loaded.root));
    TRY(newest_number(reader, STATE_RECORD_NODES, &loaded.nodes));
    pthread_mutex_lock(&states->lock);
    if (map_count(states->counters) >= COUNTERS_MAX) {
        forget_counters(states);
    }
    struct state_counters *counters = mem_alloc(sizeof *counters);
    counters->root = larger(loaded.root, states->floor.root);
    counters->nodes = larger(loaded.nodes, states->floor.nodes);
    map_set_ptr(states->counters, map_key_u64(&reader->room), counters);
    pthread_mutex_unlock(&states->lock);
    return OK;
}

uint64_t state_counters_take(const struct state_reader *reader, enum state_record_kind kind)
{
    struct state_store *states = reader->states;
    pthread_mutex_lock(&states->lock);
    struct state_counters *counters = map_get_ptr(states->counters, map_key_u64(&reader->room));
    ASSERT(counters != NULL);
    uint64_t number = kind == STATE_RECORD_ROOT ? ++counters->root : ++counters->nodes;
    pthread_mutex_unlock(&states->lock);
    return number;
}

/* --- loading --- */

static struct err read_record(const struct state_reader *reader, const struct state_cache_id *id,
                              struct slice *record_out)
{
    char bytes[STATE_ROW_KEY_BYTES_MAX];
    struct slice key = state_record_key(id->kind, id->number, bytes);
    bool found = false;
    if (reader->update && store_update_find(reader->update, key, record_out)) {
        return OK;
    }
    TRY(store_get(reader->states->store, reader->ctx, state_object(reader->ctx, reader->room), key,
                  record_out, &found));
    return found ? OK : err_make(ERR_CORRUPT, "a state record is missing");
}

/* Copies a part from the cache; on a miss the record is cached first. */
static struct err load_part(const struct state_reader *reader, const struct state_cache_id *id,
                            uint64_t part, struct state_cache_part *part_out)
{
    struct state_cache *cache = reader->states->cache;
    bool found = false;
    TRY(state_cache_copy(cache, id, part, part_out, &found));
    while (!found) { /* again only when the record was dropped in between */
        struct slice record = {0};
        TRY(read_record(reader, id, &record));
        TRY(state_cache_add(cache, id, record));
        TRY(state_cache_copy(cache, id, part, part_out, &found));
    }
    return OK;
}

struct err state_tree_load_root(const struct state_reader *reader, uint64_t number,
                                struct state_root *root_out)
{
    struct state_cache_part part;
    *root_out = (struct state_root){0};
    if (number == 0) {
        return OK;
    }
    struct state_cache_id id = {reader->room, number, STATE_RECORD_ROOT};
    TRY(load_part(reader, &id, 0, &part));
    return state_record_parse_root((struct slice){part.bytes, part.len}, root_out);
}

struct err state_tree_load_node(const struct state_reader *reader, struct state_ref ref,
                                uint32_t level, struct state_node *node_out)
{
    struct state_cache_part part;
    struct state_cache_id id = {reader->room, ref.record, STATE_RECORD_NODES};
    TRY(load_part(reader, &id, ref.part, &part));
    struct slice bytes = {part.bytes, part.len};
    return level == 0 ? state_record_parse_leaf(bytes, node_out)
                      : state_record_parse_inner(bytes, ref.record, node_out);
}

static bool ref_eq(struct state_ref a, struct state_ref b)
{
    return a.record == b.record && a.part == b.part;
}

static bool is_virtual(struct state_ref ref)
{
    return ref_eq(ref, virtual_ref);
}

static bool is_none(struct state_ref ref)
{
    return ref_eq(ref, (struct state_ref){0});
}

/* The name that a root's tree has at `level`, when it stands as part of a tree of that height. */
static struct state_ref top_at(const struct state_root *root, uint32_t level)
{
    return root->height == 0 || level < root->height ? root->top : virtual_ref;
}

/* A node of the root's tree; none gives an empty node. */
static struct err load_at(const struct state_reader *reader, const struct state_root *root,
                          struct state_ref ref, uint32_t level, struct state_node *node_out)
{
    if (is_none(ref) || is_virtual(ref)) {
        *node_out = (struct state_node){0};
    }
    if (is_virtual(ref)) {
        node_out->used = 1;
        node_out->children[0] = top_at(root, level - 1);
        return OK;
    }
    return is_none(ref) ? OK : state_tree_load_node(reader, ref, level, node_out);
}

struct err state_tree_get(const struct state_reader *reader, const struct state_root *root,
                          uint64_t key, int64_t *event_out)
{
    struct state_node node;
    struct state_ref ref = root->top;
    *event_out = 0;
    if (root->height == 0 || key >> (STATE_FANOUT_BITS * root->height)) {
        return OK;
    }
    for (uint32_t level = root->height - 1; level > 0; level--) {
        TRY(state_tree_load_node(reader, ref, level, &node));
        ref = node.children[slot_of(key, level)];
        if (is_none(ref)) {
            return OK;
        }
    }
    TRY(state_tree_load_node(reader, ref, 0, &node));
    *event_out = node.events[slot_of(key, 0)];
    return OK;
}

/* --- whole trees --- */

struct walk {
    const struct state_reader *reader;
    struct state_entries entries;
    size_t cap;
};

static void walk_add(struct walk *walk, struct state_entry entry)
{
    if (walk->entries.count == walk->cap) {
        size_t cap = walk->cap ? walk->cap * 2 : 64;
        walk->entries.items = arena_grow(walk->reader->ctx->arena, walk->entries.items,
                                         walk->cap * sizeof entry, cap * sizeof entry);
        walk->cap = cap;
    }
    walk->entries.items[walk->entries.count++] = entry;
}

static struct err walk_level(struct walk *walk, struct state_ref ref, uint32_t level, uint64_t key)
{
    struct state_node node;
    TRY(state_tree_load_node(walk->reader, ref, level, &node));
    for (unsigned i = 0; i < STATE_FANOUT; i++) {
        uint64_t below = key | (uint64_t)i << (STATE_FANOUT_BITS * level);
        if (!(node.used >> i & 1)) {
            continue;
        }
        if (level == 0) {
            walk_add(walk, (struct state_entry){below, node.events[i]});
        } else {
            TRY(walk_level(walk, node.children[i], level - 1, below));
        }
    }
    return OK;
}

struct err state_tree_read(const struct state_reader *reader, const struct state_root *root,
                           struct state_entries *entries_out)
{
    struct walk walk = {.reader = reader};
    if (root->height > 0) {
        TRY(walk_level(&walk, root->top, root->height - 1, 0));
    }
    *entries_out = walk.entries;
    return OK;
}

/* --- difference --- */

struct diff {
    const struct state_reader *reader;
    const struct state_root *left, *right;
    struct state_differences *out;
};

void state_differences_add(struct arena *arena, struct state_differences *differences,
                           struct state_difference item)
{
    if (differences->count == differences->cap) {
        size_t cap = differences->cap ? differences->cap * 2 : 16;
        differences->items = arena_grow(arena, differences->items, differences->cap * sizeof item,
                                        cap * sizeof item);
        differences->cap = cap;
    }
    differences->items[differences->count++] = item;
}

struct pair {
    struct state_ref left, right;
};

static bool is_full(struct state_differences *differences)
{
    differences->stopped = differences->limit && differences->count >= differences->limit;
    return differences->stopped;
}

static struct err diff_level(struct diff *diff, struct pair refs, uint32_t level, uint64_t key)
{
    struct state_node left;
    struct state_node right;
    TRY(load_at(diff->reader, diff->left, refs.left, level, &left));
    TRY(load_at(diff->reader, diff->right, refs.right, level, &right));
    for (unsigned i = 0; i < STATE_FANOUT && !is_full(diff->out); i++) {
        uint64_t below = key | (uint64_t)i << (STATE_FANOUT_BITS * level);
        uint64_t last = below | ((UINT64_C(1) << (STATE_FANOUT_BITS * level)) - 1);
        if (last < diff->out->from) {
            continue;
        }
        if (level == 0 && left.events[i] != right.events[i]) {
            struct state_difference item = {below, left.events[i], right.events[i]};
            state_differences_add(diff->reader->ctx->arena, diff->out, item);
        }
        if (level > 0 && !ref_eq(left.children[i], right.children[i])) {
            struct pair children = {left.children[i], right.children[i]};
            TRY(diff_level(diff, children, level - 1, below));
        }
    }
    return OK;
}

struct err state_tree_diff(const struct state_reader *reader, const struct state_root *left,
                           const struct state_root *right, struct state_differences *differences)
{
    uint32_t height = left->height > right->height ? left->height : right->height;
    if (ref_eq(left->top, right->top)) {
        return OK;
    }
    struct diff diff = {.reader = reader, .left = left, .right = right, .out = differences};
    struct pair tops = {top_at(left, height - 1), top_at(right, height - 1)};
    return diff_level(&diff, tops, height - 1, 0);
}

/* --- folding --- */

struct fold {
    const struct state_reader *reader;
    const struct state_root *old;
    struct store_update *update;
    struct buf record;
    uint64_t number; /* of the record being filled; 0 = none */
    uint64_t part_count;
};

struct changes {
    const struct state_entry *items;
    size_t count;
};

static struct err close_record(struct fold *fold)
{
    char bytes[STATE_ROW_KEY_BYTES_MAX];
    if (fold->number == 0) {
        return OK;
    }
    struct state_cache_id id = {fold->reader->room, fold->number, STATE_RECORD_NODES};
    TRY(buf_check(&fold->record));
    TRY(state_cache_add(fold->reader->states->cache, &id, buf_slice(&fold->record)));
    store_put(fold->update, state_record_key(STATE_RECORD_NODES, fold->number, bytes),
              buf_slice(&fold->record));
    buf_clear(&fold->record);
    fold->number = 0;
    fold->part_count = 0;
    return OK;
}

static struct err emit(struct fold *fold, uint32_t level, const struct state_node *node,
                       struct state_ref *ref_out)
{
    if (fold->record.len >= STATE_RECORD_BYTES) {
        TRY(close_record(fold));
    }
    if (fold->number == 0) {
        fold->number = state_counters_take(fold->reader, STATE_RECORD_NODES);
    }
    size_t start = fold->record.len;
    buf_add_byte(&fold->record, 0);
    if (level == 0) {
        state_record_encode_leaf(&fold->record, node);
    } else {
        state_record_encode_inner(&fold->record, fold->number, node);
    }
    fold->record.ptr[start] = (char)(unsigned char)(fold->record.len - start - 1);
    *ref_out = (struct state_ref){fold->number, fold->part_count++};
    return OK;
}

static void set_events(struct state_node *leaf, struct changes changes)
{
    for (size_t i = 0; i < changes.count; i++) {
        unsigned slot = slot_of(changes.items[i].key, 0);
        unsigned bit = 1U << slot;
        leaf->events[slot] = changes.items[i].event;
        leaf->used = (uint8_t)(changes.items[i].event ? leaf->used | bit : leaf->used & ~bit);
    }
}

/* The changes at the front of `rest` that fall into a slot; they are cut off. */
static struct changes take_slot(struct changes *rest, unsigned slot, uint32_t level)
{
    struct changes run = {rest->items, 0};
    while (run.count < rest->count && slot_of(run.items[run.count].key, level) == slot) {
        run.count++;
    }
    rest->items += run.count;
    rest->count -= run.count;
    return run;
}

static struct err fold_level(struct fold *fold, struct state_ref ref, uint32_t level,
                             struct changes changes, struct state_ref *ref_out)
{
    struct state_node node;
    TRY(load_at(fold->reader, fold->old, ref, level, &node));
    if (level == 0) {
        set_events(&node, changes);
    }
    for (unsigned i = 0; level > 0 && i < STATE_FANOUT; i++) {
        struct changes run = take_slot(&changes, i, level);
        if (run.count == 0 && !is_virtual(node.children[i])) {
            continue;
        }
        TRY(fold_level(fold, node.children[i], level - 1, run, &node.children[i]));
        unsigned bit = 1U << i;
        node.used = (uint8_t)(is_none(node.children[i]) ? node.used & ~bit : node.used | bit);
    }
    *ref_out = (struct state_ref){0};
    return node.used ? emit(fold, level, &node, ref_out) : OK;
}

struct err state_tree_fold(const struct state_reader *reader, const struct state_entry *changes,
                           size_t count, struct store_update *update, struct state_root *root)
{
    const struct state_root old = *root;
    struct fold fold = {.reader = reader, .old = &old, .update = update};
    uint32_t height = old.height ? old.height : 1;
    while (count && changes[count - 1].key >> (STATE_FANOUT_BITS * height)) {
        height++;
    }
    buf_init_arena(&fold.record, reader->ctx->arena, 2 * STATE_RECORD_BYTES);
    TRY(fold_level(&fold, top_at(&old, height - 1), height - 1, (struct changes){changes, count},
                   &root->top));
    root->height = is_none(root->top) ? 0 : height;
    root->list_count = 0;
    return close_record(&fold);
}
