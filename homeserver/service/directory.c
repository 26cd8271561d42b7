#include "homeserver/service/directory.h"

#include "homeserver/service/appservices.h"
#include "homeserver/service/room_priv.h"

#include <stdlib.h>

static const struct store_object aliases = {STORE_ROOM_IDS, {"aliases", 7}};
static const struct store_object aliases_of = {STORE_ROOM_IDS, {"aliases_of", 10}};
static const struct store_object published = {STORE_ROOM_IDS, {"public", 6}};

static struct slice reverse_key(struct ctx *ctx, uint64_t room, struct slice alias)
{
    return arena_concat(ctx->arena, store_id_u64(ctx->arena, room), alias);
}

struct err hs_alias_set(struct hs *hs, struct ctx *ctx, struct slice alias, uint64_t room,
                        uint64_t creator)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, 32);
    pack_u64(&row, room);
    pack_u64(&row, creator);
    struct store_update *forward = store_update_new(ctx, aliases);
    struct store_update *reverse = store_update_new(ctx, aliases_of);
    store_expect(forward, alias, (struct slice){0});
    store_put(forward, alias, buf_slice(&row));
    store_put(reverse, reverse_key(ctx, room, alias), (struct slice){0});
    struct store_update *updates[] = {forward, reverse};
    struct err err = store_write(hs->store, ctx, updates, COUNT_OF(updates));
    hs_appservices_alias_changed(hs);
    if (err.code == ERR_CONFLICT) {
        return err_public(ERR_M_ALIAS_IN_USE, "The room alias exists already.");
    }
    return err;
}

struct err hs_alias_get(struct hs *hs, struct ctx *ctx, struct slice alias, uint64_t *room_out,
                        uint64_t *creator_out, bool *found_out)
{
    struct slice row;
    *found_out = false;
    if (alias.len == 0 || alias.len > STORE_ID_BYTES_MAX) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, aliases, alias, &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    *room_out = unpack_u64(&in);
    *creator_out = unpack_u64(&in);
    return unpack_check(&in);
}

struct err hs_alias_delete(struct hs *hs, struct ctx *ctx, struct slice alias)
{
    uint64_t room = 0;
    uint64_t creator = 0;
    bool found = false;
    TRY(hs_alias_get(hs, ctx, alias, &room, &creator, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The room alias does not exist.");
    }
    struct store_update *forward = store_update_new(ctx, aliases);
    struct store_update *reverse = store_update_new(ctx, aliases_of);
    store_delete(forward, alias);
    store_delete(reverse, reverse_key(ctx, room, alias));
    struct store_update *updates[] = {forward, reverse};
    struct err err = store_write(hs->store, ctx, updates, COUNT_OF(updates));
    hs_appservices_alias_changed(hs);
    return err;
}

struct err hs_aliases_of(struct hs *hs, struct ctx *ctx, uint64_t room, struct slice **aliases_out,
                         size_t *count_out)
{
    struct store_rows rows;
    struct store_range range = {.from = store_id_u64(ctx->arena, room),
                                .to = store_id_u64(ctx->arena, room + 1)};
    TRY(store_read_range(hs->store, ctx, aliases_of, range, &rows));
    *aliases_out = arena_array(ctx->arena, rows.count, sizeof **aliases_out);
    for (size_t i = 0; i < rows.count; i++) {
        (*aliases_out)[i] = slice_from(rows.rows[i].key, 8);
    }
    *count_out = rows.count;
    return OK;
}

struct err hs_public_set(struct hs *hs, struct ctx *ctx, uint64_t room, bool is_public)
{
    struct store_update *update = store_update_new(ctx, published);
    if (is_public) {
        store_put(update, store_id_u64(ctx->arena, room), (struct slice){0});
    } else {
        store_delete(update, store_id_u64(ctx->arena, room));
    }
    return store_write(hs->store, ctx, &update, 1);
}

struct err hs_public_get(struct hs *hs, struct ctx *ctx, uint64_t room, bool *is_public_out)
{
    struct slice row;
    return store_get(hs->store, ctx, published, store_id_u64(ctx->arena, room), &row,
                     is_public_out);
}

struct err hs_public_rooms(struct hs *hs, struct ctx *ctx, uint64_t **rooms_out, size_t *count_out)
{
    struct store_rows rows;
    TRY(store_read_range(hs->store, ctx, published, (struct store_range){0}, &rows));
    *rooms_out = arena_array(ctx->arena, rows.count, sizeof **rooms_out);
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(rows.rows[i].key);
        (*rooms_out)[i] = unpack_be64(&in);
    }
    *count_out = rows.count;
    return OK;
}

/* --- rooms of networks: packed service, packed network, be64 room --- */

static const struct store_object networks = {STORE_ROOM_IDS, {"networks", 8}};

static struct buf network_key(struct ctx *ctx, struct room_network network)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, STORE_KEY_BYTES_MAX);
    if (network.service.len > 0) {
        pack_bytes(&key, network.service);
        pack_bytes(&key, network.network);
    }
    return key;
}

struct err hs_network_set(struct hs *hs, struct ctx *ctx, struct room_network network,
                          uint64_t room, bool is_public)
{
    struct store_update *update = store_update_new(ctx, networks);
    struct buf key = network_key(ctx, network);
    pack_be64(&key, room);
    TRY(buf_check(&key));
    if (is_public) {
        store_put(update, buf_slice(&key), (struct slice){0});
    } else {
        store_delete(update, buf_slice(&key));
    }
    return store_write(hs->store, ctx, &update, 1);
}

