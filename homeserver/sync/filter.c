#include "homeserver/sync/filter.h"

#include "homeserver/room/relates.h"
#include "spec/errcodes.h"
#include "spec/ids.h"

enum { NAMES_MAX = 10000 };

enum name_kind { NAME_ANY, NAME_USER, NAME_ROOM };

struct parser {
    struct arena *arena;
    const char *member; /* the part of the filter being read, for the error text */
};

static struct err refuse(const struct parser *parser, struct slice key, const char *expected)
{
    return err_publicf(parser->arena, ERR_M_BAD_JSON, "Filter: %s.%.*s must be %s.", parser->member,
                       (int)key.len, key.ptr, expected);
}

static bool name_fits(struct slice name, enum name_kind kind)
{
    switch (kind) {
    case NAME_ANY:
        return true;
    case NAME_USER:
        return ids_is_user(name);
    case NAME_ROOM:
        return name.len > 1 && name.len <= 255 && name.ptr[0] == '!';
    }
    return false;
}

static struct err parse_names(const struct parser *parser, const struct json *object,
                              struct slice key, enum name_kind kind, struct sync_names *names_out)
{
    const struct json *list = json_get(object, key);
    if (list == NULL || list->type == JSON_NULL) {
        return OK;
    }
    if (list->type != JSON_ARRAY || list->count > NAMES_MAX) {
        return refuse(parser, key, "a list of strings");
    }
    names_out->given = true;
    names_out->count = list->count;
    names_out->items = arena_array(parser->arena, list->count, sizeof *names_out->items);
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->items[i].type != JSON_STRING) {
            return refuse(parser, key, "a list of strings");
        }
        if (!name_fits(list->items[i].text, kind)) {
            return refuse(parser, key,
                          kind == NAME_USER ? "a list of user IDs" : "a list of room IDs");
        }
        names_out->items[i] = list->items[i].text;
    }
    return OK;
}

static struct err parse_flag(const struct parser *parser, const struct json *object,
                             struct slice key, bool *flag_out, bool *given_out)
{
    const struct json *value = json_get(object, key);
    *given_out = false;
    if (value == NULL || value->type == JSON_NULL) {
        return OK;
    }
    if (value->type != JSON_BOOL) {
        return refuse(parser, key, "true or false");
    }
    *flag_out = value->boolean;
    *given_out = true;
    return OK;
}

static struct err parse_limit(const struct parser *parser, const struct json *object,
                              struct sync_event_filter *filter)
{
    const struct json *value = json_get(object, LIT("limit"));
    if (value == NULL || value->type == JSON_NULL) {
        return OK;
    }
    if (value->type != JSON_INT || value->integer < 0) {
        return refuse(parser, LIT("limit"), "a positive integer");
    }
    filter->limit_given = true;
    filter->limit = value->integer > SYNC_TIMELINE_MAX ? SYNC_TIMELINE_MAX : (size_t)value->integer;
    return OK;
}

static struct err parse_flags(const struct parser *parser, const struct json *object,
                              struct sync_event_filter *filter)
{
    bool given = false;
    bool url = false;
    TRY(parse_flag(parser, object, LIT("lazy_load_members"), &filter->lazy_load_members, &given));
    TRY(parse_flag(parser, object, LIT("include_redundant_members"),
                   &filter->include_redundant_members, &given));
    TRY(parse_flag(parser, object, LIT("unread_thread_notifications"),
                   &filter->unread_thread_notifications, &given));
    TRY(parse_flag(parser, object, LIT("contains_url"), &url, &given));
    if (given) {
        filter->url = url ? SYNC_URL_WITH : SYNC_URL_WITHOUT;
    }
    return OK;
}

