#include "federation/edus.h"

#include "homeserver/base/arena.h"
#include "spec/errcodes.h"
#include "spec/ids.h"
#include "spec/limits.h"

enum { CODE_POINTS_MAX = 32, TYPE_BYTES_MAX = 255, STATUS_BYTES_MAX = 1024 };

static struct err malformed(const char *text)
{
    return err_make(ERR_M_BAD_JSON, text);
}

struct err edu_parse_typing(const struct json *content, struct edu_typing *typing_out)
{
    const struct json *typing = json_get(content, LIT("typing"));
    *typing_out = (struct edu_typing){.room_id = json_get_string(content, LIT("room_id")),
                                      .user_id = json_get_string(content, LIT("user_id"))};
    if (!ids_is_room(typing_out->room_id) || !ids_is_user(typing_out->user_id) || !typing ||
        typing->type != JSON_BOOL) {
        return malformed("m.typing needs room_id, user_id and typing");
    }
    typing_out->is_typing = typing->boolean;
    return OK;
}

/* --- presence --- */

static bool parse_word(struct slice text, enum edu_presence_word *word_out)
{
    static const struct slice words[] = {
        [EDU_OFFLINE] = {"offline", 7},
        [EDU_UNAVAILABLE] = {"unavailable", 11},
        [EDU_ONLINE] = {"online", 6},
    };
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (slice_eq(words[i], text)) {
            *word_out = (enum edu_presence_word)i;
            return true;
        }
    }
    return false;
}

static bool parse_presence(const struct json *entry, struct edu_presence *out)
{
    int64_t ago = 0;
    *out = (struct edu_presence){.user_id = json_get_string(entry, LIT("user_id")),
                                 .status_msg = json_get_string(entry, LIT("status_msg")),
                                 .is_active = json_get_bool(entry, LIT("currently_active"), false)};
    if (json_get_int(entry, LIT("last_active_ago"), &ago) && ago > 0) {
        out->last_active_ago_ms = ago;
    }
    if (out->status_msg.len > STATUS_BYTES_MAX) {
        out->status_msg = (struct slice){0};
    }
    return ids_is_user(out->user_id) &&
           parse_word(json_get_string(entry, LIT("presence")), &out->word);
}

struct err edu_parse_presence(struct arena *arena, const struct json *content,
                              struct edu_presence **items_out, size_t *count_out)
{
    const struct json *push = json_get_array(content, LIT("push"));
    *count_out = 0;
    if (!push) {
        return malformed("m.presence needs a list in push");
    }
    size_t max = push->count < EDU_PRESENCES_MAX ? push->count : EDU_PRESENCES_MAX;
    *items_out = arena_array(arena, max + 1, sizeof **items_out);
    for (size_t i = 0; i < max; i++) {
        *count_out += parse_presence(&push->items[i], &(*items_out)[*count_out]) ? 1 : 0;
    }
    return OK;
}

/* --- receipts --- */

/* What no event here has yet may have any id that its room's version gives: it is shown to clients
 * as it is. */
static bool is_opaque_id(struct slice id)
{
    return id.len > 0 && id.len <= LIMIT_ID_BYTES;
}

static bool parse_receipt(const struct json *value, struct edu_receipt *out)
{
    const struct json *ids = json_get_array(value, LIT("event_ids"));
    const struct json *data = json_get_object(value, LIT("data"));
    const struct json *thread = json_get(data, LIT("thread_id"));
    if (!ids || ids->count != 1 || ids->items[0].type != JSON_STRING ||
        !is_opaque_id(ids->items[0].text)) {
        return false;
    }
    out->event_id = ids->items[0].text;
    if (!json_get_int(data, LIT("ts"), &out->ts_ms) || out->ts_ms < 0) {
        return false;
    }
    if (thread && thread->type == JSON_STRING) {
        out->thread = thread->text;
        return slice_eq(thread->text, LIT("main")) || ids_is_event(thread->text);
    }
    return !thread || thread->type == JSON_NULL;
}

