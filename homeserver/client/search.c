/* Spec: client-server, "Server Side Search". */
#include "homeserver/client/search_priv.h"
#include "homeserver/base/stats.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/users.h"

#include <stdlib.h>

/* --- where to look --- */

struct number_list {
    uint64_t *items;
    size_t count;
};

static bool has_number(const struct number_list *list, uint64_t number)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i] == number) {
            return true;
        }
    }
    return false;
}

typedef struct err (*find_fn)(struct hs *hs, struct ctx *ctx, struct slice name,
                              uint64_t *number_out, bool *found_out);

/* Numbers of the rooms or users that are known here. */
static struct err find_all(struct search_page *page, const struct sync_names *names, find_fn find,
                           struct number_list *list_out)
{
    struct ctx *ctx = page->call.ctx;
    *list_out =
        (struct number_list){arena_array(ctx->arena, names->count + 1, sizeof(uint64_t)), 0};
    for (size_t i = 0; i < names->count; i++) {
        uint64_t number = 0;
        bool found = false;
        TRY(find(page->call.hs, ctx, names->items[i], &number, &found));
        if (found) {
            list_out->items[list_out->count++] = number;
        }
    }
    return OK;
}

/* Spec: "all rooms that the user has been in, including those that they have left", up to the
 * leave. Of a forgotten room nothing is given out. */
static bool may_look(const struct user_room *entry, struct search_room *room_out)
{
    bool has_left =
        (entry->membership == MEMBERSHIP_LEAVE || entry->membership == MEMBERSHIP_BAN ||
         entry->membership == MEMBERSHIP_KNOCK || entry->membership == MEMBERSHIP_INVITE) &&
        entry->left_number != 0 && !entry->forgotten;
    *room_out = (struct search_room){entry->room, SEARCH_UPTO_ALL};
    if (has_left) {
        room_out->upto = entry->left_number;
    }
    return entry->membership == MEMBERSHIP_JOIN || has_left;
}

static struct err list_rooms(struct search_page *page, struct search_query *query)
{
    const struct search_options *options = &page->options;
    struct ctx *ctx = page->call.ctx;
    struct user_rooms rooms;
    struct number_list wanted;
    struct number_list unwanted;
    TRY(hs_user_rooms(page->call.hs, ctx, page->call.actor.user, &rooms));
    TRY(find_all(page, &options->filter.rooms, hs_room_find, &wanted));
    TRY(find_all(page, &options->filter.not_rooms, hs_room_find, &unwanted));
    query->rooms = arena_array(ctx->arena, rooms.count + 1, sizeof *query->rooms);
    for (size_t i = 0; i < rooms.count; i++) {
        uint64_t number = rooms.items[i].room;
        bool takes = (!options->filter.rooms.given || has_number(&wanted, number)) &&
                     !has_number(&unwanted, number) &&
                     (options->from.group != 'r' || options->from.number == number);
        if (takes && may_look(&rooms.items[i], &query->rooms[query->room_count])) {
            query->room_count++;
        }
    }
    return OK;
}

static struct err list_senders(struct search_page *page, struct search_query *query)
{
    const struct search_options *options = &page->options;
    struct number_list senders;
    struct number_list not_senders;
    TRY(find_all(page, &options->filter.senders, hs_user_find, &senders));
    TRY(find_all(page, &options->filter.not_senders, hs_user_find, &not_senders));
    query->not_senders = not_senders.items;
    query->not_sender_count = not_senders.count;
    if (options->filter.senders.given) {
        query->senders = senders.items;
        query->sender_count = senders.count;
    }
    if (options->from.group == 's') {
        bool takes = !options->filter.senders.given || has_number(&senders, options->from.number);
        query->senders = &options->from.number;
        query->sender_count = takes ? 1 : 0;
    }
    return OK;
}

static uint32_t keys_of_types(const struct search_options *options)
{
    static const struct {
        struct slice type;
        uint32_t key;
    } types[] = {{{"m.room.message", 14}, SEARCH_DOC_BODY},
                 {{"m.room.name", 11}, SEARCH_DOC_NAME},
                 {{"m.room.topic", 12}, SEARCH_DOC_TOPIC}};
    uint32_t keys = 0;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        keys |= sync_filter_takes_type(&options->filter, types[i].type) ? types[i].key : 0;
    }
    return keys & options->keys;
}

static struct err find(struct search_page *page)
{
    const struct search_options *options = &page->options;
    struct hs *hs = page->call.hs;
    struct ctx *ctx = page->call.ctx;
    struct search_query query = {.term = options->term,
                                 .order = options->order,
                                 .keys = keys_of_types(options),
                                 .after = options->from.place};
    query.until_mono_ms = now_mono_ms(ctx->now) + hs->conf->search_timeout;
    query.url = options->filter.url == SYNC_URL_WITH      ? SEARCH_URL_WITH
                : options->filter.url == SYNC_URL_WITHOUT ? SEARCH_URL_WITHOUT
                                                          : SEARCH_URL_ANY;
    TRY(list_rooms(page, &query));
    TRY(list_senders(page, &query));
    search_catch_up(hs->search);
    TRY(search_reader(hs->search, ctx, &page->db));
    int64_t began_us = now_mono_us();
    struct err err = search_find(page->db, ctx, &query, &page->hits);
    stats_observe(hs->stats, STAT_search_seconds, now_mono_us() - began_us);
    return err;
}

/* --- what may be seen of it --- */

