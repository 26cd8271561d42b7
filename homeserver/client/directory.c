/* Spec: client-server, "Room aliases", "Published room directory". */
#include "homeserver/service/directory.h"

#include "homeserver/client/rooms_priv.h"
#include "homeserver/room/join_rules.h"
#include "homeserver/room/power.h"
#include "homeserver/service/sending.h"
#include "homeserver/service/users.h"

#include <stdlib.h>

/* --- aliases --- */

static struct err check_alias(const struct http_request *request)
{
    return ids_is_alias(request->params[0])
               ? OK
               : err_public(ERR_M_INVALID_PARAM, "An alias must have the form #name:server.");
}

/* Aliases that strangers give to a room would be a way to find out which rooms there are. */
static struct err require_member(struct cs_room_call *call)
{
    const struct requester *requester = call->request->requester;
    enum membership membership = MEMBERSHIP_NONE;
    TRY(hs_membership_at(call->hs, call->ctx, call->room, hs_room_head(call->room).root,
                         call->actor.user_id, &membership));
    return membership == MEMBERSHIP_JOIN || requester->is_admin || requester->is_appservice
               ? OK
               : err_public(ERR_M_FORBIDDEN, "Only members may give this room an alias.");
}

static struct err put_alias(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice room_id;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_alias(request));
    TRY(cs_body_required(request, LIT("room_id"), &room_id));
    struct room_alias alias = ids_trust_alias(request->params[0]);
    if (!hs_is_local(call.hs, ids_alias_domain(alias).s)) {
        return err_public(ERR_M_INVALID_PARAM, "The alias belongs to another server.");
    }
    if (!ids_is_room(room_id)) {
        return err_public(ERR_M_INVALID_PARAM, "`room_id` is not a valid room id.");
    }
    TRY(hs_room_get_by_id(call.hs, ctx, room_id, &call.room));
    TRY(require_member(&call));
    TRY(hs_alias_set(call.hs, ctx, alias.s, hs_room_info(call.room).number, call.actor.user));
    http_reply_empty(reply);
    return OK;
}

static struct err get_alias(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_alias(request));
    TRY(hs_room_resolve(call.hs, ctx, request->params[0], &call.room));
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("room_id"), hs_room_info(call.room).room_id);
    json_out_key_array(&call.out, LIT("servers"));
    json_out_string(&call.out, call.hs->server_name);
    json_out_array_end(&call.out);
    json_out_object_end(&call.out);
    return OK;
}

/* The caller's power for an event type in the room now. */
static struct err has_power(struct cs_room_call *call, struct slice type, bool *has_out)
{
    struct power_levels levels;
    enum membership membership = MEMBERSHIP_NONE;
    uint64_t root = hs_room_head(call->room).root;
    *has_out = false;
    TRY(hs_membership_at(call->hs, call->ctx, call->room, root, call->actor.user_id, &membership));
    if (membership != MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(hs_room_power(call->hs, call->ctx, call->room, &levels));
    *has_out = power_of_user(&levels, ids_trust_user(call->actor.user_id)) >=
               power_needed_for(&levels, type, POWER_STATE);
    return OK;
}

/* The room no longer names an alias that is gone; whoever may delete but not write this state
 * leaves it as it is. */
static struct err drop_from_canonical(struct cs_room_call *call, struct slice alias)
{
    struct stored_event current;
    struct hs_sent sent;
    bool found = false;
    TRY(hs_state_event(call->hs, call->ctx, call->room, hs_room_head(call->room).root,
                       LIT("m.room.canonical_alias"), LIT(""), &current, &found));
    if (!found) {
        return OK;
    }
    struct json content = json_without(call->ctx->arena, current.event.content, NULL, 0);
    const struct json *others = json_get_array(&content, LIT("alt_aliases"));
    struct json kept = json_array();
    bool named = json_is_string(json_get(&content, LIT("alias")), alias);
    for (uint32_t i = 0; others && i < others->count; i++) {
        if (json_is_string(&others->items[i], alias)) {
            named = true;
        } else {
            json_push(call->ctx->arena, &kept, others->items[i]);
        }
    }
    if (!named) {
        return OK;
    }
    if (json_is_string(json_get(&content, LIT("alias")), alias)) {
        json_remove(&content, LIT("alias"));
    }
    if (others) {
        json_set(call->ctx->arena, &content, LIT("alt_aliases"), kept);
    }
    struct send_request send = {.actor = &call->actor,
                                .type = LIT("m.room.canonical_alias"),
                                .state_key = LIT(""),
                                .content = &content};
    struct err err = hs_send_state(call->hs, call->ctx, call->room, &send, &sent);
    return err.code == ERR_M_FORBIDDEN ? OK : err;
}

static struct err delete_alias(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct cs_room_call call;
    uint64_t room = 0;
    uint64_t creator = 0;
    bool found = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_alias(request));
    TRY(hs_alias_get(call.hs, ctx, request->params[0], &room, &creator, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "The room alias does not exist.");
    }
    bool allowed = creator == call.actor.user || request->requester->is_admin;
    TRY(hs_room_get(call.hs, ctx, room, &call.room));
    if (!allowed) {
        TRY(has_power(&call, LIT("m.room.canonical_alias"), &allowed));
    }
    if (!allowed) {
        return err_public(ERR_M_FORBIDDEN,
                          "Only who made the alias, or may change the room's main alias, may "
                          "delete it.");
    }
    TRY(hs_alias_delete(call.hs, ctx, request->params[0]));
    TRY(drop_from_canonical(&call, request->params[0]));
    http_reply_empty(reply);
    return OK;
}

