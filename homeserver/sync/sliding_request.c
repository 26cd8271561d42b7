#include "homeserver/sync/sliding_request.h"

#include "spec/errcodes.h"
#include "spec/ids.h"

struct parsing {
    struct arena *arena;
    struct slice me;
};

static struct err refuse(struct parsing *p, const char *name, const char *form)
{
    return err_publicf(p->arena, ERR_M_BAD_JSON, "`%s` must be %s.", name, form);
}

/* The member if it is of the type; NULL when absent or null. */
static struct err read_member(struct parsing *p, const struct json *object, const char *name,
                              enum json_type type, const struct json **value_out)
{
    static const char *const forms[] = {
        [JSON_NULL] = "null",       [JSON_BOOL] = "a boolean",  [JSON_INT] = "an integer",
        [JSON_NUMBER] = "number",   [JSON_STRING] = "a string", [JSON_ARRAY] = "an array",
        [JSON_OBJECT] = "an object"};
    const struct json *value = json_get(object, slice_of(name));
    *value_out = NULL;
    if (value == NULL || value->type == JSON_NULL) {
        return OK;
    }
    if (value->type != type) {
        return refuse(p, name, forms[type]);
    }
    *value_out = value;
    return OK;
}

static struct err read_text(struct parsing *p, const struct json *object, const char *name,
                            struct slice *text_out)
{
    const struct json *value = NULL;
    TRY(read_member(p, object, name, JSON_STRING, &value));
    *text_out = value ? value->text : (struct slice){0};
    return OK;
}

/* A whole number of at least 0; `fallback` when absent. */
static struct err read_count(struct parsing *p, const struct json *object, const char *name,
                             int64_t fallback, int64_t *count_out)
{
    const struct json *value = NULL;
    TRY(read_member(p, object, name, JSON_INT, &value));
    *count_out = value ? value->integer : fallback;
    return value && value->integer < 0 ? refuse(p, name, "at least 0") : OK;
}

static struct err read_bool(struct parsing *p, const struct json *object, const char *name,
                            bool *bool_out)
{
    const struct json *value = NULL;
    TRY(read_member(p, object, name, JSON_BOOL, &value));
    *bool_out = value && value->boolean;
    return OK;
}

/* A list of strings; null among them, where that is allowed, becomes the empty name. */
static struct err read_names(struct parsing *p, const struct json *object, const char *name,
                             bool null_allowed, struct sync_names *names_out)
{
    const struct json *list = NULL;
    *names_out = (struct sync_names){0};
    TRY(read_member(p, object, name, JSON_ARRAY, &list));
    if (list == NULL) {
        return OK;
    }
    names_out->given = true;
    names_out->items = arena_array(p->arena, list->count, sizeof *names_out->items);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct json *item = &list->items[i];
        bool is_null = null_allowed && item->type == JSON_NULL;
        if (item->type != JSON_STRING && !is_null) {
            return refuse(p, name, "a list of strings");
        }
        names_out->items[names_out->count++] = is_null ? (struct slice){0} : item->text;
    }
    return OK;
}

/* --- required_state --- */

static void push_element(struct sliding_elements *elements, struct sliding_element element)
{
    elements->items[elements->count++] = element;
}

static struct err check_count(const struct json *list)
{
    return list->count > SLIDING_STATE_MAX
               ? err_public(ERR_M_INVALID_PARAM, "`required_state` has too many elements.")
               : OK;
}

/* [type, state_key] */
static struct err read_pair(struct parsing *p, const struct json *pair, struct sliding_state *state)
{
    struct sliding_element element = {0};
    if (pair->type != JSON_ARRAY || pair->count != 2 || pair->items[0].type != JSON_STRING ||
        pair->items[1].type != JSON_STRING) {
        return refuse(p, "required_state", "a list of [type, state_key] or an object");
    }
    element.type = pair->items[0].text;
    element.state_key = pair->items[1].text;
    if (slice_eq(element.state_key, LIT("$LAZY")) && slice_eq(element.type, LIT("m.room.member"))) {
        state->lazy_members = true;
        return OK;
    }
    element.any_type = slice_eq(element.type, LIT("*"));
    element.any_key = slice_eq(element.state_key, LIT("*"));
    if (slice_eq(element.state_key, LIT("$ME"))) {
        element.state_key = p->me;
    }
    push_element(&state->include, element);
    return OK;
}

