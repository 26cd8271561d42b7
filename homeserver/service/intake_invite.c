/* Invites to and knocks at rooms that this server is not in: a row of the user, without a log. */
#include "homeserver/base/json_out.h"
#include "homeserver/service/intake_priv.h"
#include "homeserver/service/users.h"

/* What comes with an invite is shown before anybody has agreed to anything, is read with each list
 * of the user's rooms, and has no bound in the specification. An event of it that does not fit any
 * more is left out. */
enum { STRIPPED_BYTES_MAX = 1 << 16 };

static void write_member(struct json_out *out, const struct json *event, struct slice name)
{
    const struct json *value = json_get(event, name);
    if (value) {
        json_out_key(out, name);
        json_out_value(out, value);
    }
}

/* Spec: client-server, "Stripped state": four members of each event. What lacks one, or has it in
 * another form, is kept from clients. */
static void write_stripped(struct json_out *out, const struct json *event)
{
    if (event->type != JSON_OBJECT || !json_get_string(event, LIT("type")).ptr ||
        !json_get_string(event, LIT("state_key")).ptr || !json_get_object(event, LIT("content")) ||
        !ids_is_user(json_get_string(event, LIT("sender")))) {
        return;
    }
    json_out_object(out);
    write_member(out, event, LIT("type"));
    write_member(out, event, LIT("state_key"));
    write_member(out, event, LIT("sender"));
    write_member(out, event, LIT("content"));
    json_out_object_end(out);
}

static bool is_own(const struct json *stripped, const struct event *event)
{
    return json_is_string(json_get(stripped, LIT("type")), event->type) &&
           json_is_string(json_get(stripped, LIT("state_key")), event->state_key);
}

/* The events given, and the member event itself in place of what is said of it. */
static struct slice stripped_of(struct ctx *ctx, const struct intake_invite *invite)
{
    struct buf buf;
    const struct json *given = invite->room_state;
    buf_init_arena(&buf, ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    json_out_array(&out);
    for (uint32_t i = 0; given && given->type == JSON_ARRAY && i < given->count; i++) {
        if (!is_own(&given->items[i], invite->event) &&
            buf.len + json_canonical(ctx->arena, &given->items[i]).len < STRIPPED_BYTES_MAX) {
            write_stripped(&out, &given->items[i]);
        }
    }
    write_stripped(&out, event_tree(ctx->arena, invite->event));
    json_out_array_end(&out);
    return buf_slice(&buf);
}

struct user_change {
    uint64_t user;
    enum membership membership;
    struct slice invite_state;
    int64_t number; /* of the event, stored as an outlier; 0 = none */
};

static struct err write_entry(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct user_change *change)
{
    struct user_room entry;
    struct buf row;
    bool found = false;
    TRY(hs_user_room(hs, ctx, change->user, room->number, &entry, &found));
    if (entry.membership == MEMBERSHIP_JOIN) {
        return err_public(ERR_M_FORBIDDEN, "The user is in the room already.");
    }
    struct change published = {.pos = positions_reserve(hs->positions),
                               .kind = CHANGE_MEMBERSHIP,
                               .room = room->number,
                               .user = change->user};
    entry.previous = entry.membership;
    entry.membership = change->membership;
    entry.forgotten = entry.forgotten && change->membership == MEMBERSHIP_LEAVE;
    entry.number = change->number;
    entry.pos = published.pos;
    entry.invite_state = change->invite_state;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    user_room_encode(&row, &entry);
    struct store_update *update = store_update_new(ctx, user_object(ctx, change->user));
    store_put(update, key_u64(ctx, USER_ROW_ROOM, room->number), buf_slice(&row));
    struct store_update *derived = store_update_new(ctx, room_derived_object(ctx, room->number));
    store_put(derived, key_u64(ctx, DERIVED_KEY_INVITED, change->user), (struct slice){0});
    struct store_update *updates[] = {derived, update};
    struct err err = store_write(hs->store, ctx, updates, COUNT_OF(updates));
    if (err.code != 0) {
        positions_abandon(hs->positions, published.pos);
        return err;
    }
    room_entry_forget(room, change->user);
    positions_complete(hs->positions, &published, ctx->write_ticket);
    return OK;
}

/* The event by its number alone: nothing of it can be judged here, so no other may cite it. */
static struct err keep_event(struct hs *hs, struct ctx *ctx, struct room *room,
                             const struct event *event, int64_t *number_out)
{
    struct apart_rows rows;
    struct apart apart = {.event = event, .flags = EVENT_OUTLIER | EVENT_LOOSE};
    *number_out = 0;
    if (!event) {
        return OK;
    }
    *number_out = room->next_apart;
    apart_rows_begin(ctx, room, &rows);
    TRY(apart_put(hs, ctx, room, &apart, &rows));
    return apart_write(hs, ctx, room, &rows);
}

static struct err change_in_lane(struct hs *hs, struct ctx *ctx, struct room *room,
                                 struct user_change *change, const struct event *event)
{
    TRY(room_check_there(room));
    struct err err = keep_event(hs, ctx, room, event, &change->number);
    if (err.code != 0) {
        room_mark_broken(hs, room);
        return err;
    }
    return write_entry(hs, ctx, room, change);
}

static struct err apply(struct hs *hs, struct ctx *ctx, struct room *room,
                        struct user_change *change, const struct event *event)
{
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = change_in_lane(hs, ctx, room, change, event);
    workers_lane_leave(hs->workers, lane);
    return err;
}

struct err hs_intake_invite(struct hs *hs, struct ctx *ctx, const struct intake_invite *invite)
{
    struct room *room = NULL;
    const struct room_rules *rules = room_rules_get(invite->version);
    struct user_change change = {.membership = membership_of(invite->event)};
    if (!rules) {
        return err_public(ERR_M_UNSUPPORTED_ROOM_VERSION, "This room version is not supported.");
    }
    if (change.membership != MEMBERSHIP_INVITE && change.membership != MEMBERSHIP_KNOCK) {
        return err_public(ERR_M_INVALID_PARAM, "The event is neither an invite nor a knock.");
    }
    TRY(hs_user_intern(hs, ctx, invite->event->state_key, &change.user));
    TRY(rooms_open(hs, ctx, invite->room_id, rules, &room));
    change.invite_state = stripped_of(ctx, invite);
    return apply(hs, ctx, room, &change, invite->event);
}

struct err hs_intake_uninvite(struct hs *hs, struct ctx *ctx, struct slice room_id, uint64_t user,
                              const struct event *event)
{
    struct room *room = NULL;
    struct user_change change = {.user = user, .membership = MEMBERSHIP_LEAVE};
    if (event && membership_of(event) == MEMBERSHIP_BAN) {
        change.membership = MEMBERSHIP_BAN;
    }
    TRY(hs_room_get_by_id(hs, ctx, room_id, &room));
    return apply(hs, ctx, room, &change, event);
}