static struct err parse_events(const struct parser *parser, const struct json *object,
                               struct sync_event_filter *filter)
{
    TRY(parse_names(parser, object, LIT("types"), NAME_ANY, &filter->types));
    TRY(parse_names(parser, object, LIT("not_types"), NAME_ANY, &filter->not_types));
    TRY(parse_names(parser, object, LIT("senders"), NAME_USER, &filter->senders));
    TRY(parse_names(parser, object, LIT("not_senders"), NAME_USER, &filter->not_senders));
    TRY(parse_names(parser, object, LIT("rooms"), NAME_ROOM, &filter->rooms));
    TRY(parse_names(parser, object, LIT("not_rooms"), NAME_ROOM, &filter->not_rooms));
    TRY(parse_names(parser, object, LIT("org.matrix.msc3874.rel_types"), NAME_ANY,
                    &filter->rel_types));
    TRY(parse_names(parser, object, LIT("org.matrix.msc3874.not_rel_types"), NAME_ANY,
                    &filter->not_rel_types));
    TRY(parse_limit(parser, object, filter));
    TRY(parse_flags(parser, object, filter));
    filter->needs_content =
        filter->url != SYNC_URL_ANY || filter->rel_types.given || filter->not_rel_types.count > 0;
    filter->takes_all = !filter->types.given && filter->not_types.count == 0 &&
                        !filter->senders.given && filter->not_senders.count == 0 &&
                        !filter->needs_content;
    return OK;
}

/* The object under key; NULL when absent. */
static struct err get_part(struct arena *arena, const struct json *object, struct slice key,
                           const struct json **part_out)
{
    const struct json *part = json_get(object, key);
    *part_out = NULL;
    if (part == NULL || part->type == JSON_NULL) {
        return OK;
    }
    if (part->type != JSON_OBJECT) {
        return err_publicf(arena, ERR_M_BAD_JSON, "Filter: %.*s must be an object.", (int)key.len,
                           key.ptr);
    }
    *part_out = part;
    return OK;
}

static struct err parse_part(struct arena *arena, const struct json *object, const char *member,
                             struct sync_event_filter *filter)
{
    const struct json *part = NULL;
    filter->takes_all = true;
    TRY(get_part(arena, object, slice_of(member), &part));
    if (part == NULL) {
        return OK;
    }
    return parse_events(&(struct parser){arena, member}, part, filter);
}

static struct err parse_room(struct arena *arena, const struct json *room,
                             struct sync_filter *filter)
{
    const struct parser parser = {arena, "room"};
    bool given = false;
    TRY(parse_names(&parser, room, LIT("rooms"), NAME_ROOM, &filter->rooms));
    TRY(parse_names(&parser, room, LIT("not_rooms"), NAME_ROOM, &filter->not_rooms));
    TRY(parse_flag(&parser, room, LIT("include_leave"), &filter->include_leave, &given));
    TRY(parse_part(arena, room, "state", &filter->room_state));
    TRY(parse_part(arena, room, "timeline", &filter->room_timeline));
    TRY(parse_part(arena, room, "ephemeral", &filter->room_ephemeral));
    return parse_part(arena, room, "account_data", &filter->room_account_data);
}

static struct err parse_format(struct arena *arena, const struct json *object,
                               struct sync_filter *filter)
{
    const struct json *format = json_get(object, LIT("event_format"));
    if (format == NULL || format->type == JSON_NULL || json_is_string(format, LIT("client"))) {
        return OK;
    }
    if (!json_is_string(format, LIT("federation"))) {
        return err_publicf(arena, ERR_M_BAD_JSON,
                           "Filter: event_format must be \"client\" or \"federation\".");
    }
    filter->federation_format = true;
    return OK;
}

struct sync_filter sync_filter_all(void)
{
    struct sync_filter filter = {0};
    filter.presence.takes_all = true;
    filter.account_data.takes_all = true;
    filter.room_state.takes_all = true;
    filter.room_timeline.takes_all = true;
    filter.room_ephemeral.takes_all = true;
    filter.room_account_data.takes_all = true;
    return filter;
}