static struct err read_elements(struct parsing *p, const struct json *object, const char *name,
                                struct sliding_elements *elements)
{
    const struct json *list = NULL;
    TRY(read_member(p, object, name, JSON_ARRAY, &list));
    if (list == NULL) {
        return OK;
    }
    TRY(check_count(list));
    elements->items = arena_array(p->arena, list->count, sizeof *elements->items);
    for (uint32_t i = 0; i < list->count; i++) {
        struct sliding_element element = {0};
        if (list->items[i].type != JSON_OBJECT) {
            return refuse(p, name, "a list of objects");
        }
        TRY(read_text(p, &list->items[i], "type", &element.type));
        TRY(read_text(p, &list->items[i], "state_key", &element.state_key));
        element.any_type = element.type.ptr == NULL;
        element.any_key = element.state_key.ptr == NULL;
        push_element(elements, element);
    }
    return OK;
}

static struct err read_state(struct parsing *p, const struct json *value,
                             struct sliding_state *state)
{
    *state = (struct sliding_state){0};
    if (value == NULL || value->type == JSON_NULL) {
        state->text = LIT("[]");
        return OK;
    }
    state->text = value->raw;
    if (value->type == JSON_OBJECT) {
        TRY(read_elements(p, value, "include", &state->include));
        TRY(read_elements(p, value, "exclude", &state->exclude));
        return read_bool(p, value, "lazy_members", &state->lazy_members);
    }
    if (value->type != JSON_ARRAY) {
        return refuse(p, "required_state", "a list or an object");
    }
    TRY(check_count(value));
    state->include.items = arena_array(p->arena, value->count, sizeof *state->include.items);
    for (uint32_t i = 0; i < value->count; i++) {
        TRY(read_pair(p, &value->items[i], state));
    }
    return OK;
}

static bool is_among(const struct sliding_elements *elements, struct slice type, struct slice key,
                     bool by_type)
{
    for (size_t i = 0; i < elements->count; i++) {
        const struct sliding_element *element = &elements->items[i];
        bool type_fits = element->any_type ? !by_type : slice_eq(element->type, type);
        if (type_fits && (element->any_key || slice_eq(element->state_key, key))) {
            return true;
        }
    }
    return false;
}

bool sync_sliding_takes(const struct sliding_state *state, struct slice type, struct slice key)
{
    /* With lazy members a wildcard for the type does not mean them. */
    bool by_type = state->lazy_members && slice_eq(type, LIT("m.room.member"));
    return is_among(&state->include, type, key, by_type) &&
           !is_among(&state->exclude, type, key, false);
}

bool sync_sliding_takes_members(const struct sliding_state *state)
{
    for (size_t i = 0; i < state->include.count; i++) {
        const struct sliding_element *element = &state->include.items[i];
        bool fits = element->any_type ? !state->lazy_members
                                      : slice_eq(element->type, LIT("m.room.member"));
        if (fits && element->any_key) {
            return true;
        }
    }
    return false;
}

/* --- lists and subscriptions --- */

static struct err read_config(struct parsing *p, const struct json *object,
                              struct sliding_config *config)
{
    int64_t limit = 0;
    TRY(read_count(p, object, "timeline_limit", 0, &limit));
    config->timeline_limit = limit > SYNC_TIMELINE_MAX ? SYNC_TIMELINE_MAX : (size_t)limit;
    return read_state(p, json_get(object, LIT("required_state")), &config->state);
}

static struct err read_ask(struct parsing *p, const struct json *object, const char *name,
                           enum sliding_ask *ask)
{
    const struct json *value = NULL;
    TRY(read_member(p, object, name, JSON_BOOL, &value));
    if (value) {
        *ask = value->boolean ? SLIDING_WITH : SLIDING_WITHOUT;
    }
    return OK;
}

static struct err read_filters(struct parsing *p, const struct json *list,
                               struct sliding_filters *filters)
{
    const struct json *object = NULL;
    TRY(read_member(p, list, "filters", JSON_OBJECT, &object));
    TRY(read_ask(p, object, "is_dm", &filters->is_dm));
    TRY(read_ask(p, object, "is_encrypted", &filters->is_encrypted));
    TRY(read_ask(p, object, "is_invite", &filters->is_invited));
    TRY(read_ask(p, object, "is_invited", &filters->is_invited));
    TRY(read_names(p, object, "spaces", false, &filters->spaces));
    TRY(read_names(p, object, "tags", false, &filters->tags));
    TRY(read_names(p, object, "not_tags", false, &filters->not_tags));
    TRY(read_names(p, object, "room_types", true, &filters->room_types));
    return read_names(p, object, "not_room_types", true, &filters->not_room_types);
}

