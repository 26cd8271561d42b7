#include "homeserver/room/client_event.h"

#include "homeserver/room/property_path.h"

/* Content as clients expect it: a redaction names its target there in every room version. */
static void write_content(struct arena *arena, struct json_out *out, const struct event *event)
{
    struct slice content = event->content_json;
    json_out_key(out, LIT("content"));
    if (!event->redacts.s.len || event->rules->redacts_in_content) {
        json_out_raw(out, content);
        return;
    }
    struct json tree;
    struct err err = json_parse(arena, content, &tree);
    if (err.code != 0) {
        json_out_raw(out, content);
        return;
    }
    json_set(arena, &tree, LIT("redacts"), json_string(event->redacts.s));
    json_out_value(out, &tree);
}

static void write_whole(struct arena *arena, struct json_out *out, const struct event *event,
                        const struct client_event_options *options)
{
    json_out_object(out);
    write_content(arena, out, event);
    json_out_key_string(out, LIT("event_id"), event->id.s);
    json_out_key_int(out, LIT("origin_server_ts"), event->origin_server_ts);
    if (event->redacts.s.len) {
        json_out_key_string(out, LIT("redacts"), event->redacts.s);
    }
    if (options->room_id == CLIENT_EVENT_WITH_ROOM_ID) {
        json_out_key_string(out, LIT("room_id"), event->room_id.s);
    }
    json_out_key_string(out, LIT("sender"), event->sender.s);
    if (event->has_state_key) {
        json_out_key_string(out, LIT("state_key"), event->state_key);
    }
    json_out_key_string(out, LIT("type"), event->type);
    if (options->unsigned_json.len) {
        json_out_key_raw(out, LIT("unsigned"), options->unsigned_json);
    }
    json_out_object_end(out);
}

/* The object under `name` in a tree that is being built; made when absent. */
static struct json *child_object(struct arena *arena, struct json *parent, struct slice name)
{
    if (!json_get_object(parent, name)) {
        json_set(arena, parent, name, json_object());
    }
    return (struct json *)(uintptr_t)json_get_object(parent, name);
}

static void copy_field(struct arena *arena, struct json *to, const struct json *from,
                       struct slice field)
{
    struct property_path path = property_path_parse(arena, field);
    const struct json *value = property_path_find(from, &path, 0);
    if (!value) {
        return;
    }
    for (size_t i = 0; i + 1 < path.count; i++) {
        to = child_object(arena, to, path.names[i]);
    }
    json_set(arena, to, path.names[path.count - 1], *value);
}

/* Filters rarely name fields, so the slow way will do: write, parse, pick. */
static void write_fields(struct arena *arena, struct json_out *out, const struct event *event,
                         const struct client_event_options *options)
{
    struct buf whole;
    struct json tree;
    struct json picked = json_object();
    buf_init_arena(&whole, arena, SIZE_MAX / 2);
    struct json_out inner = json_out_to(&whole);
    write_whole(arena, &inner, event, options);
    struct err err = json_parse(arena, buf_slice(&whole), &tree);
    if (err.code != 0) {
        tree = json_object();
    }
    for (size_t i = 0; i < options->field_count; i++) {
        copy_field(arena, &picked, &tree, options->fields[i]);
    }
    json_out_value(out, &picked);
}

void client_event_write(struct arena *arena, struct json_out *out, const struct event *event,
                        const struct client_event_options *options)
{
    if (options->field_count) {
        write_fields(arena, out, event, options);
    } else {
        write_whole(arena, out, event, options);
    }
}

void client_event_write_stripped(struct json_out *out, const struct event *event)
{
    json_out_object(out);
    json_out_key_raw(out, LIT("content"), event->content_json);
    json_out_key_string(out, LIT("sender"), event->sender.s);
    json_out_key_string(out, LIT("state_key"), event->state_key);
    json_out_key_string(out, LIT("type"), event->type);
    json_out_object_end(out);
}

bool client_event_write_stripped_tree(struct json_out *out, const struct json *event)
{
    const struct json *content = json_get_object(event, LIT("content"));
    struct slice sender = json_get_string(event, LIT("sender"));
    struct slice state_key = json_get_string(event, LIT("state_key"));
    struct slice type = json_get_string(event, LIT("type"));
    if (!content || !state_key.ptr || !type.ptr || !ids_is_user(sender)) {
        return false;
    }
    json_out_object(out);
    json_out_key(out, LIT("content"));
    json_out_value(out, content);
    json_out_key_string(out, LIT("sender"), sender);
    json_out_key_string(out, LIT("state_key"), state_key);
    json_out_key_string(out, LIT("type"), type);
    json_out_object_end(out);
    return true;
}
