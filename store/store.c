#include "store/store_priv.h"

#include "homeserver/base/mem.h"
#include "spec/errcodes.h"

#include <string.h>

struct expect {
    struct slice key; /* stored form */
    struct slice value;
};

struct store_update {
    struct arena *arena;
    struct slice prefix; /* kind, id length, id */
    struct kv_op *ops;
    size_t op_count;
    size_t op_cap;
    struct expect *expects;
    size_t expect_count;
    size_t expect_cap;
    bool has_long_key; /* a key was longer than any may be: the write is refused */
};

/* --- stored keys: kind byte, id length byte, id, key. Ids of one kind cannot run into each other
 * because the length stands in front. --- */

static struct slice prefix_of(struct arena *arena, struct store_object object)
{
    ASSERT(object.id.len <= STORE_ID_BYTES_MAX);
    char *bytes = arena_alloc(arena, object.id.len + 2);
    bytes[0] = (char)object.kind;
    bytes[1] = (char)(unsigned char)object.id.len;
    if (object.id.len) {
        memcpy(bytes + 2, object.id.ptr, object.id.len);
    }
    return (struct slice){bytes, object.id.len + 2};
}

/* Bounds of ranges may be longer than keys can be: they sort where they should. */
static struct slice stored_key(struct arena *arena, struct slice prefix, struct slice key)
{
    return arena_concat(arena, prefix, key);
}

/* Keys hold what clients and servers name (transaction ids, types), so their length is checked, not
 * trusted. */
static struct slice written_key(struct store_update *update, struct slice key)
{
    update->has_long_key = update->has_long_key || key.len > STORE_KEY_BYTES_MAX;
    return stored_key(update->arena, update->prefix, key);
}

/* The first key behind all keys with this prefix. */
static struct slice prefix_end(struct arena *arena, struct slice prefix)
{
    struct slice end = arena_copy(arena, prefix);
    char *bytes = (char *)(uintptr_t)end.ptr;
    while (end.len > 1 && (unsigned char)bytes[end.len - 1] == 0xFF) {
        end.len--;
    }
    bytes[end.len - 1]++;
    return end;
}

struct slice store_id_u64(struct arena *arena, uint64_t number)
{
    struct buf out;
    buf_init_arena(&out, arena, 8);
    pack_be64(&out, number);
    return buf_slice(&out);
}

/* --- life --- */

static char *path_join(struct slice folder, const char *name)
{
    size_t name_len = strlen(name);
    char *path = mem_alloc(folder.len + name_len + 1);
    memcpy(path, folder.ptr, folder.len);
    memcpy(path + folder.len, name, name_len);
    return path;
}

static struct err open_folder(struct store *store, const struct store_config *config)
{
    store->path_owned = path_join(config->path, "");
    store->media_owned = path_join(config->path, "/media");
    TRY(folder_open(config->arena, store->path_owned, store->read_only, &store->lock_fd));
    if (!store->read_only) {
        folder_clean(store->media_owned);
    }
    char *path = path_join(config->path, "/db");
    struct err err = kv_rocksdb_open(config, path, &store->kv);
    mem_free(path);
    return err;
}

static struct err open_backend(struct store *store, const struct store_config *config)
{
    if (config->path.len == 0) {
        store->kv = kv_memory_new();
    } else {
        TRY(open_folder(store, config));
    }
    store->commit = commit_start(store->kv, store->log);
    struct ctx ctx = {.arena = arena_new(), .log = store->log};
    struct err err = migrate_run(store, &ctx);
    if (err.code == 0) {
        err = store_wait_durable(store, ctx.write_ticket);
    }
    arena_free(&ctx.arena);
    return err;
}

struct err store_open(const struct store_config *config, struct store **store_out)
{
    struct store *store = mem_alloc(sizeof *store);
    store->log = config->log;
    store->lock_fd = -1;
    store->read_only = config->access == STORE_READ_ONLY;
    pthread_mutex_init(&store->media_lock, NULL);
    for (size_t i = 0; i < STORE_STRIPES; i++) {
        pthread_mutex_init(&store->stripes[i], NULL);
    }
    struct err err = open_backend(store, config);
    if (err.code != 0) {
        store_close(&store);
        return err;
    }
    store_fail_after(store, config->fail_after_calls);
    *store_out = store;
    return OK;
}

void store_fail_after(struct store *store, int32_t calls)
{
    store->kv->ops->fail_after_fn(store->kv, calls);
}

void store_close(struct store **store)
{
    struct store *own = *store;
    if (!own) {
        return;
    }
    if (own->commit) {
        commit_stop(&own->commit);
    }
    if (own->kv) {
        own->kv->ops->close_fn(own->kv);
    }
    blob_deinit(own);
    folder_close(own->lock_fd);
    for (size_t i = 0; i < STORE_STRIPES; i++) {
        pthread_mutex_destroy(&own->stripes[i]);
    }
    pthread_mutex_destroy(&own->media_lock);
    mem_free(own->path_owned);
    mem_free(own);
    *store = NULL;
}