static uint64_t room_of_key(struct slice key)
{
    struct unpack in = unpack_of(slice_from(key, key.len < 8 ? 0 : key.len - 8));
    return unpack_be64(&in);
}

static struct err network_rows(struct hs *hs, struct ctx *ctx, struct room_network network,
                               struct store_rows *rows_out)
{
    struct store_range range = {0};
    struct buf key = network_key(ctx, network);
    if (key.len > 0) {
        struct slice prefix = arena_copy(ctx->arena, buf_slice(&key));
        range.from = prefix;
        pack_be64(&key, UINT64_MAX);
        range.to = buf_slice(&key);
    }
    return store_read_range(hs->store, ctx, networks, range, rows_out);
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

struct err hs_network_rooms(struct hs *hs, struct ctx *ctx, struct room_network network,
                            uint64_t **rooms_out, size_t *count_out)
{
    struct store_rows rows;
    size_t kept = 0;
    TRY(network_rows(hs, ctx, network, &rows));
    uint64_t *rooms = arena_array(ctx->arena, rows.count + 1, sizeof *rooms);
    for (size_t i = 0; i < rows.count; i++) {
        rooms[i] = room_of_key(rows.rows[i].key);
    }
    qsort(rooms, rows.count, sizeof *rooms, by_number);
    for (size_t i = 0; i < rows.count; i++) {
        if (kept == 0 || rooms[kept - 1] != rooms[i]) {
            rooms[kept++] = rooms[i];
        }
    }
    *rooms_out = rooms;
    *count_out = kept;
    return OK;
}

struct err hs_network_forget(struct hs *hs, struct ctx *ctx, uint64_t room)
{
    struct store_rows rows;
    struct store_update *update = store_update_new(ctx, networks);
    bool any = false;
    TRY(network_rows(hs, ctx, (struct room_network){0}, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        if (room_of_key(rows.rows[i].key) == room) {
            store_delete(update, rows.rows[i].key);
            any = true;
        }
    }
    return any ? store_write(hs->store, ctx, &update, 1) : OK;
}

/* --- from room to room --- */

struct names_move {
    uint64_t from, to;
    struct store_update *forward, *reverse, *listing;
};

static struct err move_alias(struct hs *hs, struct ctx *ctx, struct names_move *move,
                             struct slice alias)
{
    struct slice row;
    struct buf moved;
    bool found = false;
    TRY(store_get(hs->store, ctx, aliases, alias, &row, &found));
    struct unpack in = unpack_of(found ? row : (struct slice){0});
    store_delete(move->reverse, reverse_key(ctx, move->from, alias));
    if (!found || unpack_u64(&in) != move->from) { /* it was deleted just now */
        return OK;
    }
    buf_init_arena(&moved, ctx->arena, 32);
    pack_u64(&moved, move->to);
    pack_u64(&moved, unpack_u64(&in));
    store_expect(move->forward, alias, row);
    store_put(move->forward, alias, buf_slice(&moved));
    store_put(move->reverse, reverse_key(ctx, move->to, alias), (struct slice){0});
    return OK;
}

static struct err move_once(struct hs *hs, struct ctx *ctx, uint64_t from, uint64_t to)
{
    struct names_move move = {from, to, store_update_new(ctx, aliases),
                              store_update_new(ctx, aliases_of), store_update_new(ctx, published)};
    struct store_update *updates[] = {move.forward, move.reverse, move.listing};
    struct slice *names = NULL;
    size_t count = 0;
    bool is_public = false;
    TRY(hs_aliases_of(hs, ctx, from, &names, &count));
    for (size_t i = 0; i < count; i++) {
        TRY(move_alias(hs, ctx, &move, names[i]));
    }
    TRY(hs_public_get(hs, ctx, from, &is_public));
    if (is_public) {
        store_delete(move.listing, store_id_u64(ctx->arena, from));
        store_put(move.listing, store_id_u64(ctx->arena, to), (struct slice){0});
    }
    return store_write(hs->store, ctx, updates, COUNT_OF(updates));
}

struct err hs_names_move(struct hs *hs, struct ctx *ctx, uint64_t from, uint64_t to)
{
    struct err err = err_make(ERR_CONFLICT, "not tried yet");
    while (err.code == ERR_CONFLICT) { /* an alias changed in between */
        err = move_once(hs, ctx, from, to);
    }
    hs_appservices_alias_changed(hs);
    return err;
}

struct err hs_room_resolve(struct hs *hs, struct ctx *ctx, struct slice room_id_or_alias,
                           struct room **room_out)
{
    uint64_t room = 0;
    uint64_t creator = 0;
    bool found = false;
    if (room_id_or_alias.len == 0 || room_id_or_alias.ptr[0] != '#') {
        return hs_room_get_by_id(hs, ctx, room_id_or_alias, room_out);
    }
    TRY(hs_alias_get(hs, ctx, room_id_or_alias, &room, &creator, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The room alias does not exist.");
    }
    return hs_room_get(hs, ctx, room, room_out);
}

struct err hs_alias_find_room(struct hs *hs, struct ctx *ctx, struct slice alias,
                              struct room **room_out)
{
    bool made = false;
    struct err err = hs_room_resolve(hs, ctx, alias, room_out);
    if (err.code != ERR_M_NOT_FOUND) {
        return err;
    }
    TRY(hs_appservices_ask_alias(hs, ctx, alias, &made));
    return made ? hs_room_resolve(hs, ctx, alias, room_out) : err;
}
