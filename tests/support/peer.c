#include "tests/support/peer.h"

#include "homeserver/base/mem.h"

#include <string.h>

void peer_init(struct peer *peer, const char *name)
{
    unsigned char seed[ED25519_SEED_BYTES] = {7};
    *peer = (struct peer){.name = slice_of(name), .key_id = LIT("ed25519:1")};
    for (size_t i = 0; i < peer->name.len && i < sizeof seed; i++) {
        seed[i] = (unsigned char)peer->name.ptr[i];
    }
    peer->key = ed25519_from_seed(seed);
    peer->signer = (struct json_signer){
        .server = ids_trust_server(peer->name), .key_id = peer->key_id, .key = &peer->key};
}

struct slice peer_user(struct arena *arena, const struct peer *peer, const char *localpart)
{
    return arena_printf(arena, "@%s:%.*s", localpart, (int)peer->name.len, peer->name.ptr);
}

const struct event *peer_get(const struct peer_room *room, size_t at)
{
    ASSERT(at < room->count);
    return &room->events[at].event;
}

size_t peer_find(const struct peer_room *room, struct slice id)
{
    uint64_t at = 0;
    return map_get(room->by_id, id, &at) ? (size_t)at - 1 : SIZE_MAX;
}

static const struct event *event_by_id(void *arg, struct event_id id)
{
    const struct peer_room *room = arg;
    size_t at = peer_find(room, id.s);
    return at == SIZE_MAX ? NULL : &room->events[at].event;
}

struct looking {
    const struct peer_room *room;
    struct resolve_set state;
};

static const struct event *look_up(void *arg, struct slice type, struct slice state_key)
{
    const struct looking *looking = arg;
    for (size_t i = 0; i < looking->state.count; i++) {
        const struct resolve_entry *entry = &looking->state.items[i];
        if (slice_eq(entry->type, type) && slice_eq(entry->state_key, state_key)) {
            return event_by_id((void *)(uintptr_t)looking->room, entry->event);
        }
    }
    return NULL;
}

struct resolve_set peer_state_after(struct peer_room *room, const size_t *ends, size_t count)
{
    struct resolve_set *sets = arena_array(room->arena_owned, count + 1, sizeof *sets);
    struct resolve_set state = {0};
    for (size_t i = 0; i < count; i++) {
        sets[i] = room->events[ends[i]].after;
    }
    if (count < 2) {
        return sets[0];
    }
    struct resolve_input input = {.arena = room->arena_owned,
                                  .rules = room->rules,
                                  .create = &room->events[0].event,
                                  .sets = sets,
                                  .set_count = count,
                                  .event = event_by_id,
                                  .arg = room};
    resolve_states(&input, &state);
    return state;
}

/* The state with the event in the place of its key. */
static struct resolve_set state_with(struct peer_room *room, struct resolve_set state,
                                     const struct event *event)
{
    struct resolve_entry *items = arena_array(room->arena_owned, state.count + 1, sizeof *items);
    size_t count = 0;
    for (size_t i = 0; i < state.count; i++) {
        bool same = slice_eq(state.items[i].type, event->type) &&
                    slice_eq(state.items[i].state_key, event->state_key);
        if (!same) {
            items[count++] = state.items[i];
        }
    }
    items[count++] = (struct resolve_entry){event->type, event->state_key, event->id};
    return (struct resolve_set){items, count};
}

static struct json parse(struct peer_room *room, const char *text)
{
    struct json json;
    struct err err = json_parse(room->arena_owned, slice_of(text), &json);
    ASSERT(err.code == 0);
    return json;
}

static size_t select_auth(struct looking *looking, const struct event *shape, struct event_id *ids)
{
    struct auth_key keys[AUTH_EVENTS_MAX];
    size_t wanted = auth_events_select(shape, keys);
    size_t count = 0;
    for (size_t i = 0; i < wanted; i++) {
        const struct event *cited = look_up(looking, keys[i].type, keys[i].state_key);
        if (cited) {
            ids[count++] = cited->id;
        }
    }
    return count;
}

static size_t select_prev(const struct peer_room *room, const struct peer_draft *draft,
                          size_t *prev)
{
    size_t last = room->count - 1;
    if (room->count == 0) {
        return 0;
    }
    const size_t *given = draft->prev ? draft->prev : &last;
    size_t count = draft->prev ? draft->prev_count : 1;
    ASSERT(count <= PEER_PREV_MAX);
    memcpy(prev, given, count * sizeof *prev);
    return count;
}

static void judge(struct peer_room *room, struct peer_event *made, struct looking *looking)
{
    struct auth_input input = {.arena = room->arena_owned,
                               .event = &made->event,
                               .create = room->count ? &room->events[0].event : NULL,
                               .state = look_up,
                               .state_arg = looking};
    made->refused = !auth_check_event(&input).allowed;
    made->event.rejected = made->refused;
    made->after = made->before;
    if (made->event.has_state_key && !made->refused) {
        made->after = state_with(room, made->before, &made->event);
    }
}

