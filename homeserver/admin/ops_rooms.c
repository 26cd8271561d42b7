/* Rooms. */
#include "homeserver/admin/ops_priv.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/purge.h"
#include "homeserver/service/rooms.h"

static struct err text_of_state(struct admin_call *call, struct room *room, struct slice type,
                                struct slice key, struct slice *text_out)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_state_event(call->hs, call->ctx, room, hs_room_head(room).root, type, LIT(""), &event,
                       &found));
    *text_out = found ? json_get_string(event.event.content, key) : (struct slice){0};
    return OK;
}

/* The members that lists show too. */
static struct err write_room(struct admin_call *call, struct room *room)
{
    struct slice name;
    struct slice alias;
    struct room_info info = hs_room_info(room);
    struct room_head head = hs_room_head(room);
    TRY(text_of_state(call, room, LIT("m.room.name"), LIT("name"), &name));
    TRY(text_of_state(call, room, LIT("m.room.canonical_alias"), LIT("alias"), &alias));
    json_out_key_string(call->out, LIT("room_id"), info.room_id);
    json_out_key_string(call->out, LIT("version"), info.rules->version);
    json_out_key_int(call->out, LIT("joined"), head.joined_count);
    json_out_key_int(call->out, LIT("events"), head.number);
    json_out_key_string(call->out, LIT("name"), name);
    json_out_key_string(call->out, LIT("alias"), alias);
    if (hs_room_is_partial(room)) {
        json_out_key_bool(call->out, LIT("partial"), true);
    }
    return OK;
}

/* A room that cannot be loaded is listed with the reason. */
static struct err write_entry(struct admin_call *call, uint64_t number, struct slice room_id)
{
    struct room *room = NULL;
    struct err err = hs_room_get(call->hs, call->ctx, number, &room);
    json_out_object(call->out);
    if (err.code == 0) {
        TRY(write_room(call, room));
    } else {
        json_out_key_string(call->out, LIT("room_id"), room_id);
        json_out_key_string(call->out, LIT("error"), slice_of(err.text));
    }
    json_out_object_end(call->out);
    return OK;
}

struct err admin_rooms_list(struct admin_call *call)
{
    struct store_rows rows;
    int64_t first = 0;
    uint64_t number = 0;
    struct store_object numbers = {STORE_ROOM_IDS, LIT("numbers")};
    TRY(admin_int(call, LIT("from"), 0, 0, &first));
    struct store_range range = {.from = store_id_u64(call->ctx->arena, (uint64_t)first),
                                .limit = ADMIN_PAGE};
    TRY(store_read_range(call->hs->store, call->ctx, numbers, range, &rows));
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("rooms"));
    for (size_t i = 0; i < rows.count; i++) {
        struct slice version;
        struct unpack key = unpack_of(rows.rows[i].key);
        number = unpack_be64(&key);
        TRY(write_entry(call, number, slice_cut(rows.rows[i].value, '\0', &version)));
    }
    json_out_array_end(call->out);
    if (rows.count == ADMIN_PAGE) {
        json_out_key_int(call->out, LIT("next"), (int64_t)number + 1);
    }
    json_out_object_end(call->out);
    return OK;
}

/* Rooms that were joined a short while ago and whose members are still on their way. */
struct err admin_rooms_partial(struct admin_call *call)
{
    uint64_t *rooms = NULL;
    size_t count = 0;
    TRY(hs_rooms_partial(call->hs, call->ctx, &rooms, &count));
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("rooms"));
    for (size_t i = 0; i < count; i++) {
        TRY(write_entry(call, rooms[i], (struct slice){0}));
    }
    json_out_array_end(call->out);
    json_out_object_end(call->out);
    return OK;
}

static struct err find_room(struct admin_call *call, struct room **room_out)
{
    struct slice name;
    TRY(admin_text(call, LIT("room"), &name));
    return hs_room_resolve(call->hs, call->ctx, name, room_out);
}

