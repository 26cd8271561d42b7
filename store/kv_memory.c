/* The store in memory, for tests: a skip list under one lock, and a fault on demand. */
#include "store/kv.h"

#include "homeserver/base/mem.h"

#include <pthread.h>
#include <string.h>

enum { LEVEL_MAX = 16 };

struct node {
    struct slice key_owned;
    struct slice value_owned;
    struct node *next[]; /* one per level of the node */
};

struct kv_memory {
    struct kv kv;
    pthread_mutex_t lock;
    struct node *head; /* LEVEL_MAX levels, no key */
    uint64_t random;
    int32_t calls_left;   /* to the failing read or write; 0 = none */
    int32_t flushes_left; /* to the failing flush; 0 = none */
};

static struct slice copy_owned(struct slice s)
{
    char *bytes = mem_alloc_raw(s.len);
    if (s.len) {
        memcpy(bytes, s.ptr, s.len);
    }
    return (struct slice){bytes, s.len};
}

static struct node *node_new(int levels)
{
    return mem_alloc(sizeof(struct node) + (size_t)levels * sizeof(struct node *));
}

static void node_free(struct node *node)
{
    mem_free((void *)(uintptr_t)node->key_owned.ptr);
    mem_free((void *)(uintptr_t)node->value_owned.ptr);
    mem_free(node);
}

/* The first node with key >= `key`; its predecessors per level go to `before` when given. */
static struct node *find(const struct kv_memory *memory, struct slice key, struct node **before)
{
    struct node *at = memory->head;
    for (int level = LEVEL_MAX - 1; level >= 0; level--) {
        while (at->next[level] && slice_cmp(at->next[level]->key_owned, key) < 0) {
            at = at->next[level];
        }
        if (before) {
            before[level] = at;
        }
    }
    return at->next[0];
}

/* The last node with key < `key`, or NULL. */
static const struct node *find_below(const struct kv_memory *memory, struct slice key)
{
    struct node *before[LEVEL_MAX];
    find(memory, key, before);
    return before[0] == memory->head ? NULL : before[0];
}

static int random_levels(struct kv_memory *memory)
{
    memory->random = memory->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    int levels = 1;
    for (uint64_t bits = memory->random >> 32; (bits & 3) == 3 && levels < LEVEL_MAX; bits >>= 2) {
        levels++;
    }
    return levels;
}

static void put(struct kv_memory *memory, struct slice key, struct slice value)
{
    struct node *before[LEVEL_MAX];
    struct node *node = find(memory, key, before);
    if (node && slice_eq(node->key_owned, key)) {
        mem_free((void *)(uintptr_t)node->value_owned.ptr);
        node->value_owned = copy_owned(value);
        return;
    }
    int levels = random_levels(memory);
    node = node_new(levels);
    node->key_owned = copy_owned(key);
    node->value_owned = copy_owned(value);
    for (int level = 0; level < levels; level++) {
        node->next[level] = before[level]->next[level];
        before[level]->next[level] = node;
    }
}

/* Removes keys in [from, to). */
static void remove_range(struct kv_memory *memory, struct slice from, struct slice to)
{
    struct node *before[LEVEL_MAX];
    struct node *node = find(memory, from, before);
    while (node && slice_cmp(node->key_owned, to) < 0) {
        struct node *next = node->next[0];
        for (int level = 0; level < LEVEL_MAX && before[level]->next[level] == node; level++) {
            before[level]->next[level] = node->next[level];
        }
        node_free(node);
        node = next;
    }
}

static void remove_key(struct kv_memory *memory, struct slice key)
{
    struct node *before[LEVEL_MAX];
    struct node *node = find(memory, key, before);
    if (!node || !slice_eq(node->key_owned, key)) {
        return;
    }
    for (int level = 0; level < LEVEL_MAX && before[level]->next[level] == node; level++) {
        before[level]->next[level] = node->next[level];
    }
    node_free(node);
}

/* Counts one call; with the lock held. */
static struct err fault(int32_t *left)
{
    if (*left > 0 && --*left == 0) {
        return err_make(ERR_IO, "the in-memory store was told to fail");
    }
    return OK;
}

static struct err memory_get(struct kv *kv, struct arena *arena, struct kv_wanted wanted,
                             struct slice *value_out, bool *found_out)
{
    struct kv_memory *memory = (struct kv_memory *)kv;
    struct slice key = wanted.key;
    pthread_mutex_lock(&memory->lock);
    struct err err = fault(&memory->calls_left);
    if (err.code == 0) {
        const struct node *node = find(memory, key, NULL);
        *found_out = node && slice_eq(node->key_owned, key);
        *value_out = *found_out ? arena_copy(arena, node->value_owned) : (struct slice){0};
    }
    pthread_mutex_unlock(&memory->lock);
    return err;
}

