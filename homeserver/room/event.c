#include "homeserver/room/event.h"

#include <string.h>

#include "homeserver/room/event_priv.h"
#include "spec/errcodes.h"

static struct err bad(const char *text)
{
    return err_public(ERR_M_BAD_JSON, text);
}

bool event_is_state(const struct event *event)
{
    return event->has_state_key;
}

bool event_is(const struct event *event, struct slice type, struct slice state_key)
{
    return event->has_state_key && slice_eq(event->type, type) &&
           slice_eq(event->state_key, state_key);
}

/* Integers up to 2^63 - 1 are allowed before version 6; they parse as JSON_NUMBER. */
static bool read_integer(const struct json *value, int64_t *integer_out)
{
    if (value && value->type == JSON_INT) {
        *integer_out = value->integer;
        return true;
    }
    return value && value->type == JSON_NUMBER && slice_parse_i64(value->text, integer_out);
}

/* Spec: client-server, "Size limits": bytes; before version 11 servers count code points. */
static bool fits_255(const struct room_rules *rules, struct slice s)
{
    if (rules->byte_limits || s.len <= LIMIT_TYPE) {
        return s.len <= LIMIT_TYPE;
    }
    size_t points = 0;
    for (size_t i = 0; i < s.len; i++) {
        points += ((unsigned char)s.ptr[i] & 0xC0) != 0x80;
    }
    return points <= LIMIT_TYPE;
}

/* One entry of prev_events or auth_events: an id, or before version 3 a pair of id and hashes. */
static bool read_reference(const struct room_rules *rules, const struct json *item,
                           struct event_id *id_out)
{
    if (rules->event_format == EVENT_FORMAT_1) {
        if (item->type != JSON_ARRAY || item->count != 2 || item->items[1].type != JSON_OBJECT) {
            return false;
        }
        item = &item->items[0];
    }
    *id_out = ids_trust_event(item->type == JSON_STRING ? item->text : (struct slice){0});
    return ids_is_event(id_out->s);
}

struct references {
    const struct event_id *ids;
    size_t count;
};

static bool read_references(struct arena *arena, const struct room_rules *rules,
                            const struct json *list, struct references *references_out)
{
    if (!list || list->type != JSON_ARRAY) {
        return false;
    }
    struct event_id *ids = arena_array(arena, list->count, sizeof *ids);
    for (uint32_t i = 0; i < list->count; i++) {
        if (!read_reference(rules, &list->items[i], &ids[i])) {
            return false;
        }
    }
    *references_out = (struct references){ids, list->count};
    return true;
}

static struct err fill_graph(struct arena *arena, const struct json *tree, struct event *event)
{
    struct references prev;
    struct references cited;
    if (!read_references(arena, event->rules, json_get(tree, LIT("prev_events")), &prev)) {
        return bad("prev_events must be a list of event ids");
    }
    if (!read_references(arena, event->rules, json_get(tree, LIT("auth_events")), &cited)) {
        return bad("auth_events must be a list of event ids");
    }
    event->prev_events = prev.ids;
    event->prev_event_count = prev.count;
    event->auth_events = cited.ids;
    event->auth_event_count = cited.count;
    if (!read_integer(json_get(tree, LIT("depth")), &event->depth) || event->depth < 0 ||
        (event->rules->strict_canonical && event->depth > JSON_INT_MAX)) {
        return bad("depth must be an integer from 0 to the maximum of the room version");
    }
    if (!read_integer(json_get(tree, LIT("origin_server_ts")), &event->origin_server_ts)) {
        return bad("origin_server_ts must be an integer");
    }
    return OK;
}