/* --- the list of public rooms --- */

static struct err get_visibility(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    struct cs_room_call call;
    bool is_public = false;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_room_get_by_id(call.hs, ctx, request->params[0], &call.room));
    TRY(hs_public_get(call.hs, ctx, hs_room_info(call.room).number, &is_public));
    json_out_object(&call.out);
    json_out_key_string(&call.out, LIT("visibility"), is_public ? LIT("public") : LIT("private"));
    json_out_object_end(&call.out);
    return OK;
}

static struct err put_visibility(void *app, struct ctx *ctx, const struct http_request *request,
                                 struct http_reply *reply)
{
    struct cs_room_call call;
    struct slice visibility;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_room_get_by_id(call.hs, ctx, request->params[0], &call.room));
    TRY(cs_body_string(request, LIT("visibility"), &visibility));
    bool is_public = !visibility.ptr || slice_eq(visibility, LIT("public"));
    bool allowed = request->requester->is_admin;
    if (!is_public && !slice_eq(visibility, LIT("private"))) {
        return err_public(ERR_M_INVALID_PARAM, "`visibility` must be public or private.");
    }
    if (!allowed) {
        TRY(has_power(&call, LIT("m.room.canonical_alias"), &allowed));
    }
    if (!allowed) {
        return err_public(ERR_M_FORBIDDEN, "You do not have the power to list this room.");
    }
    TRY(hs_public_set(call.hs, ctx, hs_room_info(call.room).number, is_public));
    http_reply_empty(reply);
    return OK;
}

struct listing {
    struct slice room_id, name, topic, alias, avatar_url, room_type, join_rule;
    uint32_t joined;
    bool world_readable, guest_can_join;
};

struct listing_query {
    struct slice term;
    const struct json *room_types; /* NULL = any */
    size_t limit, offset;
};

static struct err read_text(struct cs_room_call *call, struct slice type, struct slice key,
                            struct slice *text_out)
{
    struct stored_event event;
    bool found = false;
    *text_out = (struct slice){0};
    TRY(hs_state_event(call->hs, call->ctx, call->room, hs_room_head(call->room).root, type,
                       LIT(""), &event, &found));
    if (found) {
        *text_out = json_get_string(event.event.content, key);
    }
    return OK;
}

