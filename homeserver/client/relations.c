/* Spec: client-server, "Relationships API", "Querying threads in a room". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/room/relates.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/relations.h"

enum { PAGE_MAX = 1000, RECURSION_LEVELS = 3 };

struct relations_query {
    struct slice rel_type, event_type; /* ptr NULL = any */
    bool forward;
    bool recurse;
    bool has_from;
    int64_t from, to; /* places, 0 = none */
    size_t limit;
};

static struct err read_place(struct cs_room_call *call, struct slice name, int64_t *place_out,
                             bool *given_out)
{
    struct slice token = http_query_get(call->ctx, call->request, name);
    *given_out = token.len != 0;
    return token.len ? hs_token_to_number(call->hs, call->ctx, call->room, token, place_out) : OK;
}

static struct err read_limit(struct cs_room_call *call, int64_t fallback, size_t *limit_out)
{
    int64_t limit = 0;
    TRY(http_query_int(call->ctx, call->request, LIT("limit"), fallback, &limit));
    if (limit < 1) {
        return err_public(ERR_M_INVALID_PARAM, "`limit` must be above zero.");
    }
    *limit_out = limit > PAGE_MAX ? PAGE_MAX : (size_t)limit;
    return OK;
}

static struct err read_query(struct cs_room_call *call, struct relations_query *query)
{
    struct slice dir = http_query_get(call->ctx, call->request, LIT("dir"));
    bool has_to = false;
    if (dir.ptr && !slice_eq(dir, LIT("b")) && !slice_eq(dir, LIT("f"))) {
        return err_public(ERR_M_INVALID_PARAM, "`dir` must be b or f.");
    }
    query->forward = slice_eq(dir, LIT("f"));
    query->rel_type = call->request->params[2];
    query->event_type = call->request->params[3];
    TRY(http_query_bool(call->ctx, call->request, LIT("recurse"), false, &query->recurse));
    TRY(read_limit(call, 50, &query->limit));
    TRY(read_place(call, LIT("from"), &query->from, &query->has_from));
    return read_place(call, LIT("to"), &query->to, &has_to);
}

static bool is_in_range(const struct relations_query *query, int64_t number)
{
    if (query->forward) {
        return (!query->has_from || number >= query->from) && (!query->to || number < query->to);
    }
    return (!query->has_from || number < query->from) && (!query->to || number >= query->to);
}

static bool matches(const struct relations_query *query, const struct hs_relation *relation)
{
    return is_in_range(query, relation->number) &&
           (!query->rel_type.ptr || slice_eq(query->rel_type, relation->rel_type)) &&
           (!query->event_type.ptr || slice_eq(query->event_type, relation->type));
}

struct relations_page {
    const struct relations_query *query;
    struct hs_relations all; /* oldest first */
    size_t written;
    int64_t next; /* 0 = no more */
};

/* Writes one child if it may be seen. */
static struct err write_child(struct cs_room_call *call, struct relations_page *page,
                              const struct hs_relation *relation)
{
    struct stored_event child;
    bool found = false;
    bool visible = false;
    TRY(hs_event_load(call->hs, call->ctx, call->room, relation->number, &child, &found));
    if (!found) {
        return OK;
    }
    TRY(hs_can_see(call->hs, call->ctx, call->room, &call->viewer, &child, &visible));
    struct stored_events one = {&child, visible ? 1 : 0};
    TRY(hs_drop_ignored(call->hs, call->ctx, call->viewer.user, &one));
    if (one.count == 0) {
        return OK;
    }
    page->written++;
    page->next = page->query->forward ? relation->number + 1 : relation->number;
    return hs_write_event(call->hs, call->ctx, call->room, &call->viewer, &child,
                          VIEW_ROOM_ID | VIEW_BUNDLE, &call->out);
}

static struct err write_children(struct cs_room_call *call, struct relations_page *page)
{
    bool more = false;
    for (size_t i = 0; i < page->all.count; i++) {
        size_t at = page->query->forward ? i : page->all.count - 1 - i;
        if (!matches(page->query, &page->all.items[at])) {
            continue;
        }
        if (page->written == page->query->limit) {
            more = true;
            break;
        }
        TRY(write_child(call, page, &page->all.items[at]));
    }
    page->next = more ? page->next : 0;
    return OK;
}

