/* Space hierarchies and summaries of single rooms.
 * Spec: client-server, "Spaces", "Room Summaries". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/base/map.h"
#include "homeserver/service/directory.h"
#include "homeserver/service/remote.h"
#include "homeserver/service/room_summary.h"

enum {
    PAGE_MAX = 50, /* rooms in an answer */
    DEPTH_MAX = 30,
    WALK_ROOMS_MAX = 5000, /* looked at in one request */
    VIA_MAX = 10,          /* servers asked for a room that is not here */
};

/* A room of the tree that has still to be looked at. */
struct place {
    struct place *below;
    struct slice room_id;
    const struct json *via;
    int64_t depth;
};

/* The tree is walked depth-first from the root for each page; a token says how many rooms earlier
 * pages had. What other servers answered is kept for a while by the port (remote.h). */
struct walk {
    struct cs_room_call *call;
    bool suggested_only;
    int64_t depth_max;
    uint64_t skip, limit;
    uint64_t shown; /* rooms that may be seen, those of earlier pages too */
    struct place *top;
    struct map *visited;      /* room ids */
    struct map *told;         /* room id -> summary of a child as its space's server gave it */
    struct map *inaccessible; /* room ids that no server shows us */
};

/* What a room of the tree shows. */
struct found_room {
    struct room_summary summary;
    struct space_children children;
    bool exists;
};

static size_t servers_of(const struct json *via, struct slice *names)
{
    size_t count = 0;
    for (uint32_t i = 0; via && i < via->count && count < VIA_MAX; i++) {
        if (via->items[i].type == JSON_STRING && ids_is_server_name(via->items[i].text)) {
            names[count++] = via->items[i].text;
        }
    }
    return count;
}

/* Remembers what the space's server said about the children, so that they need not be asked for. */
static void note_children(struct walk *walk, const struct json *answer)
{
    const struct json *children = json_get_array(answer, LIT("children"));
    const struct json *hidden = json_get_array(answer, LIT("inaccessible_children"));
    for (uint32_t i = 0; children && i < children->count; i++) {
        struct room_summary *summary = arena_alloc(walk->call->ctx->arena, sizeof *summary);
        if (hs_summary_parse(walk->call->ctx->arena, &children->items[i], summary)) {
            map_set_ptr(walk->told, summary->room_id, summary);
        }
    }
    for (uint32_t i = 0; hidden && i < hidden->count; i++) {
        if (hidden->items[i].type == JSON_STRING) {
            map_set(walk->inaccessible, hidden->items[i].text, 1);
        }
    }
}

static struct err ask_others(struct walk *walk, const struct place *place, struct found_room *found)
{
    struct slice names[VIA_MAX];
    struct hs *hs = walk->call->hs;
    struct ctx *ctx = walk->call->ctx;
    struct json answer;
    struct remote_servers via = {names, servers_of(place->via, names)};
    const struct room_summary *told = map_get_ptr(walk->told, place->room_id);
    if (told && !slice_eq(told->room_type, LIT("m.space"))) {
        found->summary = *told;
        found->exists = true;
        return OK;
    }
    if (!hs->remote || via.count == 0 ||
        map_get(walk->inaccessible, place->room_id, &(uint64_t){0})) {
        return OK;
    }
    struct err err =
        hs->remote->hierarchy(hs, ctx, place->room_id, via, walk->suggested_only, &answer);
    if (err.code != 0) {
        return err.code == ERR_WAITS ? err : OK;
    }
    const struct json *room = json_get_object(&answer, LIT("room"));
    if (hs_summary_parse(ctx->arena, room, &found->summary) &&
        slice_eq(found->summary.room_id, place->room_id)) {
        hs_space_children_parse(ctx->arena, json_get_array(room, LIT("children_state")),
                                walk->suggested_only, &found->children);
        found->exists = true;
        note_children(walk, &answer);
    }
    return OK;
}

