#include "tools/myelin-conform/peer_room.h"
#include "crypto/base64.h"
#include "crypto/sha256.h"
#include "homeserver/base/now.h"
#include "homeserver/room/auth_events.h"
#include "homeserver/room/redact.h"
#include "tools/myelin-conform/keys.h"

struct peer_room *peer_room_find(struct peer *peer, struct slice room_id)
{
    for (size_t i = 0; i < peer->room_count; i++) {
        if (slice_eq(peer->rooms[i].id, room_id)) {
            return &peer->rooms[i];
        }
    }
    return NULL;
}

struct peer_room *peer_room_add(struct peer *peer, struct slice room_id,
                                const struct room_rules *rules)
{
    struct peer_room *room = peer_room_find(peer, room_id);
    if (!room) {
        peer->rooms = arena_grow(peer->arena, peer->rooms, peer->room_count * sizeof *room,
                                 (peer->room_count + 1) * sizeof *room);
        room = &peer->rooms[peer->room_count++];
        room->id = arena_copy(peer->arena, room_id);
    }
    room->rules = rules;
    return room;
}

struct peer_event *peer_room_event(const struct peer_room *room, struct slice event_id)
{
    for (size_t i = 0; i < room->event_count; i++) {
        if (slice_eq(room->events[i]->id, event_id)) {
            return room->events[i];
        }
    }
    return NULL;
}

static bool has_key(const struct peer_event *event, struct slice type, struct slice state_key)
{
    return slice_eq(json_get_string(&event->tree, LIT("type")), type) &&
           slice_eq(json_get_string(&event->tree, LIT("state_key")), state_key);
}

struct peer_event *peer_room_state(const struct peer_room *room, struct slice type,
                                   struct slice state_key)
{
    for (size_t i = 0; i < room->state_count; i++) {
        if (has_key(room->state[i], type, state_key)) {
            return room->state[i];
        }
    }
    return NULL;
}

static void list_add(struct arena *arena, struct peer_event ***list, size_t *count,
                     struct peer_event *event)
{
    *list = arena_grow(arena, *list, *count * sizeof event, (*count + 1) * sizeof event);
    (*list)[(*count)++] = event;
}

/* The list is copied, since events share it as the state before them. */
static void set_state(struct peer *peer, struct peer_room *room, struct peer_event *event)
{
    struct slice type = json_get_string(&event->tree, LIT("type"));
    struct slice key = json_get_string(&event->tree, LIT("state_key"));
    struct peer_event **state = arena_array(peer->arena, room->state_count + 1, sizeof *state);
    size_t count = 0;
    for (size_t i = 0; i < room->state_count; i++) {
        if (!has_key(room->state[i], type, key)) {
            state[count++] = room->state[i];
        }
    }
    state[count++] = event;
    room->state = state;
    room->state_count = count;
}

size_t peer_event_cited(struct arena *arena, const struct json *tree, struct slice member,
                        struct slice **ids_out)
{
    const struct json *list = json_get_array(tree, member);
    size_t count = list ? list->count : 0;
    *ids_out = arena_array(arena, count + 1, sizeof **ids_out);
    for (size_t i = 0; i < count; i++) {
        const struct json *item = &list->items[i];
        if (item->type == JSON_ARRAY && item->count > 0) {
            item = &item->items[0]; /* versions 1 and 2: [id, hashes] */
        }
        (*ids_out)[i] = item->type == JSON_STRING ? item->text : (struct slice){0};
    }
    return count;
}

static void set_heads(struct peer *peer, struct peer_room *room, struct peer_event *event)
{
    struct slice *prevs;
    size_t prev_count = peer_event_cited(peer->arena, &event->tree, LIT("prev_events"), &prevs);
    size_t kept = 0;
    for (size_t i = 0; i < room->head_count; i++) {
        bool is_cited = false;
        for (size_t p = 0; p < prev_count; p++) {
            is_cited = is_cited || slice_eq(prevs[p], room->heads[i]->id);
        }
        if (!is_cited) {
            room->heads[kept++] = room->heads[i];
        }
    }
    room->head_count = kept;
    list_add(peer->arena, &room->heads, &room->head_count, event);
}

struct slice peer_event_id(struct arena *arena, const struct room_rules *rules,
                           const struct json *tree)
{
    return event_id_compute(arena, rules, tree).s;
}

struct peer_event *peer_room_keep(struct peer *peer, struct peer_room *room,
                                  const struct json *tree, enum peer_keep keep)
{
    struct slice id = peer_event_id(peer->arena, room->rules, tree);
    struct peer_event *event = peer_room_event(room, id);
    if (event && keep != PEER_KEEP_STATE) {
        return event;
    }
    if (!event) {
        event = arena_alloc(peer->arena, sizeof *event);
        event->id = arena_copy(peer->arena, id);
        struct slice text = arena_copy(peer->arena, json_canonical(peer->arena, tree));
        struct err err = json_parse(peer->arena, text, &event->tree);
        if (err.code != 0) {
            event->tree = json_object();
        }
        event->is_state = json_get_string(tree, LIT("state_key")).ptr != NULL;
        json_get_int(tree, LIT("depth"), &event->depth);
        event->before = room->state;
        event->before_count = room->state_count;
        list_add(peer->arena, &room->events, &room->event_count, event);
    }
    if (event->is_state && keep != PEER_KEEP_OUT) {
        set_state(peer, room, event);
    }
    if (keep == PEER_KEEP_NEWEST) {
        set_heads(peer, room, event);
    }
    return event;
}