static const struct node *scan_start(const struct kv_memory *memory, const struct kv_range *range)
{
    return range->reverse ? find_below(memory, range->to) : find(memory, range->from, NULL);
}

static bool in_range(const struct node *node, const struct kv_range *range)
{
    return node && slice_cmp(node->key_owned, range->to) < 0 &&
           slice_cmp(node->key_owned, range->from) >= 0;
}

static struct err memory_scan(struct kv *kv, const struct kv_range *range,
                              struct kv_visitor *visitor)
{
    struct kv_memory *memory = (struct kv_memory *)kv;
    pthread_mutex_lock(&memory->lock);
    struct err err = fault(&memory->calls_left);
    const struct node *node = err.code == 0 ? scan_start(memory, range) : NULL;
    while (in_range(node, range)) {
        enum kv_step step = visitor->visit_fn(visitor, node->key_owned, node->value_owned);
        if (step == KV_STEP_STOP) {
            break;
        }
        if (step == KV_STEP_SEEK) {
            node = find(memory, visitor->seek, NULL);
        } else {
            node = range->reverse ? find_below(memory, node->key_owned) : node->next[0];
        }
    }
    pthread_mutex_unlock(&memory->lock);
    return err;
}

static struct err memory_write(struct kv *kv, const struct kv_op *ops, size_t count)
{
    struct kv_memory *memory = (struct kv_memory *)kv;
    pthread_mutex_lock(&memory->lock);
    struct err err = fault(&memory->calls_left);
    for (size_t i = 0; err.code == 0 && i < count; i++) {
        switch (ops[i].type) {
        case KV_PUT:
            put(memory, ops[i].key, ops[i].value);
            break;
        case KV_DELETE:
            remove_key(memory, ops[i].key);
            break;
        case KV_DELETE_RANGE:
            remove_range(memory, ops[i].key, ops[i].value);
            break;
        }
    }
    pthread_mutex_unlock(&memory->lock);
    return err;
}

static struct err memory_flush(struct kv *kv)
{
    struct kv_memory *memory = (struct kv_memory *)kv;
    pthread_mutex_lock(&memory->lock);
    struct err err = fault(&memory->flushes_left);
    pthread_mutex_unlock(&memory->lock);
    return err;
}

static struct err memory_compact(struct kv *kv, struct slice from, struct slice to)
{
    (void)kv;
    (void)from;
    (void)to;
    return OK;
}

static struct err memory_copy(struct kv *kv, struct arena *arena, const char *path)
{
    (void)kv;
    (void)arena;
    (void)path;
    return err_make(ERR_INTERNAL, "memory has no files"); /* store_backup does not ask for it */
}

static uint64_t memory_disk_bytes(struct kv *kv)
{
    struct kv_memory *memory = (struct kv_memory *)kv;
    uint64_t bytes = 0;
    pthread_mutex_lock(&memory->lock);
    for (const struct node *node = memory->head->next[0]; node; node = node->next[0]) {
        bytes += node->key_owned.len + node->value_owned.len;
    }
    pthread_mutex_unlock(&memory->lock);
    return bytes;
}

static void memory_fail_after(struct kv *kv, int32_t calls)
{
    struct kv_memory *memory = (struct kv_memory *)kv;
    pthread_mutex_lock(&memory->lock);
    memory->calls_left = calls > 0 ? calls : 0;
    memory->flushes_left = calls < 0 ? -calls : 0;
    pthread_mutex_unlock(&memory->lock);
}

static void memory_close(struct kv *kv)
{
    struct kv_memory *memory = (struct kv_memory *)kv;
    struct node *node = memory->head->next[0];
    while (node) {
        struct node *next = node->next[0];
        node_free(node);
        node = next;
    }
    mem_free(memory->head);
    pthread_mutex_destroy(&memory->lock);
    mem_free(memory);
}

static void memory_figures(struct kv *kv, struct kv_figures *figures_out)
{
    (void)kv;
    *figures_out = (struct kv_figures){0};
}

struct kv *kv_memory_new(void)
{
    static const struct kv_ops ops = {
        .get_fn = memory_get,
        .scan_fn = memory_scan,
        .write_fn = memory_write,
        .flush_fn = memory_flush,
        .compact_fn = memory_compact,
        .drop_files_fn = memory_compact,
        .copy_fn = memory_copy,
        .disk_bytes_fn = memory_disk_bytes,
        .figures_fn = memory_figures,
        .fail_after_fn = memory_fail_after,
        .close_fn = memory_close,
    };
    struct kv_memory *memory = mem_alloc(sizeof *memory);
    memory->kv.ops = &ops;
    memory->head = node_new(LEVEL_MAX);
    memory->random = 1;
    pthread_mutex_init(&memory->lock, NULL);
    return &memory->kv;
}
