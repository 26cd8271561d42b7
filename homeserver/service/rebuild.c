#include "homeserver/service/rebuild.h"

#include "homeserver/service/check_priv.h"

#include <stdlib.h>
#include <string.h>

static struct err write_one(struct checker *c, struct store_update *update)
{
    return store_write(c->hs->store, &c->page, &update, 1);
}

struct err rebuild_put(struct checker *c, const struct check_place *place, struct slice value)
{
    struct store_update *update = store_update_new(&c->page, place->object);
    store_put(update, place->key, value);
    return write_one(c, update);
}

struct err rebuild_delete(struct checker *c, const struct check_place *place)
{
    struct store_update *update = store_update_new(&c->page, place->object);
    store_delete(update, place->key);
    return write_one(c, update);
}

/* --- records --- */

static struct err put_record(struct checker *c, uint64_t room, int64_t number,
                             const struct room_record *record)
{
    struct buf row;
    buf_init_arena(&row, c->page.arena, SIZE_MAX / 2);
    room_record_encode(&row, record);
    struct store_update *update = store_update_new(&c->page, room_object(&c->page, room));
    store_put(update, key_i64(&c->page, ROOM_KEY_EVENT, number), buf_slice(&row));
    struct err err = write_one(c, update);
    row_cache_drop(c->hs->rooms->rows_owned, room, number);
    return err;
}

struct err rebuild_record(struct room_walk *w)
{
    struct room_record record;
    bool found = false;
    /* Read again: a mark may have been set since the page was read. */
    TRY(check_record_load(w->c, w->shape.number, w->number, &record, &found));
    if (!found) {
        return OK;
    }
    uint32_t marks = record.flags;
    record = w->record;
    record.flags |= marks & EVENT_RELATED;
    return put_record(w->c, w->shape.number, w->number, &record);
}

struct err rebuild_flag(struct checker *c, uint64_t room, int64_t number, uint32_t flag)
{
    struct room_record record;
    bool found = false;
    TRY(check_record_load(c, room, number, &record, &found));
    if (!found) {
        return OK;
    }
    record.flags |= flag;
    return put_record(c, room, number, &record);
}

/* --- snapshots --- */

static int by_key(const void *a, const void *b)
{
    const struct state_entry *left = a;
    const struct state_entry *right = b;
    return (left->key > right->key) - (left->key < right->key);
}

static struct state_entries state_so_far(struct room_walk *w)
{
    struct state_entries all = {0};
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    all.items = arena_array(w->c->page.arena, map_count(w->state) + 1, sizeof *all.items);
    while (map_next(w->state, &cursor, &key, &value)) {
        struct state_entry *entry = &all.items[all.count++];
        entry->event = (int64_t)value;
        memcpy(&entry->key, key.ptr, sizeof entry->key);
    }
    qsort(all.items, all.count, sizeof *all.items, by_key);
    return all;
}

/* One change upon `base`; when base cannot be read, everything upon nothing. */
struct err rebuild_snapshot(struct room_walk *w, uint64_t base, uint64_t key, uint64_t *root_out)
{
    struct checker *c = w->c;
    struct state_entry change = {.key = key, .event = w->number};
    struct store_update *update =
        store_update_new(&c->page, room_state_object(&c->page, w->shape.number));
    struct err err = key ? state_apply(c->hs->states, &c->page, w->shape.number, base, &change, 1,
                                       update, root_out)
                         : err_make(ERR_CORRUPT, "all of it is wanted");
    if (check_is_damage(err)) {
        struct state_entries all = state_so_far(w);
        update = store_update_new(&c->page, room_state_object(&c->page, w->shape.number));
        err = state_apply(c->hs->states, &c->page, w->shape.number, 0, all.items, all.count, update,
                          root_out);
    }
    TRY(err);
    w->state_was_healed = true;
    return write_one(c, update);
}

struct roots {
    uint64_t *items;
    size_t count, cap;
};

static void add_root(struct checker *c, struct roots *roots, uint64_t root)
{
    if (roots->count && roots->items[roots->count - 1] == root) {
        return;
    }
    if (roots->count == roots->cap) {
        size_t cap = roots->cap ? roots->cap * 2 : 256;
        roots->items =
            arena_grow(c->room.arena, roots->items, roots->cap * sizeof root, cap * sizeof root);
        roots->cap = cap;
    }
    roots->items[roots->count++] = root;
}

static struct err visit_roots(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_record record;
    int64_t moved = 0;
    if (room_forward_decode(row->value, &moved)) {
        return OK;
    }
    TRY(room_record_decode(c->page.arena, row->value, &record));
    add_root(c, arg, record.state_before);
    add_root(c, arg, record.state_after);
    add_root(c, arg, record.room_root);
    add_root(c, arg, room_record_root(&record));
    return OK;
}

struct err rebuild_sweep(struct room_walk *w)
{
    struct roots roots = {0};
    uint64_t removed = 0;
    struct err err = check_each_row(w->c, w->log, ROOM_KEY_EVENT, visit_roots, &roots);
    if (err.code == 0) {
        err = state_sweep(w->c->hs->states, &w->c->page, w->shape.number, roots.items, roots.count,
                          &removed);
    }
    /* What cannot be read may still be needed: then everything stays. */
    return check_is_damage(err) ? OK : err;
}

struct err hs_rebuild(struct hs *hs, struct ctx *ctx, const struct check_options *options,
                      struct check_result *result_out)
{
    return check_run(hs, ctx, CHECK_REBUILD, options, result_out);
}
