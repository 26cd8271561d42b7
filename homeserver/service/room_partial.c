/* Rooms joined with part of their state: what is remembered of them until the rest is here. */
#include "homeserver/service/intake.h"
#include "homeserver/service/room_priv.h"

/* be64 room that is partial, or has a rest to do -> nothing. */
static const struct store_object partial_rooms = {STORE_SERVER, {"partial", 7}};

static struct slice row_key(struct ctx *ctx)
{
    return key_bytes(ctx, ROOM_KEY_PARTIAL, (struct slice){0});
}

static struct slice rest_key(struct ctx *ctx)
{
    return key_bytes(ctx, ROOM_KEY_REST, (struct slice){0});
}

static struct slice whole_key(struct ctx *ctx)
{
    return key_bytes(ctx, ROOM_KEY_WHOLE, (struct slice){0});
}

static void pack_servers(struct buf *row, const struct slice *servers, size_t count)
{
    pack_u64(row, count);
    for (size_t i = 0; i < count; i++) {
        pack_bytes(row, servers[i]);
    }
}

static struct err unpack_servers(struct ctx *ctx, struct unpack *in, const struct slice **list_out,
                                 size_t *count_out)
{
    uint64_t count = unpack_u64(in);
    if (in->bad || count > in->rest.len) {
        return err_make(ERR_CORRUPT, "a room does not say what it lacks");
    }
    struct slice *servers = arena_array(ctx->arena, (size_t)count + 1, sizeof *servers);
    for (uint64_t i = 0; i < count; i++) {
        servers[i] = unpack_bytes(in);
    }
    *list_out = servers;
    *count_out = (size_t)count;
    return unpack_check(in);
}

void room_partial_put(struct ctx *ctx, const struct room *room, const struct room_partial *partial,
                      struct store_update *updates_out[2])
{
    struct slice number = store_id_u64(ctx->arena, room->number);
    struct buf row;
    updates_out[0] = store_update_new(ctx, room_object(ctx, room->number));
    updates_out[1] = store_update_new(ctx, partial_rooms);
    store_delete(updates_out[0], rest_key(ctx));
    if (!partial) {
        store_delete(updates_out[0], row_key(ctx));
        store_delete(updates_out[1], number);
        return;
    }
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_i64(&row, partial->join);
    pack_i64(&row, partial->apart);
    pack_servers(&row, partial->servers, partial->server_count);
    store_put(updates_out[0], row_key(ctx), buf_slice(&row));
    store_put(updates_out[1], number, (struct slice){0});
}

void room_rest_put(struct ctx *ctx, const struct room *room, const struct room_rest *rest,
                   struct store_update *updates_out[2])
{
    struct buf row;
    updates_out[0] = store_update_new(ctx, room_object(ctx, room->number));
    updates_out[1] = store_update_new(ctx, partial_rooms);
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_i64(&row, rest->apart);
    pack_u64(&row, rest->before);
    pack_servers(&row, rest->servers, rest->server_count);
    store_delete(updates_out[0], row_key(ctx));
    store_put(updates_out[0], rest_key(ctx), buf_slice(&row));
    store_put(updates_out[1], store_id_u64(ctx->arena, room->number), (struct slice){0});
}