/* --- reading --- */

/* A loop serves many: it never waits for the disk. */
static struct err check_thread(const struct ctx *ctx)
{
    return ctx->on_loop ? err_make(ERR_WAITS, "the store is not used on a loop") : OK;
}

static enum kv_reading reading_of(const struct ctx *ctx)
{
    return ctx->reads_once ? KV_READ_ONCE : KV_READ_KEEP;
}

struct err store_get(struct store *store, struct ctx *ctx, struct store_object object,
                     struct slice key, struct slice *value_out, bool *found_out)
{
    *found_out = false;
    TRY(check_thread(ctx));
    if (key.len > STORE_KEY_BYTES_MAX) {
        return OK;
    }
    struct kv_wanted wanted = {.key = stored_key(ctx->arena, prefix_of(ctx->arena, object), key),
                               .reading = reading_of(ctx)};
    return store->kv->ops->get_fn(store->kv, ctx->arena, wanted, value_out, found_out);
}

struct row_reader {
    struct kv_visitor visitor;
    struct arena *arena;
    struct store_rows rows;
    size_t cap;
    size_t limit;
    size_t prefix_len;
};

static enum kv_step read_row(struct kv_visitor *self, struct slice key, struct slice value)
{
    struct row_reader *reader = (struct row_reader *)self;
    struct store_rows *rows = &reader->rows;
    if (rows->count == reader->cap) {
        size_t cap = reader->cap ? reader->cap * 2 : 16;
        rows->rows = arena_grow(reader->arena, rows->rows, reader->cap * sizeof *rows->rows,
                                cap * sizeof *rows->rows);
        reader->cap = cap;
    }
    rows->rows[rows->count++] = (struct store_row){
        .key = arena_copy(reader->arena, slice_from(key, reader->prefix_len)),
        .value = arena_copy(reader->arena, value),
    };
    return rows->count == reader->limit ? KV_STEP_STOP : KV_STEP_NEXT;
}

struct err store_read_range(struct store *store, struct ctx *ctx, struct store_object object,
                            struct store_range range, struct store_rows *rows_out)
{
    TRY(check_thread(ctx));
    struct slice prefix = prefix_of(ctx->arena, object);
    struct kv_range stored = {
        .from = stored_key(ctx->arena, prefix, range.from),
        .to = range.to.len ? stored_key(ctx->arena, prefix, range.to)
                           : prefix_end(ctx->arena, prefix),
        .reverse = range.order == STORE_REVERSE,
        .reading = reading_of(ctx),
    };
    struct row_reader reader = {
        .visitor.visit_fn = read_row,
        .arena = ctx->arena,
        .limit = range.limit,
        .prefix_len = prefix.len,
    };
    TRY(store->kv->ops->scan_fn(store->kv, &stored, &reader.visitor));
    *rows_out = reader.rows;
    return OK;
}

enum { OBJECTS_PER_SCAN = 256 };

struct object_reader {
    struct kv_visitor visitor;
    struct arena *arena;
    struct slice ids[OBJECTS_PER_SCAN];
    size_t count;
    struct slice next; /* stored key behind the last object seen */
};

static enum kv_step read_object(struct kv_visitor *self, struct slice key, struct slice value)
{
    struct object_reader *reader = (struct object_reader *)self;
    (void)value;
    size_t id_len = key.len > 1 ? (unsigned char)key.ptr[1] : 0;
    struct slice prefix = arena_copy(reader->arena, slice_sub(key, 0, id_len + 2));
    reader->ids[reader->count++] = slice_from(prefix, 2);
    reader->next = prefix_end(reader->arena, prefix);
    self->seek = reader->next;
    return reader->count == OBJECTS_PER_SCAN ? KV_STEP_STOP : KV_STEP_SEEK;
}

/* Ids are collected in portions, so that visit runs outside the backend and may use the store. */
struct err store_each_object(struct store *store, struct ctx *ctx, enum store_kind kind,
                             struct err (*visit)(void *arg, struct slice id), void *arg)
{
    TRY(check_thread(ctx));
    const char first = (char)kind;
    struct kv_range range = {.from = arena_copy(ctx->arena, (struct slice){&first, 1})};
    range.to = prefix_end(ctx->arena, range.from);
    size_t seen = OBJECTS_PER_SCAN;
    while (seen == OBJECTS_PER_SCAN) {
        struct object_reader reader = {.visitor.visit_fn = read_object, .arena = ctx->arena};
        TRY(store->kv->ops->scan_fn(store->kv, &range, &reader.visitor));
        for (size_t i = 0; i < reader.count; i++) {
            TRY(visit(arg, reader.ids[i]));
        }
        range.from = reader.next;
        seen = reader.count;
    }
    return OK;
}