static struct err look_at(struct walk *walk, const struct place *place, struct found_room *found)
{
    struct hs *hs = walk->call->hs;
    struct ctx *ctx = walk->call->ctx;
    struct room *room = NULL;
    uint64_t number = 0;
    bool known = false;
    *found = (struct found_room){0};
    TRY(hs_room_find(hs, ctx, place->room_id, &number, &known));
    if (known) {
        TRY(hs_room_get(hs, ctx, number, &room));
    }
    if (room && hs_room_is_resident(room)) {
        found->exists = true;
        TRY(hs_summary_read(hs, ctx, room, &found->summary));
        TRY(hs_space_children(hs, ctx, room, walk->suggested_only, &found->children));
    } else {
        TRY(ask_others(walk, place, found));
    }
    bool visible = false;
    if (found->exists) {
        TRY(hs_summary_visible_to_user(hs, ctx, walk->call->actor.user, &found->summary, &visible));
    }
    found->exists = visible;
    return OK;
}

static void push_children(struct walk *walk, const struct place *parent,
                          const struct space_children *children)
{
    if (parent->depth >= walk->depth_max) {
        return;
    }
    for (size_t i = children->count; i > 0; i--) {
        struct place *place = arena_alloc(walk->call->ctx->arena, sizeof *place);
        *place = (struct place){.below = walk->top,
                                .room_id = children->items[i - 1].room_id,
                                .via = children->items[i - 1].via,
                                .depth = parent->depth + 1};
        walk->top = place;
    }
}

static void show(struct walk *walk, const struct found_room *found)
{
    struct json_out *out = &walk->call->out;
    if (walk->shown > walk->skip) {
        json_out_object(out);
        hs_summary_write(out, &found->summary, SUMMARY_FULL);
        hs_space_children_write(out, &found->children);
        json_out_object_end(out);
    }
}

/* Writes the page's rooms; more_out: there is at least one behind them. */
static struct err walk_tree(struct walk *walk, bool *more_out)
{
    size_t looked = 0;
    *more_out = false;
    while (walk->top && looked < WALK_ROOMS_MAX) {
        struct place *place = walk->top;
        struct found_room found;
        walk->top = place->below;
        if (map_get(walk->visited, place->room_id, &(uint64_t){0})) {
            continue;
        }
        map_set(walk->visited, place->room_id, 1);
        looked++;
        TRY(look_at(walk, place, &found));
        if (!found.exists) {
            if (place->depth == 0) {
                return err_public(ERR_M_FORBIDDEN, "You are not allowed to view this room.");
            }
            continue;
        }
        if (walk->shown == walk->skip + walk->limit) {
            *more_out = true;
            return OK;
        }
        walk->shown++;
        show(walk, &found);
        push_children(walk, place, &found.children);
    }
    return OK;
}

/* "h<suggested_only>.<max_depth>.<rooms shown>" */
static struct err read_token(struct walk *walk, struct slice token)
{
    struct err bad = err_public(ERR_M_INVALID_PARAM, "`from` is not a token of this hierarchy.");
    uint64_t parts[3] = {0};
    if (!token.len) {
        return OK;
    }
    struct slice rest = slice_from(token, 1);
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        size_t end = slice_find(rest, '.');
        if (!slice_parse_u64(slice_sub(rest, 0, end), &parts[i]) ||
            (end == rest.len) != (i + 1 == COUNT_OF(parts))) {
            return bad;
        }
        rest = end < rest.len ? slice_from(rest, end + 1) : (struct slice){0};
    }
    if (token.ptr[0] != 'h') {
        return bad;
    }
    if ((parts[0] != 0) != walk->suggested_only || (int64_t)parts[1] != walk->depth_max) {
        return err_public(ERR_M_INVALID_PARAM,
                          "suggested_only and max_depth cannot change between pages.");
    }
    walk->skip = parts[2];
    return OK;
}