static struct err read_listing(struct cs_room_call *call, uint64_t number, struct listing *listing)
{
    struct slice visibility;
    struct slice guest_access;
    TRY(hs_room_get(call->hs, call->ctx, number, &call->room));
    listing->room_id = hs_room_info(call->room).room_id;
    listing->joined = hs_room_head(call->room).joined_count;
    TRY(read_text(call, LIT("m.room.name"), LIT("name"), &listing->name));
    TRY(read_text(call, LIT("m.room.topic"), LIT("topic"), &listing->topic));
    TRY(read_text(call, LIT("m.room.canonical_alias"), LIT("alias"), &listing->alias));
    TRY(read_text(call, LIT("m.room.avatar"), LIT("url"), &listing->avatar_url));
    TRY(read_text(call, LIT("m.room.create"), LIT("type"), &listing->room_type));
    TRY(read_text(call, LIT("m.room.join_rules"), LIT("join_rule"), &listing->join_rule));
    TRY(read_text(call, LIT("m.room.history_visibility"), LIT("history_visibility"), &visibility));
    TRY(read_text(call, LIT("m.room.guest_access"), LIT("guest_access"), &guest_access));
    listing->world_readable = slice_eq(visibility, LIT("world_readable"));
    listing->guest_can_join = slice_eq(guest_access, LIT("can_join"));
    return OK;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool contains_nocase(struct slice text, struct slice term)
{
    for (size_t i = 0; i + term.len <= text.len; i++) {
        size_t j = 0;
        while (j < term.len && lower(text.ptr[i + j]) == lower(term.ptr[j])) {
            j++;
        }
        if (j == term.len) {
            return true;
        }
    }
    return false;
}

static bool type_matches(const struct json *types, struct slice type)
{
    for (uint32_t i = 0; i < types->count; i++) {
        bool plain = types->items[i].type == JSON_NULL && !type.len;
        if (plain || (type.len && json_is_string(&types->items[i], type))) {
            return true;
        }
    }
    return false;
}

static bool listing_matches(const struct listing *listing, const struct listing_query *query)
{
    if (query->room_types && !type_matches(query->room_types, listing->room_type)) {
        return false;
    }
    return query->term.len == 0 || contains_nocase(listing->name, query->term) ||
           contains_nocase(listing->topic, query->term) ||
           contains_nocase(listing->alias, query->term);
}

static void write_optional(struct json_out *out, struct slice key, struct slice text)
{
    if (text.len) {
        json_out_key_string(out, key, text);
    }
}

static void write_listing(struct json_out *out, const struct listing *listing)
{
    json_out_object(out);
    json_out_key_string(out, LIT("room_id"), listing->room_id);
    json_out_key_int(out, LIT("num_joined_members"), listing->joined);
    json_out_key_bool(out, LIT("world_readable"), listing->world_readable);
    json_out_key_bool(out, LIT("guest_can_join"), listing->guest_can_join);
    write_optional(out, LIT("name"), listing->name);
    write_optional(out, LIT("topic"), listing->topic);
    write_optional(out, LIT("canonical_alias"), listing->alias);
    write_optional(out, LIT("avatar_url"), listing->avatar_url);
    write_optional(out, LIT("room_type"), listing->room_type);
    write_optional(out, LIT("join_rule"), listing->join_rule);
    json_out_object_end(out);
}

static int by_size(const void *a, const void *b)
{
    const struct listing *left = a;
    const struct listing *right = b;
    if (left->joined != right->joined) {
        return left->joined < right->joined ? 1 : -1;
    }
    return slice_cmp(left->room_id, right->room_id);
}

static struct err collect(struct cs_room_call *call, const struct listing_query *query,
                          struct listing **listings_out, size_t *count_out)
{
    uint64_t *rooms = NULL;
    size_t room_count = 0;
    TRY(hs_public_rooms(call->hs, call->ctx, &rooms, &room_count));
    struct listing *listings = arena_array(call->ctx->arena, room_count, sizeof *listings);
    size_t count = 0;
    for (size_t i = 0; i < room_count; i++) {
        TRY(read_listing(call, rooms[i], &listings[count]));
        count += listing_matches(&listings[count], query) ? 1 : 0;
    }
    qsort(listings, count, sizeof *listings, by_size);
    *listings_out = listings;
    *count_out = count;
    return OK;
}

static struct err write_list(struct cs_room_call *call, const struct listing_query *query)
{
    struct listing *listings = NULL;
    size_t count = 0;
    struct ctx *ctx = call->ctx;
    TRY(collect(call, query, &listings, &count));
    size_t from = query->offset < count ? query->offset : count;
    size_t to = query->limit && query->limit < count - from ? from + query->limit : count;
    json_out_object(&call->out);
    json_out_key_array(&call->out, LIT("chunk"));
    for (size_t i = from; i < to; i++) {
        write_listing(&call->out, &listings[i]);
    }
    json_out_array_end(&call->out);
    json_out_key_int(&call->out, LIT("total_room_count_estimate"), (int64_t)count);
    if (to < count) {
        json_out_key_string(&call->out, LIT("next_batch"), arena_printf(ctx->arena, "p%zu", to));
    }
    if (from > 0) {
        size_t back = query->limit && from > query->limit ? from - query->limit : 0;
        json_out_key_string(&call->out, LIT("prev_batch"), arena_printf(ctx->arena, "p%zu", back));
    }
    json_out_object_end(&call->out);
    return OK;
}

static struct err read_since(struct slice since, struct listing_query *query)
{
    uint64_t offset = 0;
    if (!since.len) {
        return OK;
    }
    if (since.ptr[0] != 'p' || !slice_parse_u64(slice_from(since, 1), &offset)) {
        return err_public(ERR_M_INVALID_PARAM, "`since` is not a token of this list.");
    }
    query->offset = (size_t)offset;
    return OK;
}

static struct err check_list_access(struct cs_room_call *call)
{
    struct slice server = http_query_get(call->ctx, call->request, LIT("server"));
    if (!call->request->requester && !call->hs->conf->room_directory_public_without_auth) {
        return err_public(ERR_M_MISSING_TOKEN, "An access token is required.");
    }
    if (server.len && !hs_is_local(call->hs, server)) {
        return err_public(ERR_M_NOT_FOUND, "The other server cannot be reached.");
    }
    return OK;
}

static struct err get_public_rooms(void *app, struct ctx *ctx, const struct http_request *request,
                                   struct http_reply *reply)
{
    struct cs_room_call call;
    struct listing_query query = {0};
    int64_t limit = 0;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_list_access(&call));
    TRY(http_query_int(ctx, request, LIT("limit"), 0, &limit));
    TRY(read_since(http_query_get(ctx, request, LIT("since")), &query));
    query.limit = (size_t)limit;
    return write_list(&call, &query);
}