/* A room that cannot be read, or that was encrypted a moment ago, shows nothing. */
static struct err open_visit(struct search_page *page, struct search_visit *visit)
{
    struct hs *hs = page->call.hs;
    struct ctx *ctx = page->call.ctx;
    struct stored_event encryption;
    bool is_encrypted = false;
    struct err err = hs_room_get(hs, ctx, visit->number, &visit->room);
    if (err.code != 0) {
        visit->room = NULL;
        return err.code == ERR_M_NOT_FOUND || err.code == ERR_CORRUPT ? OK : err;
    }
    TRY(hs_state_event(hs, ctx, visit->room, hs_room_head(visit->room).root,
                       LIT("m.room.encryption"), LIT(""), &encryption, &is_encrypted));
    visit->room = is_encrypted ? NULL : visit->room;
    return OK;
}

static struct err visit(struct search_page *page, uint64_t number, struct search_visit **visit_out)
{
    struct arena *arena = page->call.ctx->arena;
    for (size_t i = page->visit_count; i > 0; i--) {
        if (page->visits[i - 1]->number == number) {
            *visit_out = page->visits[i - 1];
            return OK;
        }
    }
    if (page->visit_count == page->visit_cap) {
        size_t cap = page->visit_cap ? page->visit_cap * 2 : 16;
        page->visits =
            arena_grow(arena, page->visits, page->visit_cap * sizeof(void *), cap * sizeof(void *));
        page->visit_cap = cap;
    }
    *visit_out = arena_alloc(arena, sizeof **visit_out);
    (*visit_out)->number = number;
    page->visits[page->visit_count++] = *visit_out;
    return open_visit(page, *visit_out);
}

/* Whether the event of a hit is shown to the reader. */
static struct err look(struct search_page *page, struct search_result *result, bool *shown_out)
{
    struct hs *hs = page->call.hs;
    struct ctx *ctx = page->call.ctx;
    const struct search_hit *hit = result->hit;
    struct stored_event *event = &result->event;
    bool found = false;
    *shown_out = false;
    TRY(visit(page, search_id_room(hit->id), &result->visit));
    if (!result->visit->room) {
        return OK;
    }
    TRY(hs_event_scan(hs, ctx, result->visit->room, search_id_number(hit->id), event, &found));
    if (!found || event->number != search_id_number(hit->id) || (event->flags & EVENT_REDACTED)) {
        return OK;
    }
    struct viewer viewer = page->call.viewer;
    viewer.memo = &result->visit->memo;
    TRY(hs_can_see(hs, ctx, result->visit->room, &viewer, event, shown_out));
    if (*shown_out) { /* what is served redacted is not found by its words */
        bool erased = false;
        TRY(hs_is_erased_for(hs, ctx, result->visit->room, &viewer, event, &erased));
        *shown_out = !erased;
    }
    struct stored_events one = {event, *shown_out ? 1 : 0};
    TRY(hs_drop_ignored(hs, ctx, viewer.user, &one));
    *shown_out = one.count == 1;
    return OK;
}

static void add_to_group(struct search_groups *groups, uint64_t number, struct slice name)
{
    for (size_t i = 0; i < groups->count; i++) {
        if (groups->items[i].number == number) {
            return;
        }
    }
    groups->items[groups->count++] = (struct search_group){number, name, false};
}

static void mark_more(struct search_groups *groups, uint64_t number)
{
    for (size_t i = 0; i < groups->count; i++) {
        groups->items[i].has_more = groups->items[i].has_more || groups->items[i].number == number;
    }
}

static void add_result(struct search_page *page, const struct search_result *result)
{
    page->results[page->result_count++] = *result;
    result->visit->is_shown = true;
    add_to_group(&page->rooms, result->visit->number, hs_room_info(result->visit->room).room_id);
    add_to_group(&page->senders, result->event.sender, result->event.event.sender.s);
}

/* The first that may be seen make the page; the others are counted. */
static struct err sift(struct search_page *page)
{
    struct arena *arena = page->call.ctx->arena;
    size_t limit = page->options.limit;
    page->results = arena_array(arena, limit, sizeof *page->results);
    page->rooms.items = arena_array(arena, limit, sizeof *page->rooms.items);
    page->senders.items = arena_array(arena, limit, sizeof *page->senders.items);
    for (size_t i = 0; i < page->hits.count; i++) {
        struct search_result result = {.hit = &page->hits.items[i]};
        bool shown = false;
        TRY(look(page, &result, &shown));
        page->visible_count += shown ? 1 : 0;
        if (shown && page->result_count < limit) {
            add_result(page, &result);
        } else if (shown) {
            mark_more(&page->rooms, result.visit->number);
            mark_more(&page->senders, result.event.sender);
        }
    }
    return OK;
}

static struct err post_search(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct search_page *page = arena_alloc(ctx->arena, sizeof *page);
    struct json_out *out = &page->call.out;
    cs_call_begin(&page->call, app, ctx, request, reply);
    const struct json *categories = json_get(&request->json, LIT("search_categories"));
    if (!page->call.hs->conf->search_enabled) {
        return err_public(ERR_M_UNKNOWN_400, "Search is disabled on this server.");
    }
    if (!categories || categories->type != JSON_OBJECT) {
        return err_public(categories ? ERR_M_BAD_JSON : ERR_M_MISSING_PARAM,
                          "`search_categories` must be an object.");
    }
    bool wants_events = json_get(categories, LIT("room_events")) != NULL;
    if (wants_events) {
        TRY(cs_search_parse(page));
        TRY(find(page));
        TRY(sift(page));
    }
    json_out_object(out);
    json_out_key_object(out, LIT("search_categories"));
    if (wants_events) {
        json_out_key(out, LIT("room_events"));
        TRY(cs_search_write(page));
    }
    json_out_object_end(out);
    json_out_object_end(out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/search", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_JSON,
     HTTP_LANE_NONE, 0, post_search, "Server Side Search", NULL, HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_search_routes = {routes, COUNT_OF(routes)};
