#include "homeserver/service/relations.h"

#include "homeserver/service/room_priv.h"

#include <stdlib.h>

enum { RELATIONS_MAX = 10000 };

struct gathering {
    struct hs_relations found;
    size_t cap;
};

static void add_rows(struct ctx *ctx, struct gathering *g, const struct relation_rows *rows)
{
    if (g->cap - g->found.count < rows->count) {
        size_t cap = (g->found.count + rows->count) * 2;
        g->found.items = arena_grow(ctx->arena, g->found.items, g->cap * sizeof *g->found.items,
                                    cap * sizeof *g->found.items);
        g->cap = cap;
    }
    for (size_t i = 0; i < rows->count; i++) {
        const struct relation_row *row = &rows->items[i];
        g->found.items[g->found.count++] =
            (struct hs_relation){row->child, row->sender, row->rel_type, row->type, row->key};
    }
}

static int by_number(const void *a, const void *b)
{
    const struct hs_relation *left = a;
    const struct hs_relation *right = b;
    return (left->number > right->number) - (left->number < right->number);
}

/* The children of one level's events are the next level. */
static struct err add_level(struct hs *hs, struct ctx *ctx, struct room *room, struct gathering *g,
                            size_t from, size_t to)
{
    for (size_t i = from; i < to && g->found.count < RELATIONS_MAX; i++) {
        struct stored_event child;
        struct relation_rows rows;
        bool found = false;
        TRY(hs_event_scan(hs, ctx, room, g->found.items[i].number, &child, &found));
        if (found && (child.flags & EVENT_RELATED)) {
            TRY(room_relations(hs, ctx, room, child.event.id.s, &rows));
            add_rows(ctx, g, &rows);
        }
    }
    return OK;
}

struct err hs_relations_of(struct hs *hs, struct ctx *ctx, struct room *room, struct slice event_id,
                           size_t levels, struct hs_relations *relations_out)
{
    struct gathering gathering = {0};
    struct relation_rows rows;
    size_t from = 0;
    TRY(room_relations(hs, ctx, room, event_id, &rows));
    add_rows(ctx, &gathering, &rows);
    for (size_t level = 1; level < levels; level++) {
        size_t to = gathering.found.count;
        TRY(add_level(hs, ctx, room, &gathering, from, to));
        from = to;
    }
    if (levels > 1 && gathering.found.count > 1) {
        qsort(gathering.found.items, gathering.found.count, sizeof *gathering.found.items,
              by_number);
    }
    *relations_out = gathering.found;
    return OK;
}

struct err hs_threads_before(struct hs *hs, struct ctx *ctx, struct room *room, int64_t before,
                             struct hs_threads *threads_out)
{
    struct store_rows rows;
    struct store_range range = {.from = key_bytes(ctx, DERIVED_KEY_THREADS, (struct slice){0}),
                                .to = key_i64(ctx, DERIVED_KEY_THREADS, before),
                                .order = STORE_REVERSE};
    TRY(store_read_range(hs->store, ctx, room_derived_object(ctx, room->number), range, &rows));
    struct hs_threads threads = {arena_array(ctx->arena, rows.count, sizeof *threads.items), 0};
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        threads.items[threads.count++] =
            (struct hs_thread){rows.rows[i].value, unpack_be_i64(&key)};
    }
    *threads_out = threads;
    return OK;
}

struct err hs_thread_has_user(struct hs *hs, struct ctx *ctx, struct room *room, struct slice root,
                              uint64_t user, bool *has_out)
{
    struct relation_rows rows;
    *has_out = false;
    TRY(room_relations(hs, ctx, room, root, &rows));
    for (size_t i = 0; i < rows.count && !*has_out; i++) {
        *has_out =
            rows.items[i].sender == user && slice_eq(rows.items[i].rel_type, LIT("m.thread"));
    }
    return OK;
}