static struct err post_public_rooms(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply)
{
    struct cs_room_call call;
    struct listing_query query = {0};
    struct slice since;
    int64_t limit = 0;
    const struct json *filter = json_get_object(&request->json, LIT("filter"));
    const struct json *given_limit = json_get(&request->json, LIT("limit"));
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(check_list_access(&call));
    TRY(cs_body_string(request, LIT("since"), &since));
    TRY(read_since(since, &query));
    if (given_limit && (given_limit->type != JSON_INT || given_limit->integer < 0)) {
        return err_public(ERR_M_BAD_JSON, "`limit` must be an integer of at least 0.");
    }
    json_get_int(&request->json, LIT("limit"), &limit);
    query.limit = (size_t)limit;
    query.term = json_get_string(filter, LIT("generic_search_term"));
    query.room_types = json_get_array(filter, LIT("room_types"));
    return write_list(&call, &query);
}

enum { BODY_BYTES_MAX = 1 << 16 };

static const struct http_route routes[] = {
    {HTTP_PUT, "/_matrix/client/v3/directory/room/{roomAlias}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, put_alias, "Room aliases", NULL, 0},
    {HTTP_GET, "/_matrix/client/v3/directory/room/{roomAlias}", HTTP_AUTH_NONE, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_alias, "Room aliases", NULL, 0},
    {HTTP_DELETE, "/_matrix/client/v3/directory/room/{roomAlias}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, delete_alias, "Room aliases", NULL, 0},
    {HTTP_GET, "/_matrix/client/v3/directory/list/room/{roomId}", HTTP_AUTH_NONE, HTTP_RATE_READ,
     HTTP_BODY_NONE, HTTP_LANE_NONE, 0, get_visibility, "Published room directory", NULL, 0},
    {HTTP_PUT, "/_matrix/client/v3/directory/list/room/{roomId}", HTTP_AUTH_USER, HTTP_RATE_WRITE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, put_visibility,
     "Published room directory", NULL, 0},
    {HTTP_GET, "/_matrix/client/v3/publicRooms", HTTP_AUTH_OPTIONAL, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, get_public_rooms, "Published room directory", NULL,
     HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
    {HTTP_POST, "/_matrix/client/v3/publicRooms", HTTP_AUTH_OPTIONAL, HTTP_RATE_READ,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, BODY_BYTES_MAX, post_public_rooms,
     "Published room directory", NULL, HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_directory_routes = {routes, COUNT_OF(routes)};
