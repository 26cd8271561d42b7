/* What a search asks for. Spec: client-server, "Server Side Search". */
#include "homeserver/client/search_priv.h"

static struct err parse_keys(const struct json *body, uint32_t *keys_out)
{
    static const struct {
        struct slice name;
        uint32_t key;
    } known[] = {{{"content.body", 12}, SEARCH_DOC_BODY},
                 {{"content.name", 12}, SEARCH_DOC_NAME},
                 {{"content.topic", 13}, SEARCH_DOC_TOPIC}};
    const struct json *keys = json_get(body, LIT("keys"));
    *keys_out = keys ? 0 : SEARCH_DOC_KEYS;
    if (keys && keys->type != JSON_ARRAY) {
        return err_public(ERR_M_BAD_JSON, "`keys` must be an array.");
    }
    for (size_t i = 0; keys && i < keys->count; i++) {
        uint32_t before = *keys_out;
        for (size_t j = 0; j < COUNT_OF(known); j++) {
            *keys_out |= json_is_string(&keys->items[i], known[j].name) ? known[j].key : 0;
        }
        if (*keys_out == before) {
            return err_public(ERR_M_INVALID_PARAM,
                              "`keys` may name content.body, content.name and content.topic.");
        }
    }
    return OK;
}

static struct err parse_count(const struct json *object, struct slice key, size_t *count_out)
{
    const struct json *value = json_get(object, key);
    if (value && (value->type != JSON_INT || value->integer < 0)) {
        return err_public(ERR_M_BAD_JSON, "The limits of event_context must be counts.");
    }
    if (value) {
        *count_out =
            value->integer < SEARCH_CONTEXT_MAX ? (size_t)value->integer : SEARCH_CONTEXT_MAX;
    }
    return OK;
}

static struct err parse_context(const struct json *body, struct search_options *options)
{
    const struct json *context = json_get(body, LIT("event_context"));
    options->before = options->after = 5;
    options->wants_context = context != NULL;
    if (context && context->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "`event_context` must be an object.");
    }
    options->wants_profiles = json_get_bool(context, LIT("include_profile"), false);
    TRY(parse_count(context, LIT("before_limit"), &options->before));
    return parse_count(context, LIT("after_limit"), &options->after);
}

static struct err parse_groupings(const struct json *body, struct search_options *options)
{
    const struct json *groupings = json_get(body, LIT("groupings"));
    const struct json *keys = json_get(groupings, LIT("group_by"));
    if ((groupings && groupings->type != JSON_OBJECT) || (keys && keys->type != JSON_ARRAY)) {
        return err_public(ERR_M_BAD_JSON, "`groupings` must be {\"group_by\": [...]}.");
    }
    for (size_t i = 0; keys && i < keys->count; i++) {
        struct slice key = json_get_string(&keys->items[i], LIT("key"));
        bool by_room = slice_eq(key, LIT("room_id"));
        bool by_sender = slice_eq(key, LIT("sender"));
        if (!by_room && !by_sender) {
            return err_public(ERR_M_INVALID_PARAM,
                              "Results can be grouped by the keys room_id and sender.");
        }
        options->by_room = options->by_room || by_room;
        options->by_sender = options->by_sender || by_sender;
    }
    return OK;
}

static struct err parse_filter(struct search_page *page, const struct json *body)
{
    struct search_options *options = &page->options;
    const struct json *filter = json_get(body, LIT("filter"));
    options->filter = (struct sync_event_filter){.takes_all = true};
    options->limit = SEARCH_PAGE_DEFAULT;
    if (!filter) {
        return OK;
    }
    if (filter->type != JSON_OBJECT) {
        return err_public(ERR_M_BAD_JSON, "`filter` must be an object.");
    }
    TRY(sync_filter_parse_events(page->call.ctx->arena, filter, &options->filter));
    if (options->filter.limit_given) {
        options->limit =
            options->filter.limit < SEARCH_PAGE_MAX ? options->filter.limit : SEARCH_PAGE_MAX;
    }
    if (options->limit == 0) {
        return err_public(ERR_M_INVALID_PARAM, "`limit` must be above zero.");
    }
    return OK;
}

static struct err parse_order(const struct json *body, enum search_order *order_out)
{
    const struct json *order = json_get(body, LIT("order_by"));
    *order_out = SEARCH_BY_RANK;
    if (!order || json_is_string(order, LIT("rank"))) {
        return OK;
    }
    *order_out = SEARCH_BY_TIME;
    return json_is_string(order, LIT("recent"))
               ? OK
               : err_public(ERR_M_INVALID_PARAM, "`order_by` must be rank or recent.");
}

/* --- tokens: where a page ended --- */

struct slice cs_search_token(struct search_page *page, struct search_from from)
{
    return arena_printf(page->call.ctx->arena, "%lld.%lld.%lld.%c%llu", (long long)from.place.key,
                        (long long)from.place.id, (long long)from.seen, from.group,
                        (unsigned long long)from.number);
}

static bool parse_token(struct slice token, struct search_from *from)
{
    struct slice key;
    struct slice id;
    struct slice seen;
    struct slice group = slice_cut(slice_cut(slice_cut(token, '.', &key), '.', &id), '.', &seen);
    if (!slice_parse_i64(key, &from->place.key) || !slice_parse_i64(id, &from->place.id) ||
        !slice_parse_i64(seen, &from->seen) || from->place.id <= 0 || group.len == 0) {
        return false;
    }
    from->group = group.ptr[0];
    return (from->group == 'a' || from->group == 'r' || from->group == 's') && from->seen >= 0 &&
           from->seen < JSON_INT_MAX / 2 && slice_parse_u64(slice_from(group, 1), &from->number);
}

struct err cs_search_parse(struct search_page *page)
{
    struct search_options *options = &page->options;
    const struct json *body = json_get_object(
        json_get_object(&page->call.request->json, LIT("search_categories")), LIT("room_events"));
    const struct json *term = json_get(body, LIT("search_term"));
    struct slice token = http_query_get(page->call.ctx, page->call.request, LIT("next_batch"));
    options->from.group = 'a';
    if (token.ptr && !parse_token(token, &options->from)) {
        return err_public(ERR_M_INVALID_PARAM, "`next_batch` is not a token of this list.");
    }
    if (!term) {
        return err_public(ERR_M_MISSING_PARAM, "`search_term` is missing.");
    }
    if (term->type != JSON_STRING) {
        return err_public(ERR_M_BAD_JSON, "`search_term` must be a string.");
    }
    options->term = term->text;
    options->wants_state = json_get_bool(body, LIT("include_state"), false);
    TRY(parse_keys(body, &options->keys));
    TRY(parse_order(body, &options->order));
    TRY(parse_filter(page, body));
    TRY(parse_context(body, options));
    return parse_groupings(body, options);
}