struct err hs_room_rest(struct hs *hs, struct ctx *ctx, struct room *room,
                        struct room_rest *rest_out, bool *found_out)
{
    struct slice row;
    *rest_out = (struct room_rest){0};
    TRY(store_get(hs->store, ctx, room_object(ctx, room->number), rest_key(ctx), &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    rest_out->apart = unpack_i64(&in);
    rest_out->before = unpack_u64(&in);
    return unpack_servers(ctx, &in, &rest_out->servers, &rest_out->server_count);
}

static struct err end_rest(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct store_update *updates[2];
    if (room->is_partial) { /* joined again meanwhile, which has put both rows in order */
        return OK;
    }
    room_partial_put(ctx, room, NULL, updates);
    return store_write(hs->store, ctx, updates, COUNT_OF(updates));
}

struct err hs_room_rest_done(struct hs *hs, struct ctx *ctx, struct room *room)
{
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = room_check_there(room);
    if (err.code == 0) {
        err = end_rest(hs, ctx, room);
    }
    workers_lane_leave(hs->workers, lane);
    return err;
}

static struct err read_row(struct hs *hs, struct ctx *ctx, const struct room *room,
                           struct slice *row_out, bool *found_out)
{
    return store_get(hs->store, ctx, room_object(ctx, room->number), row_key(ctx), row_out,
                     found_out);
}

struct err room_partial_get(struct hs *hs, struct ctx *ctx, struct room *room,
                            struct room_partial *partial_out)
{
    struct slice row = {0};
    bool found = false;
    struct room_partial partial = {0};
    TRY(read_row(hs, ctx, room, &row, &found));
    struct unpack in = unpack_of(row);
    partial.join = unpack_i64(&in);
    partial.apart = unpack_i64(&in);
    TRY(found ? OK : err_make(ERR_CORRUPT, "a room does not say what it lacks"));
    TRY(unpack_servers(ctx, &in, &partial.servers, &partial.server_count));
    *partial_out = partial;
    return OK;
}

void room_partial_set(struct room *room, int64_t join)
{
    pthread_mutex_lock(&room->lock);
    room->is_partial = join != 0;
    room->partial_join = join;
    pthread_mutex_unlock(&room->lock);
}

bool room_state_is_known(const struct room *room, const struct stored_event *event)
{
    return !(event->flags & EVENT_PARTIAL) ||
           (room->is_partial && event->number >= room->partial_join);
}

struct err room_partial_load(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct slice row;
    bool found = false;
    TRY(read_row(hs, ctx, room, &row, &room->is_partial));
    if (room->is_partial) {
        struct unpack partial = unpack_of(row);
        room->partial_join = unpack_i64(&partial);
        TRY(partial.bad ? err_make(ERR_CORRUPT, "a room does not say what it lacks") : OK);
    }
    TRY(store_get(hs->store, ctx, room_object(ctx, room->number), whole_key(ctx), &row, &found));
    struct unpack in = unpack_of(found ? row : (struct slice){0});
    room->whole_pos = found ? unpack_u64(&in) : 0;
    TRY(room_ahead_load(hs, ctx, room));
    return found ? unpack_check(&in) : OK;
}

void room_partial_put_end(struct ctx *ctx, struct store_update *update, uint64_t pos)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, 16);
    pack_u64(&row, pos);
    store_put(update, whole_key(ctx), buf_slice(&row));
}

void room_partial_end(struct room *room, uint64_t pos)
{
    pthread_mutex_lock(&room->lock);
    room->is_partial = false;
    room->partial_join = 0;
    room->whole_pos = pos;
    pthread_mutex_unlock(&room->lock);
}

uint64_t hs_room_whole_pos(struct room *room)
{
    pthread_mutex_lock(&room->lock);
    uint64_t pos = room->whole_pos;
    pthread_mutex_unlock(&room->lock);
    return pos;
}

bool hs_room_is_partial(struct room *room)
{
    pthread_mutex_lock(&room->lock);
    bool is_partial = room->is_partial;
    pthread_mutex_unlock(&room->lock);
    return is_partial;
}

struct err hs_rooms_partial(struct hs *hs, struct ctx *ctx, uint64_t **rooms_out, size_t *count_out)
{
    struct store_rows rows;
    TRY(store_read_range(hs->store, ctx, partial_rooms, (struct store_range){0}, &rows));
    *rooms_out = arena_array(ctx->arena, rows.count + 1, sizeof **rooms_out);
    *count_out = rows.count;
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack key = unpack_of(rows.rows[i].key);
        (*rooms_out)[i] = unpack_be64(&key);
    }
    return OK;
}