static struct err read_range(struct parsing *p, const struct json *pair, struct sliding_list *list)
{
    bool fits = pair->type == JSON_ARRAY && pair->count == 2 && pair->items[0].type == JSON_INT &&
                pair->items[1].type == JSON_INT;
    if (!fits || pair->items[0].integer < 0 || pair->items[1].integer < pair->items[0].integer) {
        return refuse(p, "range", "[first, last], both at least 0, in this order");
    }
    list->ranges[list->range_count++] =
        (struct sliding_range){(size_t)pair->items[0].integer, (size_t)pair->items[1].integer};
    return OK;
}

static struct err read_ranges(struct parsing *p, const struct json *object,
                              struct sliding_list *list)
{
    const struct json *range = NULL;
    const struct json *ranges = NULL;
    TRY(read_member(p, object, "range", JSON_ARRAY, &range));
    TRY(read_member(p, object, "ranges", JSON_ARRAY, &ranges));
    size_t count = (range ? 1U : 0U) + (ranges ? ranges->count : 0U);
    if (count > SLIDING_RANGES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "A list has too many ranges.");
    }
    list->ranges = arena_array(p->arena, count, sizeof *list->ranges);
    if (range) {
        TRY(read_range(p, range, list));
    }
    for (uint32_t i = 0; ranges && i < ranges->count; i++) {
        TRY(read_range(p, &ranges->items[i], list));
    }
    if (ranges && ranges->count == 0 && !range) {
        return refuse(p, "ranges", "a list with at least one range");
    }
    return OK;
}

static struct err read_lists(struct parsing *p, const struct json *body,
                             struct sliding_request *request)
{
    const struct json *lists = NULL;
    TRY(read_member(p, body, "lists", JSON_OBJECT, &lists));
    if (lists && lists->count > SLIDING_LISTS_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "There may be at most 100 lists.");
    }
    request->list_count = lists ? lists->count : 0;
    request->lists = arena_array(p->arena, request->list_count, sizeof *request->lists);
    for (size_t i = 0; i < request->list_count; i++) {
        const struct json *value = &lists->members[i].value;
        struct sliding_list *list = &request->lists[i];
        if (value->type != JSON_OBJECT) {
            return refuse(p, "lists", "an object of objects");
        }
        list->name = lists->members[i].key;
        TRY(read_config(p, value, &list->config));
        TRY(read_filters(p, value, &list->filters));
        TRY(read_ranges(p, value, list));
    }
    return OK;
}

static struct err read_subscriptions(struct parsing *p, const struct json *body,
                                     struct sliding_request *request)
{
    const struct json *rooms = NULL;
    TRY(read_member(p, body, "room_subscriptions", JSON_OBJECT, &rooms));
    if (rooms && rooms->count > SLIDING_SUBSCRIPTIONS_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "There may be at most 100 room subscriptions.");
    }
    request->subscription_count = rooms ? rooms->count : 0;
    request->subscriptions =
        arena_array(p->arena, request->subscription_count, sizeof *request->subscriptions);
    for (size_t i = 0; i < request->subscription_count; i++) {
        const struct json *value = &rooms->members[i].value;
        if (value->type != JSON_OBJECT) {
            return refuse(p, "room_subscriptions", "an object of objects");
        }
        request->subscriptions[i].room_id = rooms->members[i].key;
        TRY(read_config(p, value, &request->subscriptions[i].config));
    }
    return OK;
}

/* --- extensions --- */

#define PROFILES "org.matrix.msc4262.profiles"

static uint64_t mix(uint64_t hash, const struct json *value)
{
    return (hash ^ (value ? slice_hash(value->raw) : 1)) * UINT64_C(0x9E3779B97F4A7C15);
}

/* Absent or "*" in it: all of the request. */
static bool means_all(const struct sync_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        if (slice_eq(names->items[i], LIT("*"))) {
            return true;
        }
    }
    return !names->given;
}

