#include "homeserver/service/purge.h"

#include "homeserver/service/directory.h"
#include "homeserver/service/news.h"
#include "homeserver/service/room_priv.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_PER_PAGE = 4000 };
enum purge_space { PURGE_FREES_SPACE, PURGE_LEAVES_SPACE };

/* (STORE_SERVER, "purges"): be64 room -> room id, until the purge is done. */
static const struct store_object notes = {STORE_SERVER, {"purges", 6}};
static const struct store_object room_ids = {STORE_ROOM_IDS, {"ids", 3}};
static const struct store_object room_numbers = {STORE_ROOM_IDS, {"numbers", 7}};
static const struct store_object aliases = {STORE_ROOM_IDS, {"aliases", 7}};
static const struct store_object aliases_of = {STORE_ROOM_IDS, {"aliases_of", 10}};
static const struct store_object published = {STORE_ROOM_IDS, {"public", 6}};
static const struct store_object event_ids = {STORE_EVENT_IDS, {"ids", 3}};

struct purge {
    struct hs *hs;
    struct ctx *ctx;
    struct ctx page; /* memory of one page of rows */
    uint64_t room;
    struct slice room_id;
    enum purge_space space;
    struct purge_result result;
};

static struct err write_one(struct purge *p, struct ctx *ctx, struct store_update *update)
{
    return store_write(p->hs->store, ctx, &update, 1);
}

/* --- page by page --- */

typedef struct err (*page_fn)(struct purge *p, const struct store_rows *rows);

static struct err each_page(struct purge *p, struct store_object object, char prefix, page_fn fn)
{
    char from[STORE_KEY_BYTES_MAX + 1] = {prefix};
    const char after = (char)(prefix + 1);
    struct store_range range = {.from = {from, 1}, .to = {&after, 1}, .limit = ROWS_PER_PAGE};
    struct store_rows rows = {.count = ROWS_PER_PAGE};
    while (rows.count == ROWS_PER_PAGE) {
        arena_reset(p->page.arena);
        TRY(store_read_range(p->hs->store, &p->page, object, range, &rows));
        TRY(fn(p, &rows));
        if (rows.count) {
            struct slice last = rows.rows[rows.count - 1].key;
            memcpy(from, last.ptr, last.len);
            from[last.len] = '\0';
            range.from = (struct slice){from, last.len + 1};
        }
    }
    return OK;
}

/* --- what users have of the room --- */

/* Rows that a user has of the room, each beginning with its position, and their places in the
 * index by position. */
