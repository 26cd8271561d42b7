/* Rooms: list, create, join, leave, invite, send, history. Spec: client-server, "Rooms". */
#include "homeserver/base/json_out.h"
#include "tools/myelin-chat/chat.h"

#include <stdio.h>
#include <sys/random.h>

enum { BODY_BYTES_MAX = 1 << 20, HISTORY_DEFAULT = 20, HISTORY_MAX = 1000 };

static const char NAMES_FILTER[] =
    "{\"presence\":{\"not_types\":[\"*\"]},\"account_data\":{\"not_types\":[\"*\"]},\"room\":{"
    "\"timeline\":{\"limit\":1},\"ephemeral\":{\"not_types\":[\"*\"]},\"account_data\":{"
    "\"not_types\":[\"*\"]},\"state\":{\"lazy_load_members\":true,\"types\":[\"m.room.name\","
    "\"m.room.canonical_alias\",\"m.room.encryption\"]}}}";

struct err chat_read_rooms(struct chat *chat, struct json *sync_out)
{
    struct slice filter = api_encode(chat->arena, slice_of(NAMES_FILTER));
    return api_call(
        chat->api, chat->arena, "GET",
        arena_printf(chat->arena, "/v3/sync?timeout=0&filter=%.*s", (int)filter.len, filter.ptr),
        (struct slice){0}, sync_out);
}

static struct err find_alias(struct chat *chat, struct slice alias, struct slice *room_out)
{
    struct json reply;
    struct slice name = api_encode(chat->arena, alias);
    TRY(api_call(chat->api, chat->arena, "GET",
                 arena_printf(chat->arena, "/v3/directory/room/%.*s", (int)name.len, name.ptr),
                 (struct slice){0}, &reply));
    *room_out = json_get_string(&reply, LIT("room_id"));
    return OK;
}

struct err chat_find_room(struct chat *chat, struct slice name, struct slice *room_out)
{
    struct json sync;
    size_t found = 0;
    if (slice_has_prefix(name, LIT("!"))) {
        *room_out = name;
        return OK;
    }
    if (slice_has_prefix(name, LIT("#"))) {
        return find_alias(chat, name, room_out);
    }
    TRY(chat_read_rooms(chat, &sync));
    const struct json *joined = json_get_object(json_get_object(&sync, LIT("rooms")), LIT("join"));
    for (uint32_t i = 0; joined && i < joined->count; i++) {
        struct slice id = joined->members[i].key;
        struct slice title = chat_room_name(chat, &joined->members[i].value, id);
        if (slice_eq(title, name)) {
            *room_out = id;
            return OK;
        }
        if (slice_has_prefix(title, name)) {
            *room_out = id;
            found++;
        }
    }
    if (found != 1) {
        return err_publicf(chat->arena, ERR_SYNTAX, "%s of your rooms begins with \"%.*s\"",
                           found == 0 ? "none" : "more than one", (int)name.len, name.ptr);
    }
    return OK;
}

/* "/v3/rooms/{room}" with what follows, in the arena. */
static struct slice room_path(struct chat *chat, struct slice room, const char *rest)
{
    struct slice id = api_encode(chat->arena, room);
    return arena_printf(chat->arena, "/v3/rooms/%.*s%s", (int)id.len, id.ptr, rest);
}

struct err chat_check_plain(struct chat *chat, struct slice room)
{
    struct api_reply reply;
    TRY(api_request(chat->api, chat->arena, "GET",
                    room_path(chat, room, "/state/m.room.encryption"), (struct slice){0}, &reply));
    if (reply.status == 404) {
        return OK;
    }
    return reply.status == 200
               ? err_public(ERR_UNAVAILABLE,
                            "this room is encrypted, and myelin-chat does not encrypt; nothing was "
                            "sent. Use another client for it")
               : err_public(ERR_UNAVAILABLE, "the room cannot be looked at; are you in it?");
}

static void print_room(struct chat *chat, const struct json_member *room, const char *mark)
{
    struct slice name = chat_room_name(chat, &room->value, room->key);
    printf("%-8s ", mark);
    chat_print_text(name);
    fputs("  ", stdout);
    chat_print_text(room->key);
    fputs("\n", stdout);
}

struct err room_list(struct chat *chat, char **words)
{
    struct json sync;
    (void)words;
    TRY(chat_read_rooms(chat, &sync));
    const struct json *rooms = json_get_object(&sync, LIT("rooms"));
    const struct json *joined = json_get_object(rooms, LIT("join"));
    const struct json *invited = json_get_object(rooms, LIT("invite"));
    for (uint32_t i = 0; joined && i < joined->count; i++) {
        print_room(chat, &joined->members[i], "joined");
    }
    for (uint32_t i = 0; invited && i < invited->count; i++) {
        print_room(chat, &invited->members[i], "invited");
    }
    return OK;
}