static struct err read_query(struct walk *walk)
{
    int64_t limit = PAGE_MAX;
    struct ctx *ctx = walk->call->ctx;
    const struct http_request *request = walk->call->request;
    TRY(http_query_bool(ctx, request, LIT("suggested_only"), false, &walk->suggested_only));
    TRY(http_query_int(ctx, request, LIT("limit"), PAGE_MAX, &limit));
    TRY(http_query_int(ctx, request, LIT("max_depth"), DEPTH_MAX, &walk->depth_max));
    if (limit < 1) {
        return err_public(ERR_M_INVALID_PARAM, "`limit` must be greater than zero.");
    }
    walk->limit = limit < PAGE_MAX ? (uint64_t)limit : PAGE_MAX;
    walk->depth_max = walk->depth_max < DEPTH_MAX ? walk->depth_max : DEPTH_MAX;
    return read_token(walk, http_query_get(ctx, request, LIT("from")));
}

static struct err write_tree(struct walk *walk)
{
    struct cs_room_call *call = walk->call;
    bool more = false;
    json_out_object(&call->out);
    json_out_key_array(&call->out, LIT("rooms"));
    TRY(walk_tree(walk, &more));
    json_out_array_end(&call->out);
    if (more) {
        json_out_key_string(&call->out, LIT("next_batch"),
                            arena_printf(call->ctx->arena, "h%d.%lld.%llu", walk->suggested_only,
                                         (long long)walk->depth_max,
                                         (unsigned long long)walk->shown));
    }
    json_out_object_end(&call->out);
    return OK;
}

static struct err get_hierarchy(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct cs_room_call call;
    struct walk walk = {.call = &call};
    cs_call_begin(&call, app, ctx, request, reply);
    if (!ids_is_room(request->params[0])) {
        return err_public(ERR_M_INVALID_PARAM, "The room id is not valid.");
    }
    TRY(read_query(&walk));
    struct place root = {.room_id = request->params[0]};
    walk.top = &root;
    walk.visited = map_new();
    walk.told = map_new();
    walk.inaccessible = map_new();
    struct err err = write_tree(&walk);
    map_free(&walk.visited);
    map_free(&walk.told);
    map_free(&walk.inaccessible);
    return err;
}

/* --- the summary of one room --- */

struct summary_call {
    struct cs_room_call *call;
    struct slice room_id;
    struct slice via[VIA_MAX];
    size_t via_count;
    struct room_summary summary;
};

static struct err no_such_room(void)
{
    return err_public(ERR_M_NOT_FOUND, "The room could not be found.");
}

static void add_servers(struct summary_call *s, const struct json *servers)
{
    for (uint32_t i = 0; servers && i < servers->count && s->via_count < VIA_MAX; i++) {
        if (servers->items[i].type == JSON_STRING && ids_is_server_name(servers->items[i].text)) {
            s->via[s->via_count++] = servers->items[i].text;
        }
    }
}

static struct err find_by_alias(struct summary_call *s, struct slice alias)
{
    struct hs *hs = s->call->hs;
    struct ctx *ctx = s->call->ctx;
    struct json answer;
    uint64_t creator = 0;
    uint64_t number = 0;
    bool found = false;
    struct server_name domain = ids_alias_domain(ids_trust_alias(alias));
    if (hs_is_local(hs, domain.s)) {
        struct room *room = NULL;
        TRY(hs_alias_get(hs, ctx, alias, &number, &creator, &found));
        if (!found) {
            return no_such_room();
        }
        TRY(hs_room_get(hs, ctx, number, &room));
        s->room_id = hs_room_info(room).room_id;
        return OK;
    }
    if (!hs->remote) {
        return no_such_room();
    }
    TRY(hs->remote->alias(hs, ctx, alias, &answer));
    s->room_id = json_get_string(&answer, LIT("room_id"));
    add_servers(s, json_get_array(&answer, LIT("servers")));
    return ids_is_room(s->room_id) ? OK : no_such_room();
}

