/* Making rooms known: their ids and numbers, before or without a log. */
#include "homeserver/service/room_priv.h"

/* be64 number -> version NUL room id. */
static const struct store_object room_numbers = {STORE_ROOM_IDS, {"numbers", 7}};

/* Rows that make the room known; they are written before its first event. */
struct err rooms_write_names(struct hs *hs, struct ctx *ctx, const struct room *room)
{
    struct room_info info = hs_room_info(room);
    struct buf number;
    buf_init_arena(&number, ctx->arena, 16);
    pack_u64(&number, room->number);
    struct store_update *ids =
        store_update_new(ctx, (struct store_object){STORE_ROOM_IDS, LIT("ids")});
    struct store_update *numbers =
        store_update_new(ctx, (struct store_object){STORE_ROOM_IDS, LIT("numbers")});
    store_expect(ids, info.room_id, (struct slice){0});
    store_put(ids, info.room_id, buf_slice(&number));
    store_put(numbers, store_id_u64(ctx->arena, room->number),
              state_pair(ctx, room->rules->version, info.room_id));
    struct store_update *updates[] = {numbers, ids};
    return store_write(hs->store, ctx, updates, COUNT_OF(updates));
}

/* Who invites to a room may have told a wrong version of it: that holds only once there is a log.
 */
static struct err match_version(struct hs *hs, struct ctx *ctx, uint64_t number,
                                const struct room_rules *rules)
{
    struct slice row;
    struct slice version;
    struct store_rows events;
    bool found = false;
    struct slice key = store_id_u64(ctx->arena, number);
    struct store_range live = {.from = key_i64(ctx, ROOM_KEY_EVENT, 1),
                               .to = key_i64(ctx, ROOM_KEY_EVENT, INT64_MAX),
                               .limit = 1};
    TRY(store_get(hs->store, ctx, room_numbers, key, &row, &found));
    struct slice room_id = slice_cut(row, '\0', &version);
    if (!found || slice_eq(version, rules->version)) {
        return OK;
    }
    TRY(store_read_range(hs->store, ctx, room_object(ctx, number), live, &events));
    if (events.count) {
        return err_public(ERR_M_INCOMPATIBLE_ROOM_VERSION, "The room has another version here.");
    }
    struct store_update *numbers = store_update_new(ctx, room_numbers);
    store_put(numbers, key, state_pair(ctx, rules->version, room_id));
    TRY(store_write(hs->store, ctx, &numbers, 1));
    rooms_drop(hs, number, room_id);
    return OK;
}

struct err rooms_open(struct hs *hs, struct ctx *ctx, struct slice room_id,
                      const struct room_rules *rules, struct room **room_out)
{
    uint64_t number = 0;
    bool found = false;
    struct err err = OK;
    TRY(hs_room_find(hs, ctx, room_id, &number, &found));
    if (!found) {
        number = rooms_next_number(hs, ctx, &err);
        TRY(err);
        struct room shape = {.number = number, .rules = rules, .room_id_len = room_id.len};
        shape.room_id_owned = arena_cstr(ctx->arena, room_id);
        err = rooms_write_names(hs, ctx, &shape);
        if (err.code == ERR_CONFLICT) { /* another job was faster */
            TRY(hs_room_find(hs, ctx, room_id, &number, &found));
        } else {
            TRY(err);
        }
    }
    TRY(match_version(hs, ctx, number, rules));
    return hs_room_get(hs, ctx, number, room_out);
}
