/* Mark and sweep of a room's state records: what the given roots reach stays. */
#include "store/state_tree.h"

#include "homeserver/base/mem.h"

enum { ROWS_PER_PAGE = 1000, ARENA_BYTES_MAX = 1 << 20 };

/* Set of nonzero numbers: open addressing, doubling. */
struct numbers {
    uint64_t *slots;
    size_t cap;
    size_t count;
};

static size_t place_of(const struct numbers *set, uint64_t number)
{
    size_t at = (size_t)(number * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (set->cap - 1);
    while (set->slots[at] != 0 && set->slots[at] != number) {
        at = (at + 1) & (set->cap - 1);
    }
    return at;
}

static void grow_set(struct numbers *set)
{
    struct numbers bigger = {.cap = set->cap ? set->cap * 2 : 1024, .count = set->count};
    bigger.slots = mem_alloc(bigger.cap * sizeof *bigger.slots);
    for (size_t i = 0; i < set->cap; i++) {
        if (set->slots[i]) {
            bigger.slots[place_of(&bigger, set->slots[i])] = set->slots[i];
        }
    }
    mem_free(set->slots);
    *set = bigger;
}

static bool has(const struct numbers *set, uint64_t number)
{
    return set->count > 0 && set->slots[place_of(set, number)] == number;
}

/* Whether the number is new in the set. */
static bool add(struct numbers *set, uint64_t number)
{
    if ((set->count + 1) * 2 > set->cap) {
        grow_set(set);
    }
    size_t at = place_of(set, number);
    if (set->slots[at] == number) {
        return false;
    }
    set->slots[at] = number;
    set->count++;
    return true;
}

struct sweep {
    struct state_reader reader;
    struct numbers roots;
    struct numbers nodes;   /* nodes seen: record and part in one number */
    struct numbers records; /* node records that hold one of them */
    uint64_t removed;
};

static uint64_t node_number(struct state_ref ref)
{
    return ref.record * STATE_PARTS_MAX + ref.part;
}

/* Goes down one level at a time; a subtree seen before is not entered again. */
static struct err mark(struct sweep *sweep, struct state_ref ref, uint32_t level)
{
    struct state_node node;
    if (!add(&sweep->nodes, node_number(ref))) {
        return OK;
    }
    add(&sweep->records, ref.record);
    if (level == 0) {
        return OK;
    }
    TRY(state_tree_load_node(&sweep->reader, ref, level, &node));
    for (unsigned i = 0; i < STATE_FANOUT; i++) {
        if (node.used >> i & 1) {
            TRY(mark(sweep, node.children[i], level - 1));
        }
    }
    return OK;
}

static struct err mark_roots(struct sweep *sweep, const uint64_t *roots, size_t count)
{
    struct state_root root;
    for (size_t i = 0; i < count; i++) {
        if (roots[i] == 0 || !add(&sweep->roots, roots[i])) {
            continue;
        }
        if (arena_used_bytes(sweep->reader.ctx->arena) > ARENA_BYTES_MAX) {
            arena_reset(sweep->reader.ctx->arena);
        }
        TRY(state_tree_load_root(&sweep->reader, roots[i], &root));
        if (root.height > 0) {
            TRY(mark(sweep, root.top, root.height - 1));
        }
    }
    return OK;
}

static bool is_kept(const struct sweep *sweep, struct slice key)
{
    enum state_record_kind kind = STATE_RECORD_ROOT;
    uint64_t number = 0;
    if (!state_record_parse_key(key, &kind, &number)) {
        return false;
    }
    return has(kind == STATE_RECORD_ROOT ? &sweep->roots : &sweep->records, number);
}

/* Removes the records of a page of rows that are not marked. */
static struct err sweep_page(struct sweep *sweep, struct store_rows rows)
{
    struct ctx *ctx = sweep->reader.ctx;
    struct store_update *update = store_update_new(ctx, state_object(ctx, sweep->reader.room));
    uint64_t removed = 0;
    for (size_t i = 0; i < rows.count; i++) {
        if (!is_kept(sweep, rows.rows[i].key)) {
            store_delete(update, rows.rows[i].key);
            removed++;
        }
    }
    if (removed) {
        TRY(store_write(sweep->reader.states->store, ctx, &update, 1));
    }
    sweep->removed += removed;
    return OK;
}

static struct err sweep_rows(struct sweep *sweep)
{
    struct ctx *ctx = sweep->reader.ctx;
    char next[STORE_KEY_BYTES_MAX + 1];
    struct buf from;
    struct store_rows rows = {.count = ROWS_PER_PAGE};
    from = (struct buf){.ptr = next, .cap = sizeof next, .max = sizeof next};
    while (rows.count == ROWS_PER_PAGE) {
        arena_reset(ctx->arena);
        struct store_range range = {.from = buf_slice(&from), .limit = ROWS_PER_PAGE};
        struct store_object object = state_object(ctx, sweep->reader.room);
        TRY(store_read_range(sweep->reader.states->store, ctx, object, range, &rows));
        TRY(sweep_page(sweep, rows));
        if (rows.count) {
            buf_clear(&from);
            buf_add(&from, rows.rows[rows.count - 1].key);
            buf_add_byte(&from, 0);
        }
    }
    return OK;
}

struct err state_sweep(struct state_store *states, struct ctx *ctx, uint64_t room,
                       const uint64_t *roots, size_t count, uint64_t *removed_out)
{
    /* Own memory, given back page by page; the caller's arena stays small. */
    struct ctx own = *ctx;
    own.arena = arena_new();
    struct sweep sweep = {.reader = {.states = states, .ctx = &own, .room = room}};
    struct err err = state_counters_load(&sweep.reader); /* numbers are not reused after it */
    if (err.code == 0) {
        err = mark_roots(&sweep, roots, count);
    }
    if (err.code == 0) {
        err = sweep_rows(&sweep);
    }
    state_cache_forget(states->cache, room);
    mem_free(sweep.roots.slots);
    mem_free(sweep.nodes.slots);
    mem_free(sweep.records.slots);
    arena_free(&own.arena);
    ctx->write_ticket = own.write_ticket;
    *removed_out = sweep.removed;
    return err;
}