static struct err find_target(struct summary_call *s)
{
    struct slice target = s->call->request->params[0];
    struct ctx *ctx = s->call->ctx;
    s->via_count = http_query_all(ctx, s->call->request, LIT("via"), s->via, VIA_MAX);
    if (ids_is_alias(target)) {
        return find_by_alias(s, target);
    }
    if (!ids_is_room(target)) {
        return err_public(ERR_M_INVALID_PARAM, "That is neither a room id nor an alias.");
    }
    s->room_id = target;
    struct server_name domain = ids_room_domain(ids_trust_room(target));
    if (domain.s.len && s->via_count < VIA_MAX) {
        s->via[s->via_count++] = domain.s;
    }
    return OK;
}

static struct err fetch_summary(struct summary_call *s)
{
    struct hs *hs = s->call->hs;
    struct ctx *ctx = s->call->ctx;
    struct json answer;
    struct remote_servers via = {s->via, s->via_count};
    if (!hs->remote || s->via_count == 0) {
        return no_such_room();
    }
    struct err err = hs->remote->hierarchy(hs, ctx, s->room_id, via, false, &answer);
    if (err.code != 0) {
        return err.code == ERR_WAITS ? err : no_such_room();
    }
    return hs_summary_parse(ctx->arena, json_get_object(&answer, LIT("room")), &s->summary) &&
                   slice_eq(s->summary.room_id, s->room_id)
               ? OK
               : no_such_room();
}

static struct err load_summary(struct summary_call *s)
{
    struct hs *hs = s->call->hs;
    struct ctx *ctx = s->call->ctx;
    struct room *room = NULL;
    uint64_t number = 0;
    bool visible = false;
    TRY(hs_room_find(hs, ctx, s->room_id, &number, &visible));
    if (visible) {
        TRY(hs_room_get(hs, ctx, number, &room));
    }
    if (room && hs_room_is_resident(room)) {
        TRY(hs_summary_read(hs, ctx, room, &s->summary));
    } else {
        TRY(fetch_summary(s));
    }
    TRY(hs_summary_visible_to_user(hs, ctx, s->call->actor.user, &s->summary, &visible));
    return visible ? OK : no_such_room();
}

static struct err write_membership(struct summary_call *s)
{
    struct cs_room_call *call = s->call;
    struct user_room entry = {0};
    uint64_t number = 0;
    bool found = false;
    if (!call->actor.user) {
        return OK;
    }
    TRY(hs_room_find(call->hs, call->ctx, s->room_id, &number, &found));
    if (found) {
        TRY(hs_user_room(call->hs, call->ctx, call->actor.user, number, &entry, &found));
    }
    json_out_key_string(&call->out, LIT("membership"),
                        membership_word(found && entry.membership != MEMBERSHIP_NONE
                                            ? entry.membership
                                            : MEMBERSHIP_LEAVE));
    return OK;
}

static struct err get_summary(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct summary_call s = {.call = &call};
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(find_target(&s));
    TRY(load_summary(&s));
    json_out_object(&call.out);
    hs_summary_write(&call.out, &s.summary, SUMMARY_FULL);
    TRY(write_membership(&s));
    json_out_object_end(&call.out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v1/rooms/{roomId}/hierarchy", HTTP_AUTH_USER, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_hierarchy, "Spaces", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, "/_matrix/client/v1/room_summary/{roomIdOrAlias}", HTTP_AUTH_OPTIONAL,
     HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_summary, "Room Summaries", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    /* the paths that clients used before the endpoint was merged (MSC3266) */
    {HTTP_GET, "/_matrix/client/unstable/im.nheko.summary/rooms/{roomIdOrAlias}/summary",
     HTTP_AUTH_OPTIONAL, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_summary,
     "Room Summaries", NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_GET, "/_matrix/client/unstable/im.nheko.summary/summary/{roomIdOrAlias}",
     HTTP_AUTH_OPTIONAL, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_summary,
     "Room Summaries", NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_spaces_routes = {routes, COUNT_OF(routes)};