struct err admin_rooms_show(struct admin_call *call)
{
    struct room *room = NULL;
    struct slice topic;
    struct slice join_rule;
    struct slice encryption;
    struct slice *aliases = NULL;
    uint64_t *local = NULL;
    size_t alias_count = 0;
    bool is_public = false;
    TRY(find_room(call, &room));
    uint64_t number = hs_room_info(room).number;
    TRY(text_of_state(call, room, LIT("m.room.topic"), LIT("topic"), &topic));
    TRY(text_of_state(call, room, LIT("m.room.join_rules"), LIT("join_rule"), &join_rule));
    TRY(text_of_state(call, room, LIT("m.room.encryption"), LIT("algorithm"), &encryption));
    TRY(hs_aliases_of(call->hs, call->ctx, number, &aliases, &alias_count));
    TRY(hs_public_get(call->hs, call->ctx, number, &is_public));
    json_out_object(call->out);
    TRY(write_room(call, room));
    json_out_key_string(call->out, LIT("topic"), topic);
    json_out_key_string(call->out, LIT("join_rule"), join_rule);
    json_out_key_string(call->out, LIT("encryption"), encryption);
    json_out_key_bool(call->out, LIT("published"), is_public);
    json_out_key_int(call->out, LIT("joined_local"),
                     (int64_t)hs_room_local_users(call->ctx, room, &local));
    json_out_key_int(call->out, LIT("invited"), hs_room_head(room).invited_count);
    json_out_key_array(call->out, LIT("aliases"));
    for (size_t i = 0; i < alias_count; i++) {
        json_out_string(call->out, aliases[i]);
    }
    json_out_array_end(call->out);
    json_out_object_end(call->out);
    return OK;
}

struct err admin_rooms_members(struct admin_call *call)
{
    struct room *room = NULL;
    struct room_members members;
    struct slice word = json_get_string(call->args, LIT("membership"));
    enum membership membership = word.ptr ? membership_parse(word) : MEMBERSHIP_NONE;
    if (word.ptr && (membership == MEMBERSHIP_NONE || membership == MEMBERSHIP_OTHER)) {
        return err_public(ERR_M_INVALID_PARAM,
                          "`membership` must be join, invite, knock, leave or ban.");
    }
    TRY(find_room(call, &room));
    TRY(hs_room_members(call->hs, call->ctx, room, membership, 0, &members));
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("members"));
    for (size_t i = 0; i < members.count; i++) {
        json_out_object(call->out);
        json_out_key_string(call->out, LIT("user_id"), members.items[i].user_id);
        json_out_key_string(call->out, LIT("membership"),
                            membership_word(members.items[i].membership));
        json_out_key_string(call->out, LIT("display_name"), members.items[i].display_name);
        json_out_object_end(call->out);
    }
    json_out_array_end(call->out);
    json_out_object_end(call->out);
    return OK;
}

struct err admin_rooms_purge(struct admin_call *call)
{
    struct slice name;
    struct purge_result result;
    uint64_t number = 0;
    uint64_t creator = 0;
    bool found = false;
    TRY(admin_text(call, LIT("room"), &name));
    TRY(hs_purges_finish(call->hs, call->ctx));
    if (name.len && name.ptr[0] == '#') {
        TRY(hs_alias_get(call->hs, call->ctx, name, &number, &creator, &found));
    } else {
        TRY(hs_room_find(call->hs, call->ctx, name, &number, &found));
    }
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no such room.");
    }
    TRY(hs_room_purge(call->hs, call->ctx, number, &result));
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("room"), name);
    json_out_key_int(call->out, LIT("events"), (int64_t)result.events);
    json_out_key_int(call->out, LIT("members"), (int64_t)result.members);
    json_out_key_int(call->out, LIT("took_milliseconds"), result.took_ms);
    json_out_object_end(call->out);
    return OK;
}