/* --- writing --- */

struct store_update *store_update_new(struct ctx *ctx, struct store_object object)
{
    struct store_update *update = arena_alloc(ctx->arena, sizeof *update);
    update->arena = ctx->arena;
    update->prefix = prefix_of(ctx->arena, object);
    return update;
}

static void add_op(struct store_update *update, struct kv_op op)
{
    if (update->op_count == update->op_cap) {
        size_t cap = update->op_cap ? update->op_cap * 2 : 4;
        update->ops =
            arena_grow(update->arena, update->ops, update->op_cap * sizeof op, cap * sizeof op);
        update->op_cap = cap;
    }
    update->ops[update->op_count++] = op;
}

void store_put(struct store_update *update, struct slice key, struct slice value)
{
    add_op(update, (struct kv_op){
                       .type = KV_PUT,
                       .key = written_key(update, key),
                       .value = arena_copy(update->arena, value),
                   });
}

void store_delete(struct store_update *update, struct slice key)
{
    struct slice stored = written_key(update, key);
    add_op(update, (struct kv_op){.type = KV_DELETE, .key = stored});
}

void store_delete_range(struct store_update *update, struct slice from, struct slice to)
{
    struct kv_op op = {.type = KV_DELETE_RANGE};
    op.key = stored_key(update->arena, update->prefix, from);
    op.value = to.len ? stored_key(update->arena, update->prefix, to)
                      : prefix_end(update->arena, update->prefix);
    if (slice_cmp(op.key, op.value) < 0) {
        add_op(update, op);
    }
}

void store_expect(struct store_update *update, struct slice key, struct slice value)
{
    if (update->expect_count == update->expect_cap) {
        size_t cap = update->expect_cap ? update->expect_cap * 2 : 2;
        update->expects =
            arena_grow(update->arena, update->expects, update->expect_cap * sizeof *update->expects,
                       cap * sizeof *update->expects);
        update->expect_cap = cap;
    }
    update->expects[update->expect_count++] = (struct expect){
        .key = written_key(update, key),
        .value = value.ptr ? arena_copy(update->arena, value) : value,
    };
}

bool store_update_find(const struct store_update *update, struct slice key, struct slice *value_out)
{
    size_t prefix_len = update->prefix.len;
    for (size_t i = update->op_count; i-- > 0;) {
        const struct kv_op *op = &update->ops[i];
        if (op->type == KV_PUT && slice_eq(slice_from(op->key, prefix_len), key)) {
            *value_out = op->value;
            return true;
        }
    }
    return false;
}

static uint64_t stripes_of(struct store_update **updates, size_t count)
{
    uint64_t mask = 0;
    for (size_t i = 0; i < count; i++) {
        mask |= UINT64_C(1) << (slice_hash(updates[i]->prefix) % STORE_STRIPES);
    }
    return mask;
}

static void lock_stripes(struct store *store, uint64_t mask)
{
    for (; mask; mask &= mask - 1) {
        pthread_mutex_lock(&store->stripes[__builtin_ctzll(mask)]);
    }
}

static void unlock_stripes(struct store *store, uint64_t mask)
{
    for (; mask; mask &= mask - 1) {
        pthread_mutex_unlock(&store->stripes[__builtin_ctzll(mask)]);
    }
}

static struct err check_expects(struct store *store, struct ctx *ctx,
                                const struct store_update *update)
{
    for (size_t i = 0; i < update->expect_count; i++) {
        const struct expect *expect = &update->expects[i];
        struct slice value = {0};
        bool found = false;
        struct kv_wanted wanted = {.key = expect->key};
        TRY(store->kv->ops->get_fn(store->kv, ctx->arena, wanted, &value, &found));
        bool as_expected = expect->value.ptr ? found && slice_eq(value, expect->value) : !found;
        if (!as_expected) {
            return err_make(ERR_CONFLICT, "a stored value is not the expected one");
        }
    }
    return OK;
}

/* The operations of all updates as one batch. */
static struct store_update gather(struct ctx *ctx, struct store_update **updates, size_t count)
{
    if (count == 1) {
        return *updates[0];
    }
    struct store_update all = {.arena = ctx->arena};
    for (size_t i = 0; i < count; i++) {
        all.op_cap += updates[i]->op_count;
    }
    all.ops = arena_array(ctx->arena, all.op_cap, sizeof *all.ops);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < updates[i]->op_count; j++) {
            all.ops[all.op_count++] = updates[i]->ops[j];
        }
    }
    return all;
}

static void note_size(struct store *store, uint64_t rows)
{
    uint64_t largest = atomic_load(&store->largest_write_rows);
    while (rows > largest &&
           !atomic_compare_exchange_weak(&store->largest_write_rows, &largest, rows)) {
    }
}