struct err room_create(struct chat *chat, char **words)
{
    struct buf text;
    struct json reply;
    bool is_public = words[1] && slice_eq(slice_of(words[1]), LIT("public"));
    buf_init_arena(&text, chat->arena, BODY_BYTES_MAX);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("name"), slice_of(words[0]));
    json_out_key_string(&out, LIT("preset"), is_public ? LIT("public_chat") : LIT("private_chat"));
    json_out_key_array(&out, LIT("invite"));
    for (size_t i = is_public ? 2 : 1; words[0] && words[i]; i++) {
        json_out_string(&out, slice_of(words[i]));
    }
    json_out_array_end(&out);
    json_out_object_end(&out);
    TRY(api_call(chat->api, chat->arena, "POST", LIT("/v3/createRoom"), buf_slice(&text), &reply));
    chat_print_text(json_get_string(&reply, LIT("room_id")));
    fputs("\n", stdout);
    fputs("The room is not encrypted: the server can read what is written there.\n", stderr);
    return OK;
}

struct err room_join(struct chat *chat, char **words)
{
    struct json reply;
    struct slice name = slice_of(words[0]);
    if (!slice_has_prefix(name, LIT("!")) && !slice_has_prefix(name, LIT("#"))) {
        return err_public(ERR_SYNTAX, "give the room's id (!...) or alias (#name:server)");
    }
    struct slice id = api_encode(chat->arena, name);
    TRY(api_call(chat->api, chat->arena, "POST",
                 arena_printf(chat->arena, "/v3/join/%.*s", (int)id.len, id.ptr), LIT("{}"),
                 &reply));
    chat_print_text(json_get_string(&reply, LIT("room_id")));
    fputs("\n", stdout);
    return OK;
}

struct err room_leave(struct chat *chat, char **words)
{
    struct slice room;
    struct json reply;
    TRY(chat_find_room(chat, slice_of(words[0]), &room));
    return api_call(chat->api, chat->arena, "POST", room_path(chat, room, "/leave"), LIT("{}"),
                    &reply);
}

struct err room_invite(struct chat *chat, char **words)
{
    struct slice room;
    struct json reply;
    struct buf text;
    TRY(chat_find_room(chat, slice_of(words[0]), &room));
    buf_init_arena(&text, chat->arena, BODY_BYTES_MAX);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("user_id"), slice_of(words[1]));
    json_out_object_end(&out);
    return api_call(chat->api, chat->arena, "POST", room_path(chat, room, "/invite"),
                    buf_slice(&text), &reply);
}

static struct slice join_words(struct chat *chat, char **words)
{
    struct slice text = slice_of(words[0]);
    for (size_t i = 1; words[0] && words[i]; i++) {
        text = arena_printf(chat->arena, "%.*s %s", (int)text.len, text.ptr, words[i]);
    }
    return text;
}

struct err room_send(struct chat *chat, char **words)
{
    struct slice room;
    struct json reply;
    struct buf text;
    unsigned long long unique = 0;
    TRY(chat_find_room(chat, slice_of(words[0]), &room));
    TRY(chat_check_plain(chat, room));
    if (getrandom(&unique, sizeof unique, 0) != (ssize_t)sizeof unique) {
        return err_public(ERR_IO, "the system has no random bytes");
    }
    buf_init_arena(&text, chat->arena, BODY_BYTES_MAX);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("msgtype"), LIT("m.text"));
    json_out_key_string(&out, LIT("body"), join_words(chat, words + 1));
    json_out_object_end(&out);
    struct slice rest = arena_printf(chat->arena, "/send/m.room.message/chat-%llx", unique);
    TRY(api_call(chat->api, chat->arena, "PUT",
                 room_path(chat, room, arena_cstr(chat->arena, rest)), buf_slice(&text), &reply));
    chat_print_text(json_get_string(&reply, LIT("event_id")));
    fputs("\n", stdout);
    return OK;
}

struct err room_history(struct chat *chat, char **words)
{
    struct slice room;
    struct json reply;
    uint64_t count = HISTORY_DEFAULT;
    TRY(chat_find_room(chat, slice_of(words[0]), &room));
    if (words[1] &&
        (!slice_parse_u64(slice_of(words[1]), &count) || count == 0 || count > HISTORY_MAX)) {
        return err_public(ERR_SYNTAX, "the count is a number from 1 to 1000");
    }
    struct slice rest =
        arena_printf(chat->arena, "/messages?dir=b&limit=%llu", (unsigned long long)count);
    TRY(api_call(chat->api, chat->arena, "GET",
                 room_path(chat, room, arena_cstr(chat->arena, rest)), (struct slice){0}, &reply));
    const struct json *chunk = json_get_array(&reply, LIT("chunk"));
    for (uint32_t i = chunk ? chunk->count : 0; i > 0; i--) {
        chat_print_event(&chunk->items[i - 1], (struct slice){0});
    }
    return OK;
}
