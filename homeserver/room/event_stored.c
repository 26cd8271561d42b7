/* Reading back what this server stored: canonical bytes without white space, already checked. Only
 * the top level is scanned; values of no interest are stepped over. */
#include "homeserver/room/event_priv.h"

#include <string.h>

enum field {
    FIELD_AUTH_EVENTS,
    FIELD_CONTENT,
    FIELD_DEPTH,
    FIELD_EVENT_ID,
    FIELD_ORIGIN_SERVER_TS,
    FIELD_PREV_EVENTS,
    FIELD_REDACTS,
    FIELD_ROOM_ID,
    FIELD_SENDER,
    FIELD_STATE_KEY,
    FIELD_TYPE,
    FIELD_COUNT,
};

static const struct slice field_names[FIELD_COUNT] = {
    [FIELD_AUTH_EVENTS] = LIT("auth_events"),
    [FIELD_CONTENT] = LIT("content"),
    [FIELD_DEPTH] = LIT("depth"),
    [FIELD_EVENT_ID] = LIT("event_id"),
    [FIELD_ORIGIN_SERVER_TS] = LIT("origin_server_ts"),
    [FIELD_PREV_EVENTS] = LIT("prev_events"),
    [FIELD_REDACTS] = LIT("redacts"),
    [FIELD_ROOM_ID] = LIT("room_id"),
    [FIELD_SENDER] = LIT("sender"),
    [FIELD_STATE_KEY] = LIT("state_key"),
    [FIELD_TYPE] = LIT("type"),
};

/* The end of a string whose opening quote stands at `at`; NULL when there is none. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end; at++) {
        at = memchr(at, '"', (size_t)(end - at));
        if (!at) {
            return NULL;
        }
        const char *before = at;
        while (before[-1] == '\\') {
            before--;
        }
        if ((at - before) % 2 == 0) {
            return at + 1;
        }
    }
    return NULL;
}

static const char *skip_container(const char *at, const char *end)
{
    size_t depth = 0;
    while (at < end) {
        char c = *at;
        if (c == '"') {
            at = skip_string(at, end);
            if (!at) {
                return NULL;
            }
            continue;
        }
        at++;
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            depth--;
        }
        if (depth == 0) {
            return at;
        }
    }
    return NULL;
}

/* The end of the value at `at`; NULL when the text ends first. */
static const char *skip_value(const char *at, const char *end)
{
    if (at == end) {
        return NULL;
    }
    if (*at == '"') {
        return skip_string(at, end);
    }
    if (*at == '{' || *at == '[') {
        return skip_container(at, end);
    }
    while (at < end && *at != ',' && *at != '}' && *at != ']') {
        at++;
    }
    return at;
}

static void note_field(struct slice *fields, struct slice key, struct slice value)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (slice_eq(key, field_names[i])) {
            fields[i] = value;
            return;
        }
    }
}

static bool scan_members(struct slice json, struct slice *fields)
{
    const char *at = json.ptr;
    const char *end = json.ptr + json.len;
    if (json.len < 2 || *at != '{') {
        return false;
    }
    while (at < end && (*at == '{' || *at == ',')) {
        const char *key = ++at;
        at = at < end && *at == '"' ? skip_string(at, end) : NULL;
        if (!at || at == end || *at != ':') {
            return false;
        }
        struct slice name = {key + 1, (size_t)(at - key) - 2};
        const char *value = ++at;
        at = skip_value(at, end);
        if (!at) {
            return false;
        }
        note_field(fields, name, (struct slice){value, (size_t)(at - value)});
    }
    return at + 1 == end && *at == '}';
}

/* The text of a scanned string; decoded through the parser when it has escapes. */
static struct slice text_of(struct arena *arena, struct slice raw)
{
    struct json value;
    if (raw.len < 2 || raw.ptr[0] != '"') {
        return (struct slice){0};
    }
    struct slice inner = slice_sub(raw, 1, raw.len - 2);
    if (!memchr(inner.ptr, '\\', inner.len)) {
        return inner;
    }
    struct err err = json_parse(arena, raw, &value);
    return err.code == 0 && value.type == JSON_STRING ? value.text : (struct slice){0};
}