size_t peer_make(struct peer_room *room, const struct peer_draft *draft)
{
    struct arena *arena = room->arena_owned;
    struct peer_event *made = &room->events[room->count];
    struct json content = parse(room, draft->content);
    struct slice state_key = slice_of(draft->state_key);
    size_t prev[PEER_PREV_MAX];
    struct event_id prev_ids[PEER_PREV_MAX];
    struct event_id auth[AUTH_EVENTS_MAX];
    size_t prev_count = select_prev(room, draft, prev);
    ASSERT(room->count < PEER_EVENTS_MAX);
    made->before = prev_count ? peer_state_after(room, prev, prev_count) : (struct resolve_set){0};
    struct looking looking = {room, made->before};
    struct event shape = {.rules = room->rules,
                          .type = slice_of(draft->type),
                          .state_key = state_key,
                          .has_state_key = draft->state_key != NULL,
                          .sender = ids_trust_user(draft->sender),
                          .content = &content};
    struct event_draft parts = {.rules = room->rules,
                                .room_id = ids_trust_room(room->room_id),
                                .sender = shape.sender,
                                .type = shape.type,
                                .state_key = draft->state_key ? &state_key : NULL,
                                .content = &content,
                                .redacts = ids_trust_event(slice_of(draft->redacts)),
                                .origin_server_ts = room->ts++,
                                .depth = draft->depth,
                                .prev_events = prev_ids,
                                .prev_event_count = prev_count,
                                .auth_events = draft->auth ? draft->auth : auth,
                                .auth_event_count = draft->auth_count};
    for (size_t i = 0; i < prev_count; i++) {
        const struct event *event = peer_get(room, prev[i]);
        prev_ids[i] = event->id;
        parts.depth = !draft->depth && event->depth >= parts.depth ? event->depth + 1 : parts.depth;
    }
    parts.depth = parts.depth ? parts.depth : 1;
    if (!draft->auth) {
        parts.auth_event_count = select_auth(&looking, &shape, auth);
    }
    if (room->rules->event_format == EVENT_FORMAT_1) {
        parts.id = ids_trust_event(arena_printf(arena, "$%zu:%.*s", room->count,
                                                (int)draft->peer->name.len, draft->peer->name.ptr));
    }
    struct json tree = event_draft_tree(arena, &parts);
    struct err err = event_seal(arena, room->rules, &tree, &draft->peer->signer, &made->event);
    ASSERT(err.code == 0);
    judge(room, made, &looking);
    map_set(room->by_id, made->event.id.s, ++room->count);
    return room->count - 1;
}

size_t peer_member(struct peer_room *room, const struct peer_draft *like, struct slice target,
                   const char *membership)
{
    struct peer_draft draft = *like;
    draft.type = "m.room.member";
    draft.state_key = arena_cstr(room->arena_owned, target);
    draft.content = arena_printf(room->arena_owned, "{\"membership\":\"%s\"}", membership).ptr;
    return peer_make(room, &draft);
}

void peer_room_open(struct peer_room *room, const char *version, const struct peer *peer,
                    struct slice creator)
{
    struct peer_draft draft = {.peer = peer, .sender = creator, .state_key = ""};
    *room = (struct peer_room){.arena_owned = arena_new(),
                               .rules = room_rules_get(slice_of(version)),
                               .by_id = map_new(),
                               .ts = 1600000000000};
    struct arena *arena = room->arena_owned;
    bool named_by_hash = room->rules->event_format == EVENT_FORMAT_12;
    room->events = mem_alloc(PEER_EVENTS_MAX * sizeof *room->events);
    room->room_id = named_by_hash
                        ? (struct slice){0}
                        : arena_printf(arena, "!room:%.*s", (int)peer->name.len, peer->name.ptr);
    draft.type = "m.room.create";
    draft.content = arena_printf(arena, "{\"room_version\":\"%s\",\"creator\":\"%.*s\"}", version,
                                 (int)creator.len, creator.ptr)
                        .ptr;
    peer_make(room, &draft);
    room->room_id = peer_get(room, 0)->room_id.s;
    peer_member(room, &draft, creator, "join");
    draft.type = "m.room.power_levels";
    draft.content =
        named_by_hash
            ? "{\"users\":{}}"
            : arena_printf(arena, "{\"users\":{\"%.*s\":100}}", (int)creator.len, creator.ptr).ptr;
    peer_make(room, &draft);
    draft.type = "m.room.join_rules";
    draft.content = "{\"join_rule\":\"public\"}";
    peer_make(room, &draft);
    draft.type = "m.room.history_visibility";
    draft.content = "{\"history_visibility\":\"shared\"}";
    peer_make(room, &draft);
}

void peer_room_close(struct peer_room *room)
{
    map_free(&room->by_id);
    mem_free(room->events);
    arena_free(&room->arena_owned);
}