struct err sync_filter_parse(struct arena *arena, const struct json *object,
                             struct sync_filter *filter_out)
{
    const struct json *room = NULL;
    *filter_out = sync_filter_all();
    if (object->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "A filter must be a JSON object.");
    }
    TRY(parse_part(arena, object, "presence", &filter_out->presence));
    TRY(parse_part(arena, object, "account_data", &filter_out->account_data));
    TRY(parse_format(arena, object, filter_out));
    TRY(parse_names(&(struct parser){arena, "filter"}, object, LIT("event_fields"), NAME_ANY,
                    &filter_out->event_fields));
    TRY(get_part(arena, object, LIT("room"), &room));
    return room == NULL ? OK : parse_room(arena, room, filter_out);
}

struct err sync_filter_parse_text(struct arena *arena, struct slice text,
                                  struct sync_filter *filter_out)
{
    struct json tree;
    if (text.len > SYNC_FILTER_BYTES_MAX) {
        return err_public(ERR_M_TOO_LARGE, "The filter is too large.");
    }
    struct err err = json_parse(arena, text, &tree);
    if (err.code != 0) {
        return err_public(ERR_M_NOT_JSON, "The filter is not valid JSON.");
    }
    return sync_filter_parse(arena, &tree, filter_out);
}

struct err sync_filter_parse_events(struct arena *arena, const struct json *object,
                                    struct sync_event_filter *filter_out)
{
    *filter_out = (struct sync_event_filter){.takes_all = true};
    if (object->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "A filter must be a JSON object.");
    }
    return parse_events(&(struct parser){arena, "filter"}, object, filter_out);
}

/* '*' stands for any run of characters. */
static bool type_matches(struct slice pattern, struct slice type)
{
    size_t p = 0;
    size_t t = 0;
    size_t star = SIZE_MAX;
    size_t resume = 0;
    while (t < type.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            resume = t;
        } else if (p < pattern.len && pattern.ptr[p] == type.ptr[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++resume;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*') {
        p++;
    }
    return p == pattern.len;
}

static bool has_type(const struct sync_names *names, struct slice type)
{
    for (size_t i = 0; i < names->count; i++) {
        if (type_matches(names->items[i], type)) {
            return true;
        }
    }
    return false;
}

static bool has_name(const struct sync_names *names, struct slice name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (slice_eq(names->items[i], name)) {
            return true;
        }
    }
    return false;
}

/* not_* wins over the list of what is wanted. */
static bool lists_take(const struct sync_names *wanted, const struct sync_names *unwanted,
                       struct slice name)
{
    return (!wanted->given || has_name(wanted, name)) && !has_name(unwanted, name);
}

bool sync_filter_takes_room(const struct sync_event_filter *filter, struct slice room_id)
{
    return lists_take(&filter->rooms, &filter->not_rooms, room_id);
}

bool sync_filter_visits_room(const struct sync_filter *filter, struct slice room_id)
{
    return lists_take(&filter->rooms, &filter->not_rooms, room_id);
}

bool sync_filter_takes_type(const struct sync_event_filter *filter, struct slice type)
{
    return (!filter->types.given || has_type(&filter->types, type)) &&
           !has_type(&filter->not_types, type);
}

bool sync_filter_takes_sender(const struct sync_event_filter *filter, struct slice sender)
{
    return lists_take(&filter->senders, &filter->not_senders, sender);
}

/* MSC3874: of events that relate to another, by how. */
static bool takes_relation(const struct sync_event_filter *filter, const struct json *content)
{
    struct slice rel_type = content ? relates_parse(content).rel_type : (struct slice){0};
    if (rel_type.len > 0 && has_name(&filter->not_rel_types, rel_type)) {
        return false;
    }
    return !filter->rel_types.given || (rel_type.len > 0 && has_name(&filter->rel_types, rel_type));
}

bool sync_filter_takes_event(const struct sync_event_filter *filter, struct slice type,
                             struct slice sender, const struct json *content)
{
    if (filter->takes_all) {
        return true;
    }
    if (filter->url != SYNC_URL_ANY) {
        bool with = content != NULL && json_get(content, LIT("url")) != NULL;
        if (with != (filter->url == SYNC_URL_WITH)) {
            return false;
        }
    }
    return sync_filter_takes_type(filter, type) && sync_filter_takes_sender(filter, sender) &&
           (!filter->needs_content || takes_relation(filter, content));
}