struct err edu_parse_receipts(struct arena *arena, const struct json *content,
                              struct edu_receipt **items_out, size_t *count_out)
{
    *count_out = 0;
    *items_out = arena_array(arena, EDU_RECEIPTS_MAX + 1, sizeof **items_out);
    if (!content || content->type != JSON_OBJECT) {
        return malformed("m.receipt needs an object");
    }
    for (uint32_t i = 0; i < content->count; i++) {
        const struct json_member *room = &content->members[i];
        const struct json *users = json_get_object(&room->value, LIT("m.read"));
        bool is_room = ids_is_room(room->key);
        for (uint32_t j = 0; is_room && users && j < users->count; j++) {
            struct edu_receipt *receipt = &(*items_out)[*count_out];
            *receipt = (struct edu_receipt){.room_id = room->key, .user_id = users->members[j].key};
            bool good =
                ids_is_user(receipt->user_id) && parse_receipt(&users->members[j].value, receipt);
            *count_out += good && *count_out < EDU_RECEIPTS_MAX ? 1 : 0;
        }
    }
    return OK;
}

/* --- devices --- */

struct err edu_parse_device_list(const struct json *content, struct edu_device_list *update_out)
{
    struct edu_device_list update = {.user_id = json_get_string(content, LIT("user_id")),
                                     .device_id = json_get_string(content, LIT("device_id")),
                                     .display_name =
                                         json_get_string(content, LIT("device_display_name")),
                                     .prev_ids = json_get_array(content, LIT("prev_id")),
                                     .keys = json_get_object(content, LIT("keys")),
                                     .is_deleted = json_get_bool(content, LIT("deleted"), false)};
    *update_out = update;
    if (!ids_is_user(update.user_id) || update.device_id.len == 0 ||
        !json_get_int(content, LIT("stream_id"), &update_out->stream_id) ||
        update_out->stream_id < 0) {
        return malformed("m.device_list_update needs user_id, device_id and stream_id");
    }
    return OK;
}

struct err edu_parse_signing_key(const struct json *content, struct edu_signing_key *update_out)
{
    *update_out = (struct edu_signing_key){
        .user_id = json_get_string(content, LIT("user_id")),
        .master_key = json_get_object(content, LIT("master_key")),
        .self_signing_key = json_get_object(content, LIT("self_signing_key"))};
    return ids_is_user(update_out->user_id) ? OK : malformed("m.signing_key_update needs user_id");
}

/* --- to-device --- */

static size_t code_points(struct slice text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += ((unsigned char)text.ptr[i] & 0xC0) != 0x80 ? 1 : 0;
    }
    return count;
}

static size_t count_messages(const struct json *messages)
{
    size_t count = 0;
    for (uint32_t i = 0; i < messages->count; i++) {
        const struct json *devices = &messages->members[i].value;
        count += devices->type == JSON_OBJECT ? devices->count : 0;
    }
    return count;
}

static void collect_messages(const struct json *messages, struct edu_to_device *send)
{
    for (uint32_t i = 0; i < messages->count; i++) {
        const struct json *devices = &messages->members[i].value;
        bool good = ids_is_user(messages->members[i].key) && devices->type == JSON_OBJECT;
        for (uint32_t j = 0; good && j < devices->count; j++) {
            const struct json_member *device = &devices->members[j];
            if (device->key.len > 0 && device->value.type == JSON_OBJECT) {
                send->items[send->count++] =
                    (struct edu_message){messages->members[i].key, device->key, &device->value};
            }
        }
    }
}

struct err edu_parse_to_device(struct arena *arena, const struct json *content,
                               struct edu_to_device *send_out)
{
    const struct json *messages = json_get_object(content, LIT("messages"));
    struct edu_to_device send = {.sender = json_get_string(content, LIT("sender")),
                                 .type = json_get_string(content, LIT("type")),
                                 .message_id = json_get_string(content, LIT("message_id"))};
    *send_out = send;
    if (!ids_is_user(send.sender) || send.type.len == 0 || send.type.len > TYPE_BYTES_MAX ||
        !messages) {
        return malformed("m.direct_to_device needs sender, type and messages");
    }
    if (send.message_id.len == 0 || code_points(send.message_id) > CODE_POINTS_MAX) {
        return malformed("the message_id must have 1 to 32 code points");
    }
    size_t count = count_messages(messages);
    if (count > EDU_MESSAGES_MAX) {
        return err_make(ERR_M_TOO_LARGE, "too many messages in one EDU");
    }
    send_out->items = arena_array(arena, count + 1, sizeof *send_out->items);
    collect_messages(messages, send_out);
    return OK;
}
