/* Spec: push-gateway, "Push Gateway API"; MSC4174 for web push, whose messages have the same
 * members without the envelope. */
#include "homeserver/push/push_priv.h"

static void write_text(struct json_out *out, struct slice key, struct slice text)
{
    if (text.len) {
        json_out_key_string(out, key, text);
    }
}

static void write_event(struct json_out *out, const struct push_notice *notice)
{
    write_text(out, LIT("type"), notice->type);
    write_text(out, LIT("sender"), notice->sender);
    write_text(out, LIT("sender_display_name"), notice->sender_name);
    write_text(out, LIT("room_name"), notice->room_name);
    write_text(out, LIT("room_alias"), notice->room_alias);
    if (notice->is_member) {
        json_out_key_bool(out, LIT("user_is_target"), notice->is_target);
        write_text(out, LIT("membership"), notice->membership);
    }
    if (notice->content.len) {
        json_out_key_raw(out, LIT("content"), notice->content);
    }
}

/* A count of zero is left out, unless there is nothing else: then it is the news. */
static void write_counts(struct json_out *out, const struct push_notice *notice)
{
    if (notice->unread > 0 || notice->event_id.len == 0) {
        json_out_key_int(out, LIT("unread"), notice->unread);
    }
    if (notice->missed_calls > 0) {
        json_out_key_int(out, LIT("missed_calls"), notice->missed_calls);
    }
}

static void write_prio(struct json_out *out, const struct push_notice *notice)
{
    json_out_key_string(out, LIT("prio"), notice->is_urgent ? LIT("high") : LIT("low"));
}

/* `data` of the pusher, less its URL. */
static void write_data(struct json_out *out, const struct json *data)
{
    json_out_key_object(out, LIT("data"));
    for (uint32_t i = 0; data && i < data->count; i++) {
        if (!slice_eq(data->members[i].key, LIT("url"))) {
            json_out_key(out, data->members[i].key);
            json_out_value(out, &data->members[i].value);
        }
    }
    json_out_object_end(out);
}

static void write_device(struct json_out *out, const struct push_notice *notice,
                         const struct pusher *pusher, const struct pusher_data *data)
{
    json_out_object(out);
    json_out_key_string(out, LIT("app_id"), pusher->app_id);
    json_out_key_string(out, LIT("pushkey"), pusher->pushkey);
    if (pusher->set_ms) {
        json_out_key_int(out, LIT("pushkey_ts"), pusher->set_ms / 1000);
    }
    write_data(out, data->data);
    if (notice->tweaks.len) {
        json_out_key_raw(out, LIT("tweaks"), notice->tweaks);
    }
    json_out_object_end(out);
}

void push_write_http(struct buf *buf, const struct push_notice *notice, const struct pusher *pusher,
                     const struct pusher_data *data)
{
    struct json_out out = json_out_to(buf);
    json_out_object(&out);
    json_out_key_object(&out, LIT("notification"));
    write_text(&out, LIT("event_id"), notice->event_id);
    write_text(&out, LIT("room_id"), notice->room_id);
    if (!data->event_id_only) {
        write_event(&out, notice);
    }
    write_prio(&out, notice);
    json_out_key_object(&out, LIT("counts"));
    write_counts(&out, notice);
    json_out_object_end(&out);
    json_out_key_array(&out, LIT("devices"));
    write_device(&out, notice, pusher, data);
    json_out_array_end(&out);
    json_out_object_end(&out);
    json_out_object_end(&out);
}

static struct slice write_web(struct arena *arena, const struct push_notice *notice,
                              const struct pusher_data *data)
{
    struct buf buf;
    const struct json *given = json_get_object(data->data, LIT("default_payload"));
    struct json payload = json_object();
    struct json_out out;
    for (uint32_t i = 0; given && i < given->count; i++) {
        json_set(arena, &payload, given->members[i].key, given->members[i].value);
    }
    buf_init_arena(&buf, arena, SIZE_MAX / 2);
    out = json_out_to(&buf);
    json_out_object(&out);
    write_text(&out, LIT("event_id"), notice->event_id);
    write_text(&out, LIT("room_id"), notice->room_id);
    if (!data->event_id_only) {
        write_event(&out, notice);
    }
    write_prio(&out, notice);
    write_counts(&out, notice);
    json_out_object_end(&out);
    struct json own;
    if (json_parse(arena, buf_slice(&buf), &own).code != 0) {
        return buf_slice(&buf);
    }
    for (uint32_t i = 0; i < own.count; i++) {
        json_set(arena, &payload, own.members[i].key, own.members[i].value);
    }
    return json_canonical(arena, &payload);
}

struct slice push_write_web(struct arena *arena, const struct push_notice *notice,
                            const struct pusher_data *data, size_t bytes_max)
{
    struct push_notice less = *notice;
    struct pusher_data plain = *data;
    struct slice text = write_web(arena, &less, &plain);
    if (text.len > bytes_max) {
        less.content = (struct slice){0};
        text = write_web(arena, &less, &plain);
    }
    if (text.len > bytes_max) {
        less.sender_name = less.room_name = less.room_alias = (struct slice){0};
        plain.event_id_only = true;
        text = write_web(arena, &less, &plain);
    }
    if (text.len > bytes_max) {
        plain.data = NULL;
        text = write_web(arena, &less, &plain);
    }
    return text;
}

bool push_is_rejected(struct arena *arena, struct slice body, struct slice pushkey)
{
    struct json answer;
    if (json_parse(arena, body, &answer).code != 0) {
        return false;
    }
    const struct json *rejected = json_get_array(&answer, LIT("rejected"));
    for (uint32_t i = 0; rejected && i < rejected->count; i++) {
        if (json_is_string(&rejected->items[i], pushkey)) {
            return true;
        }
    }
    return false;
}
