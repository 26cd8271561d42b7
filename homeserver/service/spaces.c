/* Children of spaces. Spec: client-server, "Spaces". */
#include "homeserver/service/room_summary.h"

#include <stdlib.h>

enum { ORDER_BYTES_MAX = 50 };

/* Spec: client-server, "Ordering of children within a space": other values count as none. */
static struct slice valid_order(const struct json *content)
{
    struct slice order = json_get_string(content, LIT("order"));
    for (size_t i = 0; i < order.len; i++) {
        if (order.ptr[i] < '\x20' || order.ptr[i] > '\x7e') {
            return (struct slice){0};
        }
    }
    return order.len <= ORDER_BYTES_MAX ? order : (struct slice){0};
}

static int by_order(const void *a, const void *b)
{
    const struct space_child *left = a;
    const struct space_child *right = b;
    if ((left->order.len > 0) != (right->order.len > 0)) {
        return left->order.len > 0 ? -1 : 1;
    }
    int order = slice_cmp(left->order, right->order);
    if (order != 0) {
        return order;
    }
    if (left->origin_server_ts != right->origin_server_ts) {
        return left->origin_server_ts < right->origin_server_ts ? -1 : 1;
    }
    return slice_cmp(left->room_id, right->room_id);
}

static bool has_server(const struct json *via)
{
    for (uint32_t i = 0; via && i < via->count; i++) {
        if (via->items[i].type == JSON_STRING && ids_is_server_name(via->items[i].text)) {
            return true;
        }
    }
    return false;
}

/* False when the event names no child that can be reached, or not one that is wanted. */
static bool take_child(const struct json *content, struct slice state_key, bool suggested_only,
                       struct space_child *child)
{
    *child = (struct space_child){.room_id = state_key,
                                  .via = json_get_array(content, LIT("via")),
                                  .order = valid_order(content)};
    return ids_is_room(state_key) && has_server(child->via) &&
           (!suggested_only || json_get_bool(content, LIT("suggested"), false));
}

static struct json strip(struct arena *arena, const struct event *event)
{
    struct json object = json_object();
    json_set(arena, &object, LIT("type"), json_string(event->type));
    json_set(arena, &object, LIT("state_key"), json_string(event->state_key));
    json_set(arena, &object, LIT("content"), *event->content);
    json_set(arena, &object, LIT("sender"), json_string(event->sender.s));
    json_set(arena, &object, LIT("origin_server_ts"), json_int(event->origin_server_ts));
    return object;
}

static struct err is_space(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t root,
                           bool *is_out)
{
    struct stored_event create;
    bool found = false;
    TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.create"), LIT(""), &create, &found));
    *is_out = found && json_is_string(json_get(create.event.content, LIT("type")), LIT("m.space"));
    return OK;
}

struct err hs_space_children(struct hs *hs, struct ctx *ctx, struct room *room, bool suggested_only,
                             struct space_children *children_out)
{
    uint64_t *keys = NULL;
    size_t key_count = 0;
    uint64_t root = hs_room_head(room).root;
    bool yes = false;
    *children_out = (struct space_children){0};
    TRY(is_space(hs, ctx, room, root, &yes));
    if (!yes) {
        return OK;
    }
    TRY(hs_state_keys_without_members(hs, ctx, room, &keys, &key_count));
    children_out->items = arena_array(ctx->arena, key_count, sizeof *children_out->items);
    for (size_t i = 0; i < key_count; i++) {
        struct slice type;
        struct slice state_key;
        struct stored_event event;
        bool found = false;
        TRY(hs_state_key_name(hs, ctx, room, keys[i], &type, &state_key));
        if (!slice_eq(type, LIT("m.space.child"))) {
            continue;
        }
        TRY(hs_state_event(hs, ctx, room, root, type, state_key, &event, &found));
        struct space_child *child = &children_out->items[children_out->count];
        if (found && take_child(event.event.content, state_key, suggested_only, child)) {
            child->origin_server_ts = event.event.origin_server_ts;
            child->stripped = strip(ctx->arena, &event.event);
            children_out->count++;
        }
    }
    qsort(children_out->items, children_out->count, sizeof *children_out->items, by_order);
    return OK;
}

void hs_space_children_parse(struct arena *arena, const struct json *children_state,
                             bool suggested_only, struct space_children *children_out)
{
    uint32_t max = children_state ? children_state->count : 0;
    *children_out = (struct space_children){0};
    children_out->items = arena_array(arena, max, sizeof *children_out->items);
    for (uint32_t i = 0; i < max; i++) {
        const struct json *event = &children_state->items[i];
        const struct json *content = json_get_object(event, LIT("content"));
        struct slice sender = json_get_string(event, LIT("sender"));
        struct space_child *child = &children_out->items[children_out->count];
        if (!json_is_string(json_get(event, LIT("type")), LIT("m.space.child")) ||
            !ids_is_user(sender) ||
            !take_child(content, json_get_string(event, LIT("state_key")), suggested_only, child)) {
            continue;
        }
        json_get_int(event, LIT("origin_server_ts"), &child->origin_server_ts);
        struct event shape = {.type = LIT("m.space.child"),
                              .state_key = child->room_id,
                              .content = content,
                              .sender = ids_trust_user(sender),
                              .origin_server_ts = child->origin_server_ts};
        child->stripped = strip(arena, &shape);
        children_out->count++;
    }
    qsort(children_out->items, children_out->count, sizeof *children_out->items, by_order);
}

void hs_space_children_write(struct json_out *out, const struct space_children *children)
{
    json_out_key_array(out, LIT("children_state"));
    for (size_t i = 0; i < children->count; i++) {
        json_out_value(out, &children->items[i].stripped);
    }
    json_out_array_end(out);
}