/* Room and sender; the create event of version 12 has no room yet. */
static struct err fill_ids(const struct json *tree, struct event *event)
{
    event->sender = ids_trust_user(json_get_string(tree, LIT("sender")));
    event->room_id = ids_trust_room(json_get_string(tree, LIT("room_id")));
    if (!ids_is_user(event->sender.s)) {
        return bad("sender must be a valid user id");
    }
    bool names_room = event->rules->event_format == EVENT_FORMAT_12 &&
                      event_is(event, LIT("m.room.create"), LIT(""));
    if (names_room && json_get(tree, LIT("room_id"))) {
        return bad("the create event must not have a room_id in this room version");
    }
    if (!names_room && !ids_is_room(event->room_id.s)) {
        return bad("room_id must be a valid room id");
    }
    if (event->rules->event_format == EVENT_FORMAT_1) {
        event->id = ids_trust_event(json_get_string(tree, LIT("event_id")));
        if (!ids_is_event(event->id.s)) {
            return bad("event_id must be a valid event id");
        }
    }
    return OK;
}

static struct err fill_type(const struct json *tree, struct event *event)
{
    const struct json *state_key = json_get(tree, LIT("state_key"));
    event->type = json_get_string(tree, LIT("type"));
    if (!event->type.ptr || !fits_255(event->rules, event->type)) {
        return bad("type must be a string of at most 255 bytes");
    }
    if (state_key && (state_key->type != JSON_STRING || !fits_255(event->rules, state_key->text))) {
        return bad("state_key must be a string of at most 255 bytes");
    }
    event->has_state_key = state_key != NULL;
    event->state_key = state_key ? state_key->text : (struct slice){0};
    event->content = json_get_object(tree, LIT("content"));
    if (!event->content) {
        return bad("content must be an object");
    }
    return OK;
}

static struct event_id find_redacts(const struct event *event, const struct json *tree)
{
    const struct json *place = event->rules->redacts_in_content ? event->content : tree;
    struct slice id = {0};
    if (slice_eq(event->type, LIT("m.room.redaction"))) {
        id = json_get_string(place, LIT("redacts"));
    }
    return ids_trust_event(id);
}

struct err event_fill(struct arena *arena, const struct room_rules *rules, const struct json *tree,
                      enum event_completeness completeness, struct event *event_out)
{
    *event_out = (struct event){.rules = rules, .tree = tree};
    if (tree->type != JSON_OBJECT) {
        return bad("an event must be an object");
    }
    if (rules->strict_canonical) {
        struct err err = json_check_canonical(tree);
        if (err.code != 0) {
            return err_public(ERR_M_BAD_JSON, err.text);
        }
    }
    TRY(fill_type(tree, event_out));
    TRY(fill_ids(tree, event_out));
    TRY(fill_graph(arena, tree, event_out));
    if (completeness == EVENT_WHOLE &&
        (!json_get_object(tree, LIT("hashes")) || !json_get_object(tree, LIT("signatures")))) {
        return bad("hashes and signatures must be objects");
    }
    event_out->redacts = find_redacts(event_out, tree);
    return OK;
}

struct err event_check_size(struct slice json)
{
    if (json.len > LIMIT_EVENT_BYTES) {
        return err_public(ERR_M_TOO_LARGE, "an event may have at most 65536 bytes");
    }
    return OK;
}

struct err event_check_reference_counts(const struct event *event)
{
    if (event->prev_event_count > LIMIT_PREV_EVENTS) {
        return bad("an event may have at most 20 prev_events");
    }
    if (event->auth_event_count > LIMIT_AUTH_EVENTS) {
        return bad("an event may have at most 10 auth_events");
    }
    return OK;
}

/* The stored form: nothing that other servers may change on the way. */
static struct json *strip(struct arena *arena, const struct room_rules *rules,
                          const struct json *tree)
{
    const struct slice dropped[] = {LIT("unsigned"), LIT("event_id")};
    struct json *kept = arena_alloc(arena, sizeof *kept);
    *kept = json_without(arena, tree, dropped, rules->event_format == EVENT_FORMAT_1 ? 1 : 2);
    return kept;
}