/* Ids of a scanned list of strings (version 3 on) or of pairs that begin with one. */
static const struct event_id *ids_of(struct arena *arena, struct slice raw, size_t *count_out)
{
    size_t commas = 1;
    const char *at = raw.ptr;
    const char *end = raw.ptr + raw.len;
    for (size_t i = 0; i < raw.len; i++) {
        commas += raw.ptr[i] == ',';
    }
    struct event_id *ids = arena_array(arena, commas, sizeof *ids);
    size_t count = 0;
    while (at && at < end) {
        if (*at == '"') {
            const char *start = at;
            at = skip_string(at, end);
            if (at) {
                struct slice text = {start, (size_t)(at - start)};
                ids[count++] = ids_trust_event(text_of(arena, text));
            }
        } else {
            at = *at == '{' ? skip_container(at, end) : at + 1;
        }
    }
    *count_out = count;
    return ids;
}

static struct err corrupt(void)
{
    return err_make(ERR_CORRUPT, "a stored event does not scan");
}

static void fill_scanned(struct arena *arena, const struct slice *fields, struct event *event)
{
    event->content_json = fields[FIELD_CONTENT];
    event->sender = ids_trust_user(text_of(arena, fields[FIELD_SENDER]));
    event->type = text_of(arena, fields[FIELD_TYPE]);
    event->has_state_key = fields[FIELD_STATE_KEY].ptr != NULL;
    if (event->has_state_key) {
        event->state_key = text_of(arena, fields[FIELD_STATE_KEY]);
    }
    event->auth_events = ids_of(arena, fields[FIELD_AUTH_EVENTS], &event->auth_event_count);
    event->prev_events = ids_of(arena, fields[FIELD_PREV_EVENTS], &event->prev_event_count);
    if (event->rules->event_format == EVENT_FORMAT_1 && !event->id.s.len) {
        event->id = ids_trust_event(text_of(arena, fields[FIELD_EVENT_ID]));
    }
    if (fields[FIELD_ROOM_ID].ptr) {
        event->room_id = ids_trust_room(text_of(arena, fields[FIELD_ROOM_ID]));
    } else {
        event->room_id = event_room_of_create(arena, event->id);
    }
}

/* `redacts` is read from the content's bytes, so that scanned events have it too. */
static void fill_redacts(struct arena *arena, const struct slice *fields, struct event *event)
{
    struct slice inner[FIELD_COUNT] = {0};
    if (!slice_eq(event->type, LIT("m.room.redaction"))) {
        return;
    }
    if (!event->rules->redacts_in_content) {
        event->redacts = ids_trust_event(text_of(arena, fields[FIELD_REDACTS]));
    } else if (event->content_json.len > 2 && scan_members(event->content_json, inner)) {
        event->redacts = ids_trust_event(text_of(arena, inner[FIELD_REDACTS]));
    }
}

struct err event_scan_stored(struct arena *arena, const struct room_rules *rules, struct slice json,
                             struct event_id id, struct event *event_out)
{
    struct slice fields[FIELD_COUNT] = {0};
    *event_out = (struct event){.rules = rules, .json = json, .id = id};
    if (!scan_members(json, fields) || !fields[FIELD_CONTENT].ptr ||
        !slice_parse_i64(fields[FIELD_DEPTH], &event_out->depth) ||
        !slice_parse_i64(fields[FIELD_ORIGIN_SERVER_TS], &event_out->origin_server_ts)) {
        return corrupt();
    }
    fill_scanned(arena, fields, event_out);
    fill_redacts(arena, fields, event_out);
    return event_out->type.ptr && event_out->sender.s.ptr ? OK : corrupt();
}

struct err event_parse_stored(struct arena *arena, const struct room_rules *rules,
                              struct slice json, struct event_id id, struct event *event_out)
{
    TRY(event_scan_stored(arena, rules, json, id, event_out));
    struct json *content = arena_alloc(arena, sizeof *content);
    struct err err = json_parse(arena, event_out->content_json, content);
    if (err.code != 0 || content->type != JSON_OBJECT) {
        return corrupt();
    }
    event_out->content = content;
    return OK;
}

const struct json *event_tree(struct arena *arena, const struct event *event)
{
    if (event->tree) {
        return event->tree;
    }
    struct json *tree = arena_alloc(arena, sizeof *tree);
    struct err err = json_parse(arena, event->json, tree);
    if (err.code != 0) {
        *tree = json_object(); /* corrupt bytes: no hash, signature or member will be found */
    }
    return tree;
}