static struct json cite(struct peer *peer, const struct room_rules *rules,
                        const struct peer_event *event)
{
    if (rules->event_format != EVENT_FORMAT_1) {
        return json_string(event->id);
    }
    struct json hashes = json_object();
    json_set(peer->arena, &hashes, LIT("sha256"),
             json_string(event_reference_hash(peer->arena, rules, &event->tree)));
    struct json pair = json_array();
    json_push(peer->arena, &pair, json_string(event->id));
    json_push(peer->arena, &pair, hashes);
    return pair;
}

static struct json default_auth_events(struct peer *peer, const struct peer_room *room,
                                       const struct json *draft)
{
    struct event sketch = {
        .rules = room->rules,
        .type = json_get_string(draft, LIT("type")),
        .sender = ids_trust_user(json_get_string(draft, LIT("sender"))),
        .state_key = json_get_string(draft, LIT("state_key")),
        .has_state_key = json_get_string(draft, LIT("state_key")).ptr != NULL,
        .content = json_get_object(draft, LIT("content")),
    };
    struct auth_key keys[AUTH_EVENTS_MAX];
    size_t count = auth_events_select(&sketch, keys);
    struct json list = json_array();
    for (size_t i = 0; i < count; i++) {
        struct peer_event *event = peer_room_state(room, keys[i].type, keys[i].state_key);
        if (event) {
            json_push(peer->arena, &list, cite(peer, room->rules, event));
        }
    }
    return list;
}

static void set_missing(struct peer *peer, struct json *draft, struct slice key, struct json value)
{
    if (!json_get(draft, key)) {
        json_set(peer->arena, draft, key, value);
    }
}

struct json peer_room_draft(struct peer *peer, const struct peer_room *room,
                            const struct json *draft)
{
    struct json full = json_without(peer->arena, draft, NULL, 0);
    struct json prevs = json_array();
    int64_t depth = 0;
    for (size_t i = 0; i < room->head_count; i++) {
        json_push(peer->arena, &prevs, cite(peer, room->rules, room->heads[i]));
        depth = room->heads[i]->depth > depth ? room->heads[i]->depth : depth;
    }
    bool is_create = slice_eq(json_get_string(draft, LIT("type")), LIT("m.room.create"));
    if (!is_create || !room->rules->hash_room_id) {
        set_missing(peer, &full, LIT("room_id"), json_string(room->id));
    }
    struct now now = now_system();
    set_missing(peer, &full, LIT("content"), json_object());
    set_missing(peer, &full, LIT("origin_server_ts"), json_int(now_wall_ms(&now)));
    set_missing(peer, &full, LIT("depth"), json_int(depth + 1));
    set_missing(peer, &full, LIT("prev_events"), prevs);
    set_missing(peer, &full, LIT("auth_events"), default_auth_events(peer, room, &full));
    if (room->rules->event_format == EVENT_FORMAT_1) {
        struct slice opaque = keys_random_hex(peer->arena, 9);
        set_missing(peer, &full, LIT("event_id"),
                    json_string(arena_printf(peer->arena, "$%.*s:%.*s", (int)opaque.len, opaque.ptr,
                                             (int)peer->name.len, peer->name.ptr)));
    }
    return full;
}

struct json peer_event_seal(struct arena *arena, const struct room_rules *rules,
                            const struct json *draft, const struct json_signer *signer)
{
    static const struct slice unhashed[] = {LIT("unsigned"), LIT("signatures"), LIT("hashes")};
    struct json tree = json_without(arena, draft, unhashed, COUNT_OF(unhashed));
    struct sha256 hash = sha256_of(json_canonical(arena, &tree));
    struct json hashes = json_object();
    json_set(arena, &hashes, LIT("sha256"),
             json_string(base64_encode(arena, sha256_slice(&hash), BASE64_STANDARD)));
    json_set(arena, &tree, LIT("hashes"), hashes);
    struct json signed_form = redact_event(arena, rules, &tree);
    json_sign(arena, &signed_form, signer);
    json_set(arena, &tree, LIT("signatures"), *json_get(&signed_form, LIT("signatures")));
    return tree;
}

static bool is_listed(const struct json *list, struct slice id, const struct slice *ids)
{
    for (size_t i = 0; i < list->count; i++) {
        if (slice_eq(ids[i], id)) {
            return true;
        }
    }
    return false;
}

struct json peer_room_auth_chain(struct peer *peer, const struct peer_room *room,
                                 struct peer_event *const *events, size_t count)
{
    struct arena *arena = peer->arena;
    struct slice *ids = arena_array(arena, room->event_count + 1, sizeof *ids);
    struct json chain = json_array();
    for (size_t i = 0; i < count + chain.count; i++) {
        const struct json *tree = i < count ? &events[i]->tree : &chain.items[i - count];
        struct slice *cited;
        size_t cited_count = peer_event_cited(arena, tree, LIT("auth_events"), &cited);
        for (size_t c = 0; c < cited_count; c++) {
            struct peer_event *event = peer_room_event(room, cited[c]);
            if (event && !is_listed(&chain, event->id, ids)) {
                ids[chain.count] = event->id;
                json_push(arena, &chain, event->tree);
            }
        }
    }
    return chain;
}