static struct err check_and_apply(struct store *store, struct ctx *ctx,
                                  struct store_update **updates, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        TRY(check_expects(store, ctx, updates[i]));
    }
    struct store_update all = gather(ctx, updates, count);
    note_size(store, all.op_count);
    return all.op_count ? store->kv->ops->write_fn(store->kv, all.ops, all.op_count) : OK;
}

struct err store_write(struct store *store, struct ctx *ctx, struct store_update **updates,
                       size_t count)
{
    if (store->read_only) {
        return err_make(ERR_IO, "the store is open for reading only");
    }
    TRY(check_thread(ctx));
    TRY(commit_check(store->commit));
    if (count == 0) {
        return OK;
    }
    for (size_t i = 0; i < count; i++) {
        if (updates[i]->has_long_key) {
            return err_public(ERR_M_TOO_LARGE, "A name in the request is too long to be stored.");
        }
    }
    uint64_t stripes = stripes_of(updates, count);
    lock_stripes(store, stripes);
    struct err err = check_and_apply(store, ctx, updates, count);
    unlock_stripes(store, stripes);
    TRY(err);
    atomic_fetch_add(&store->write_count, 1);
    uint64_t ticket = commit_next_ticket(store->commit);
    if (ticket > ctx->write_ticket) {
        ctx->write_ticket = ticket;
    }
    return OK;
}

/* --- durability --- */

void store_when_durable(struct store *store, uint64_t ticket, store_durable_fn fn, void *arg)
{
    commit_when(store->commit, ticket, fn, arg);
}

uint64_t store_durable_ticket(struct store *store)
{
    return commit_durable(store->commit);
}

void store_on_flush(struct store *store, store_durable_fn fn, void *arg)
{
    commit_listen(store->commit, fn, arg);
}

struct sleeper {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool done;
    struct err err;
};

static void wake_sleeper(void *arg, struct err err)
{
    struct sleeper *sleeper = arg;
    pthread_mutex_lock(&sleeper->lock);
    sleeper->done = true;
    sleeper->err = err;
    pthread_cond_signal(&sleeper->wake);
    pthread_mutex_unlock(&sleeper->lock);
}

struct err store_wait_durable(struct store *store, uint64_t ticket)
{
    struct sleeper sleeper = {0};
    pthread_mutex_init(&sleeper.lock, NULL);
    pthread_cond_init(&sleeper.wake, NULL);
    store_when_durable(store, ticket, wake_sleeper, &sleeper);
    pthread_mutex_lock(&sleeper.lock);
    while (!sleeper.done) {
        pthread_cond_wait(&sleeper.wake, &sleeper.lock);
    }
    pthread_mutex_unlock(&sleeper.lock);
    pthread_cond_destroy(&sleeper.wake);
    pthread_mutex_destroy(&sleeper.lock);
    return sleeper.err;
}

/* --- figures --- */

void store_get_stats(struct store *store, struct store_stats *stats_out)
{
    uint64_t durable = commit_durable(store->commit);
    struct kv_figures figures;
    store->kv->ops->figures_fn(store->kv, &figures);
    *stats_out = (struct store_stats){
        .writes = atomic_load(&store->write_count),
        .largest_write_rows = atomic_load(&store->largest_write_rows),
        .flushes = commit_flush_count(store->commit),
        .disk_bytes = store->kv->ops->disk_bytes_fn(store->kv),
        .pending = commit_newest(store->commit) - durable,
        .cache_bytes = figures.cache_bytes,
        .memtable_bytes = figures.memtable_bytes,
        .block_reads = figures.reads,
    };
}

void store_tend(struct store *store, int64_t now_mono_ms)
{
    if (store->kv->ops->tend_fn) {
        store->kv->ops->tend_fn(store->kv, now_mono_ms);
    }
}

struct err store_check_writes(struct store *store)
{
    return commit_check(store->commit);
}

struct err store_compact(struct store *store, enum store_kind kind)
{
    const char from = (char)kind;
    const char to = (char)(kind + 1);
    return store->kv->ops->compact_fn(store->kv, (struct slice){&from, 1}, (struct slice){&to, 1});
}

/* No key of a row begins with the highest byte, and the one behind the object may be another's. */
struct err store_drop_files(struct store *store, struct ctx *ctx, struct store_object object)
{
    struct slice from = prefix_of(ctx->arena, object);
    struct slice to = arena_concat(ctx->arena, from, LIT("\xff"));
    return store->kv->ops->drop_files_fn(store->kv, from, to);
}

struct err store_compact_object(struct store *store, struct ctx *ctx, struct store_object object)
{
    struct slice from = prefix_of(ctx->arena, object);
    return store->kv->ops->compact_fn(store->kv, from, prefix_end(ctx->arena, from));
}
