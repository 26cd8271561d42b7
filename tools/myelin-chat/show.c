/* Events and names as people read them. */
#include "tools/myelin-chat/chat.h"

#include <stdio.h>
#include <time.h>

enum { HEROES_MAX = 3 };

void chat_print_text(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool second = i + 1 < text.len && c == 0xc2 && (unsigned char)text.ptr[i + 1] < 0xa0;
        if (second) { /* C1 controls, two bytes in UTF-8 */
            i++;
        } else if (c == '\n') {
            fputs("\n    ", stdout);
        } else if (c >= ' ' && c != 0x7f) {
            putchar(c);
        }
    }
}

static const struct json *find_state(const struct json *room, const char *list, struct slice type)
{
    const struct json *section = json_get_object(room, slice_of(list));
    const struct json *events = json_get_array(section, LIT("events"));
    const struct json *found = NULL;
    for (uint32_t i = 0; events && i < events->count; i++) {
        const struct json *event = &events->items[i];
        if (slice_eq(json_get_string(event, LIT("type")), type) &&
            json_get_string(event, LIT("state_key")).ptr) {
            found = json_get_object(event, LIT("content"));
        }
    }
    return found;
}

static struct slice state_text(const struct json *room, struct slice type, struct slice key)
{
    static const char *const lists[] = {"timeline", "state", "invite_state"};
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        struct slice text = json_get_string(find_state(room, lists[i], type), key);
        if (text.len > 0) {
            return text;
        }
    }
    return (struct slice){0};
}

/* Spec: client-server, "Calculating the display name for a room". */
struct slice chat_room_name(struct chat *chat, const struct json *room, struct slice room_id)
{
    struct slice name = state_text(room, LIT("m.room.name"), LIT("name"));
    if (name.len == 0) {
        name = state_text(room, LIT("m.room.canonical_alias"), LIT("alias"));
    }
    const struct json *heroes =
        json_get_array(json_get_object(room, LIT("summary")), LIT("m.heroes"));
    for (uint32_t i = 0; name.len == 0 && heroes && i < heroes->count && i < HEROES_MAX; i++) {
        if (heroes->items[i].type == JSON_STRING) {
            name = i == 0 ? heroes->items[i].text
                          : arena_printf(chat->arena, "%.*s, %.*s", (int)name.len, name.ptr,
                                         (int)heroes->items[i].text.len, heroes->items[i].text.ptr);
        }
    }
    return name.len > 0 ? name : room_id;
}

static void print_head(const struct json *event, struct slice room_label)
{
    int64_t ms = 0;
    char clock_text[32] = "";
    struct tm local;
    if (json_get_int(event, LIT("origin_server_ts"), &ms)) {
        time_t seconds = (time_t)(ms / 1000);
        localtime_r(&seconds, &local);
        strftime(clock_text, sizeof clock_text, "%Y-%m-%d %H:%M", &local);
    }
    printf("%s ", clock_text);
    if (room_label.len > 0) {
        fputs("[", stdout);
        chat_print_text(room_label);
        fputs("] ", stdout);
    }
    chat_print_text(json_get_string(event, LIT("sender")));
}

static void print_membership(const struct json *event, const struct json *content)
{
    struct slice membership = json_get_string(content, LIT("membership"));
    fputs(" -- ", stdout);
    chat_print_text(membership);
    fputs(" ", stdout);
    chat_print_text(json_get_string(event, LIT("state_key")));
}

void chat_print_event(const struct json *event, struct slice room_label)
{
    struct slice type = json_get_string(event, LIT("type"));
    const struct json *content = json_get_object(event, LIT("content"));
    struct slice body = json_get_string(content, LIT("body"));
    if (slice_eq(type, LIT("m.room.message")) && body.ptr) {
        print_head(event, room_label);
        bool emote = json_is_string(json_get(content, LIT("msgtype")), LIT("m.emote"));
        fputs(emote ? " " : ": ", stdout);
        chat_print_text(body);
    } else if (slice_eq(type, LIT("m.room.encrypted"))) {
        print_head(event, room_label);
        fputs(": (an encrypted message, which this client cannot read)", stdout);
    } else if (slice_eq(type, LIT("m.room.member"))) {
        print_head(event, room_label);
        print_membership(event, content);
    } else if (slice_eq(type, LIT("m.room.topic")) || slice_eq(type, LIT("m.room.name"))) {
        print_head(event, room_label);
        fputs(slice_eq(type, LIT("m.room.name")) ? " -- name: " : " -- topic: ", stdout);
        chat_print_text(json_get_string(
            content, slice_eq(type, LIT("m.room.name")) ? LIT("name") : LIT("topic")));
    } else {
        return;
    }
    fputs("\n", stdout);
    fflush(stdout);
}