static struct err read_scope(struct parsing *p, const struct json *extensions, const char *name,
                             struct sliding_scope *scope)
{
    const struct json *object = NULL;
    TRY(read_member(p, extensions, name, JSON_OBJECT, &object));
    TRY(read_bool(p, object, "enabled", &scope->enabled));
    TRY(read_names(p, object, "lists", false, &scope->lists));
    TRY(read_names(p, object, "rooms", false, &scope->rooms));
    scope->all_lists = means_all(&scope->lists);
    scope->all_rooms = means_all(&scope->rooms);
    return OK;
}

static struct err read_profiles(struct parsing *p, const struct json *extensions,
                                struct sliding_request *request)
{
    const struct json *object = NULL;
    TRY(read_scope(p, extensions, PROFILES, &request->profiles.scope));
    TRY(read_member(p, extensions, PROFILES, JSON_OBJECT, &object));
    TRY(read_names(p, object, "fields", false, &request->profiles.fields));
    request->profiles.fields_hash = mix(1, json_get(object, LIT("fields"))) | 1;
    return OK;
}

static struct err read_extensions(struct parsing *p, const struct json *body,
                                  struct sliding_request *request)
{
    enum { TO_DEVICE_MAX = 100, THREADS_MAX = 100 };
    const struct json *extensions = NULL;
    const struct json *object = NULL;
    int64_t limit = 0;
    TRY(read_member(p, body, "extensions", JSON_OBJECT, &extensions));
    TRY(read_member(p, extensions, "to_device", JSON_OBJECT, &object));
    TRY(read_bool(p, object, "enabled", &request->to_device.enabled));
    TRY(read_text(p, object, "since", &request->to_device.since));
    TRY(read_count(p, object, "limit", TO_DEVICE_MAX, &limit));
    request->to_device.limit = limit == 0              ? 1
                               : limit < TO_DEVICE_MAX ? (size_t)limit
                                                       : TO_DEVICE_MAX;
    TRY(read_member(p, extensions, "e2ee", JSON_OBJECT, &object));
    TRY(read_bool(p, object, "enabled", &request->e2ee));
    TRY(read_member(p, extensions, "io.element.msc4308.thread_subscriptions", JSON_OBJECT,
                    &object));
    TRY(read_bool(p, object, "enabled", &request->thread_subs.enabled));
    TRY(read_count(p, object, "limit", THREADS_MAX, &limit));
    request->thread_subs.limit = limit == 0 ? 1 : limit < THREADS_MAX ? (size_t)limit : THREADS_MAX;
    TRY(read_member(p, extensions, "presence", JSON_OBJECT, &object));
    TRY(read_bool(p, object, "enabled", &request->presence));
    TRY(read_profiles(p, extensions, request));
    TRY(read_scope(p, extensions, "account_data", &request->account_data));
    TRY(read_scope(p, extensions, "receipts", &request->receipts));
    return read_scope(p, extensions, "typing", &request->typing);
}

/* --- all --- */

static uint64_t fingerprint(const struct json *body)
{
    static const char *const scopes[] = {"account_data", "receipts", "typing", PROFILES};
    const struct json *extensions = json_get_object(body, LIT("extensions"));
    uint64_t hash = mix(0, json_get(body, LIT("lists")));
    hash = mix(hash, json_get(body, LIT("room_subscriptions")));
    for (size_t i = 0; i < COUNT_OF(scopes); i++) {
        hash = mix(hash, json_get(extensions, slice_of(scopes[i])));
    }
    return hash;
}

struct err sync_sliding_parse(struct arena *arena, const struct json *body, struct slice me,
                              struct sliding_request *request_out)
{
    struct parsing p = {arena, me};
    struct sliding_request request = {0};
    TRY(read_text(&p, body, "conn_id", &request.conn_id));
    if (request.conn_id.len > SLIDING_CONN_ID_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "`conn_id` is longer than 255 bytes.");
    }
    TRY(read_text(&p, body, "pos", &request.pos));
    TRY(read_text(&p, body, "set_presence", &request.set_presence));
    TRY(read_count(&p, body, "timeout", -1, &request.timeout_ms));
    TRY(read_lists(&p, body, &request));
    TRY(read_subscriptions(&p, body, &request));
    TRY(read_extensions(&p, body, &request));
    request.fingerprint = fingerprint(body);
    *request_out = request;
    return OK;
}

struct err sync_sliding_parse_state(struct arena *arena, const struct json *value, struct slice me,
                                    struct sliding_state *state_out)
{
    struct parsing p = {arena, me};
    return read_state(&p, value, state_out);
}