struct err event_parse_tree(struct arena *arena, const struct room_rules *rules,
                            const struct json *tree, struct event *event_out)
{
    if (tree->type != JSON_OBJECT) {
        return bad("an event must be an object");
    }
    const struct json *kept = strip(arena, rules, tree);
    TRY(event_fill(arena, rules, kept, EVENT_WHOLE, event_out));
    event_out->json = json_canonical(arena, kept);
    TRY(event_check_size(event_out->json));
    event_out->content_json = json_canonical(arena, event_out->content);
    if (rules->event_format != EVENT_FORMAT_1) {
        event_out->id = event_id_compute(arena, rules, kept);
    }
    if (!event_out->room_id.s.ptr) {
        event_out->room_id = event_room_of_create(arena, event_out->id);
    }
    return OK;
}

struct err event_parse(struct arena *arena, const struct room_rules *rules, struct slice json,
                       struct event *event_out)
{
    struct json *tree = arena_alloc(arena, sizeof *tree);
    struct err err = json_parse(arena, json, tree);
    if (err.code != 0) {
        return err_public(ERR_M_BAD_JSON, err.text);
    }
    return event_parse_tree(arena, rules, tree, event_out);
}

static struct json references_json(struct arena *arena, const struct room_rules *rules,
                                   const struct event_id *ids, size_t count)
{
    struct json list = json_array();
    for (size_t i = 0; i < count; i++) {
        struct json item = json_string(ids[i].s);
        if (rules->event_format == EVENT_FORMAT_1) {
            /* The hash beside the id was never checked by anyone; an empty object is valid. */
            struct json pair = json_array();
            json_push(arena, &pair, item);
            json_push(arena, &pair, json_object());
            item = pair;
        }
        json_push(arena, &list, item);
    }
    return list;
}

/* A redaction carries its target where the version says, and only there. */
static struct json draft_content(struct arena *arena, const struct event_draft *draft)
{
    const struct slice redacts = LIT("redacts");
    if (!slice_eq(draft->type, LIT("m.room.redaction"))) {
        return *draft->content;
    }
    struct json content = json_without(arena, draft->content, &redacts, 1);
    if (draft->rules->redacts_in_content && draft->redacts.s.len) {
        json_set(arena, &content, redacts, json_string(draft->redacts.s));
    }
    return content;
}

struct json event_draft_tree(struct arena *arena, const struct event_draft *draft)
{
    const struct room_rules *rules = draft->rules;
    int64_t depth_max = rules->strict_canonical ? JSON_INT_MAX : INT64_MAX;
    struct json tree = json_object();
    struct json_member *members = arena_array(arena, 12, sizeof *members);
    uint32_t count = 0;
    members[count++] =
        (struct json_member){LIT("auth_events"), references_json(arena, rules, draft->auth_events,
                                                                 draft->auth_event_count)};
    members[count++] = (struct json_member){LIT("content"), draft_content(arena, draft)};
    members[count++] = (struct json_member){
        LIT("depth"), json_int(draft->depth < depth_max ? draft->depth : depth_max)};
    if (rules->event_format == EVENT_FORMAT_1 && draft->id.s.len) {
        members[count++] = (struct json_member){LIT("event_id"), json_string(draft->id.s)};
    }
    members[count++] =
        (struct json_member){LIT("origin_server_ts"), json_int(draft->origin_server_ts)};
    members[count++] =
        (struct json_member){LIT("prev_events"), references_json(arena, rules, draft->prev_events,
                                                                 draft->prev_event_count)};
    if (draft->redacts.s.len && !rules->redacts_in_content) {
        members[count++] = (struct json_member){LIT("redacts"), json_string(draft->redacts.s)};
    }
    if (draft->room_id.s.len) {
        members[count++] = (struct json_member){LIT("room_id"), json_string(draft->room_id.s)};
    }
    members[count++] = (struct json_member){LIT("sender"), json_string(draft->sender.s)};
    if (draft->state_key) {
        members[count++] = (struct json_member){LIT("state_key"), json_string(*draft->state_key)};
    }
    members[count++] = (struct json_member){LIT("type"), json_string(draft->type)};
    tree.members = members;
    tree.count = count;
    return tree;
}