static struct err drop_rows(struct purge *p, struct store_object user, struct store_update *update,
                            const char letters[2])
{
    struct store_rows rows;
    struct store_range range = {.from = key_u64(&p->page, letters[0], p->room),
                                .to = key_u64(&p->page, letters[0], p->room + 1)};
    TRY(store_read_range(p->hs->store, &p->page, user, range, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(rows.rows[i].value);
        store_delete(update, rows.rows[i].key);
        store_delete(update, key_u64(&p->page, letters[1], unpack_u64(&in)));
    }
    return OK;
}

static struct err drop_members(struct purge *p, const struct store_rows *rows)
{
    struct store_update **updates = arena_array(p->page.arena, rows->count, sizeof *updates);
    for (size_t i = 0; i < rows->count; i++) {
        struct unpack key = unpack_of(slice_from(rows->rows[i].key, 1));
        struct store_object user = user_object(&p->page, unpack_be64(&key));
        updates[i] = store_update_new(&p->page, user);
        store_delete(updates[i], key_u64(&p->page, USER_ROW_ROOM, p->room));
        TRY(drop_rows(p, user, updates[i], (char[]){USER_ROW_DATA, USER_ROW_DATA_BY_POS}));
        TRY(drop_rows(p, user, updates[i], (char[]){USER_ROW_THREAD, USER_ROW_THREAD_POS}));
    }
    p->result.members += rows->count;
    return store_write(p->hs->store, &p->page, updates, rows->count);
}

/* --- names and events --- */

static struct err drop_names(struct purge *p)
{
    struct slice *names = NULL;
    size_t count = 0;
    struct slice number = store_id_u64(p->ctx->arena, p->room);
    struct store_update *updates[] = {
        store_update_new(p->ctx, aliases),      store_update_new(p->ctx, aliases_of),
        store_update_new(p->ctx, published),    store_update_new(p->ctx, room_ids),
        store_update_new(p->ctx, room_numbers), store_update_new(p->ctx, rooms_purged_object())};
    TRY(hs_network_forget(p->hs, p->ctx, p->room));
    TRY(hs_aliases_of(p->hs, p->ctx, p->room, &names, &count));
    for (size_t i = 0; i < count; i++) {
        store_delete(updates[0], names[i]);
        store_delete(updates[1], arena_concat(p->ctx->arena, number, names[i]));
    }
    store_delete(updates[2], number);
    store_delete(updates[3], p->room_id);
    store_delete(updates[4], number);
    store_put(updates[5], number, (struct slice){0}); /* it never names another room */
    return store_write(p->hs->store, p->ctx, updates, COUNT_OF(updates));
}

static int by_bytes(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

/* In the order of the store: neighbours go to the same place in its memory. */
static struct err drop_event_ids(struct purge *p, const struct store_rows *rows)
{
    struct store_update *update = store_update_new(&p->page, event_ids);
    struct slice *ids = arena_array(p->page.arena, rows->count, sizeof *ids);
    size_t count = 0;
    for (size_t i = 0; i < rows->count; i++) {
        struct room_record record;
        struct err err = room_record_decode(p->page.arena, rows->rows[i].value, &record);
        if (err.code == 0) { /* a damaged row must not keep the room alive */
            ids[count++] = record.event_id;
        }
    }
    if (count) {
        qsort(ids, count, sizeof *ids, by_bytes);
    }
    for (size_t i = 0; i < count; i++) {
        store_delete(update, ids[i]);
    }
    p->result.events += rows->count;
    return write_one(p, &p->page, update);
}

static struct err drop_objects(struct purge *p)
{
    const struct store_object objects[] = {room_derived_object(p->ctx, p->room),
                                           room_state_object(p->ctx, p->room),
                                           room_object(p->ctx, p->room)};
    for (size_t i = 0; i < COUNT_OF(objects); i++) {
        struct store_update *update = store_update_new(p->ctx, objects[i]);
        if (p->space == PURGE_FREES_SPACE) {
            TRY(store_drop_files(p->hs->store, p->ctx, objects[i]));
        }
        store_delete_range(update, (struct slice){0}, (struct slice){0});
        TRY(write_one(p, p->ctx, update));
    }
    state_forget(p->hs->states, p->room);
    struct store_update *done = store_update_new(p->ctx, notes);
    store_delete(done, store_id_u64(p->ctx->arena, p->room));
    TRY(write_one(p, p->ctx, done));
    for (size_t i = 0; p->space == PURGE_FREES_SPACE && i < COUNT_OF(objects); i++) {
        TRY(store_compact_object(p->hs->store, p->ctx, objects[i]));
    }
    return OK;
}

/* Members first: whoever syncs meanwhile must not find a room in a list that is not there. */
static struct err purge_all(struct purge *p)
{
    struct store_object log = room_object(p->ctx, p->room);
    struct store_object derived = room_derived_object(p->ctx, p->room);
    struct store_update *note = store_update_new(p->ctx, notes);
    store_put(note, store_id_u64(p->ctx->arena, p->room), p->room_id);
    TRY(write_one(p, p->ctx, note));
    TRY(each_page(p, derived, DERIVED_KEY_MEMBER, drop_members));
    TRY(each_page(p, derived, DERIVED_KEY_INVITED, drop_members));
    struct store_update *partial[2];
    room_partial_put(p->ctx, &(struct room){.number = p->room}, NULL, partial);
    TRY(store_write(p->hs->store, p->ctx, partial, COUNT_OF(partial)));
    TRY(drop_names(p));
    TRY(each_page(p, log, ROOM_KEY_EVENT, drop_event_ids));
    return drop_objects(p);
}

static struct err purge_in_lane(struct purge *p)
{
    struct room *room = NULL;
    int64_t began = now_mono_ms(p->ctx->now);
    /* Held, so that all jobs share the room that is marked as gone. A damaged room that cannot be
     * loaded can be purged all the same. */
    struct err loaded = hs_room_get(p->hs, p->ctx, p->room, &room);
    if (loaded.code == 0) {
        room->is_purged = true;
    }
    p->page = *p->ctx;
    p->page.deferred = NULL;
    p->page.arena = arena_new();
    struct err err = purge_all(p);
    arena_free(&p->page.arena);
    if (p->page.write_ticket > p->ctx->write_ticket) {
        p->ctx->write_ticket = p->page.write_ticket;
    }
    rooms_drop(p->hs, p->room, p->room_id);
    p->result.took_ms = now_mono_ms(p->ctx->now) - began;
    return err;
}

static struct err run(struct purge *purge)
{
    uint64_t lane = lane_of_room(purge->room);
    workers_lane_enter(purge->hs->workers, lane);
    struct err err = purge_in_lane(purge);
    workers_lane_leave(purge->hs->workers, lane);
    hs_news_purged(purge->hs, purge->room);
    return err;
}

static struct err purge_known(struct purge *purge)
{
    struct slice row;
    struct slice version;
    bool found = false;
    struct slice key = store_id_u64(purge->ctx->arena, purge->room);
    TRY(store_get(purge->hs->store, purge->ctx, room_numbers, key, &row, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "Room not found.");
    }
    purge->room_id = slice_cut(row, '\0', &version);
    return run(purge);
}

struct err hs_room_purge(struct hs *hs, struct ctx *ctx, uint64_t room,
                         struct purge_result *result_out)
{
    struct purge purge = {.hs = hs, .ctx = ctx, .room = room};
    struct err err = purge_known(&purge);
    *result_out = purge.result;
    TRY(err);
    log_info(hs->log, "room_purged", .room = purge.room_id, .ms = result_out->took_ms);
    return OK;
}

struct err hs_room_take_back(struct hs *hs, struct ctx *ctx, uint64_t room)
{
    struct purge purge = {.hs = hs, .ctx = ctx, .room = room, .space = PURGE_LEAVES_SPACE};
    struct err err = purge_known(&purge);
    return err.code == ERR_M_NOT_FOUND ? OK : err;
}

struct err hs_purges_finish(struct hs *hs, struct ctx *ctx)
{
    struct store_rows rows;
    TRY(store_read_range(hs->store, ctx, notes, (struct store_range){0}, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(rows.rows[i].key);
        struct purge purge = {
            .hs = hs, .ctx = ctx, .room = unpack_be64(&key), .room_id = rows.rows[i].value};
        TRY(run(&purge));
        log_info(hs->log, "purge_finished", .room = purge.room_id, .ms = purge.result.took_ms);
    }
    return OK;
}