static struct err get_relations(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct cs_room_call call;
    struct relations_query query = {0};
    struct stored_event parent;
    bool found = false;
    bool visible = false;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(read_query(&call, &query));
    TRY(hs_event_find(call.hs, ctx, call.room, request->params[1], &parent, &found));
    if (found) {
        TRY(hs_can_see(call.hs, ctx, call.room, &call.viewer, &parent, &visible));
    }
    if (!visible) {
        return err_public(ERR_M_NOT_FOUND, "Event not found.");
    }
    struct relations_page page = {.query = &query};
    size_t levels = query.recurse ? RECURSION_LEVELS : 1;
    TRY(hs_relations_of(call.hs, ctx, call.room, request->params[1], levels, &page.all));
    json_out_object(&call.out);
    json_out_key_array(&call.out, LIT("chunk"));
    TRY(write_children(&call, &page));
    json_out_array_end(&call.out);
    if (page.next) {
        json_out_key_string(&call.out, LIT("next_batch"), hs_token_of_number(ctx, page.next));
    }
    struct slice from = http_query_get(ctx, request, LIT("from"));
    if (from.len) {
        json_out_key_string(&call.out, LIT("prev_batch"), from);
    }
    if (query.recurse) {
        json_out_key_int(&call.out, LIT("recursion_depth"), RECURSION_LEVELS);
    }
    json_out_object_end(&call.out);
    return OK;
}

/* --- threads --- */

static struct err write_root(struct cs_room_call *call, const struct hs_thread *thread,
                             bool participated_only, size_t *written)
{
    struct stored_event root;
    bool found = false;
    bool visible = false;
    bool wanted = true;
    TRY(hs_event_find(call->hs, call->ctx, call->room, thread->root, &root, &found));
    if (found) {
        TRY(hs_can_see(call->hs, call->ctx, call->room, &call->viewer, &root, &visible));
    }
    if (visible && participated_only) {
        TRY(hs_thread_has_user(call->hs, call->ctx, call->room, thread->root, call->viewer.user,
                               &wanted));
        wanted = wanted || root.sender == call->viewer.user;
    }
    struct stored_events one = {&root, visible && wanted ? 1 : 0};
    TRY(hs_drop_ignored(call->hs, call->ctx, call->viewer.user, &one));
    if (one.count == 0) {
        return OK;
    }
    (*written)++;
    return hs_write_event(call->hs, call->ctx, call->room, &call->viewer, &root,
                          VIEW_ROOM_ID | VIEW_BUNDLE, &call->out);
}

static struct err get_threads(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct room_view view;
    struct hs_threads threads;
    int64_t from = INT64_MAX;
    size_t limit = 0;
    bool given = false;
    size_t written = 0;
    TRY(cs_room_begin(&call, app, ctx, request, reply));
    TRY(hs_room_view(call.hs, ctx, call.room, call.actor.user, &view));
    struct slice include = http_query_get(ctx, request, LIT("include"));
    if (include.ptr && !slice_eq(include, LIT("all")) && !slice_eq(include, LIT("participated"))) {
        return err_public(ERR_M_INVALID_PARAM, "`include` must be all or participated.");
    }
    TRY(read_limit(&call, 20, &limit));
    TRY(read_place(&call, LIT("from"), &from, &given));
    TRY(hs_threads_before(call.hs, ctx, call.room, from, &threads));
    json_out_object(&call.out);
    json_out_key_array(&call.out, LIT("chunk"));
    size_t i = 0;
    for (; i < threads.count && written < limit; i++) {
        TRY(write_root(&call, &threads.items[i], slice_eq(include, LIT("participated")), &written));
    }
    json_out_array_end(&call.out);
    if (i < threads.count) {
        json_out_key_string(&call.out, LIT("next_batch"),
                            hs_token_of_number(ctx, threads.items[i - 1].newest));
    }
    json_out_object_end(&call.out);
    return OK;
}

#define RELATIONS "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}"
#define READ HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
enum { OPEN = HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED };

static const struct http_route routes[] = {
    {HTTP_GET, RELATIONS, READ, get_relations, "Relationships API", NULL, OPEN},
    {HTTP_GET, RELATIONS "/{relType}", READ, get_relations, "Relationships API", NULL, OPEN},
    {HTTP_GET, RELATIONS "/{relType}/{eventType}", READ, get_relations, "Relationships API", NULL,
     OPEN},
    {HTTP_GET, "/_matrix/client/v1/rooms/{roomId}/threads", READ, get_threads,
     "Querying threads in a room", NULL, OPEN},
};
const struct http_route_table cs_relations_routes = {routes, COUNT_OF(routes)};
