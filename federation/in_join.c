/* Users of other servers join through this one. The answer to send_join is the whole state and its
 * auth chain; it is written piece by piece, beyond a bound into a file, so that a room of 50,000
 * members takes no more memory than a small one. Spec: server-server, "Joining Rooms". */
#include "federation/resident.h"
#include "federation/routes.h"
#include "federation/bulk.h"
#include "federation/joins.h"
#include "homeserver/base/map.h"
#include "homeserver/service/restricted.h"

#include <stdlib.h>

static struct err make_join(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    struct resident_call call = {.membership = MEMBERSHIP_JOIN};
    struct json content = json_object();
    struct slice authoriser;
    TRY(resident_begin(&call, app, ctx, request, reply));
    TRY(resident_check_user(&call));
    if (!resident_check_version(&call)) {
        return OK;
    }
    TRY(fed_invite_await(call.fed, ctx, request->params[0], request->params[1]));
    TRY(hs_restricted_authoriser(call.hs, ctx, call.room, request->params[1], &authoriser));
    json_set(ctx->arena, &content, LIT("membership"), json_string(LIT("join")));
    if (authoriser.ptr) {
        json_set(ctx->arena, &content, LIT("join_authorised_via_users_server"),
                 json_string(authoriser));
    }
    return resident_reply_template(&call, &content);
}

/* --- the answer to send_join --- */

enum { EVENTS_AT_ONCE = 200, HEROES_MAX = 5 };

struct join_answer {
    struct resident_call *call;
    struct event join;
    bool omit_members;
    uint64_t root;         /* the state before the join */
    struct slice *servers; /* in the room before the join, this one apart */
    size_t server_count;
    struct state_entries state; /* what goes into `state`, ascending by number */
    struct map *returned;       /* ids of those */
    struct map *cited;          /* ids of auth events of what was written */
    struct bulk bulk;
    struct json_out out; /* over the bulk's memory */
};

static struct err state_of(struct join_answer *a, struct slice type, struct slice key,
                           struct stored_event *event_out, bool *found_out)
{
    return hs_state_event(a->call->hs, a->call->ctx, a->call->room, a->root, type, key, event_out,
                          found_out);
}

static struct err has_name(struct join_answer *a, bool *has_out)
{
    struct stored_event event;
    bool found = false;
    TRY(state_of(a, LIT("m.room.name"), LIT(""), &event, &found));
    *has_out = found && json_get_string(event.event.content, LIT("name")).len > 0;
    if (!*has_out) {
        TRY(state_of(a, LIT("m.room.canonical_alias"), LIT(""), &event, &found));
        *has_out = found && json_get_string(event.event.content, LIT("alias")).len > 0;
    }
    return OK;
}

static void add_entry(struct join_answer *a, int64_t number)
{
    a->state.items[a->state.count++].event = number;
}

/* Members whose names stand for a room without one; the joining user is not among them. */
static struct err add_heroes(struct join_answer *a)
{
    struct room_members members;
    bool named = false;
    size_t added = 0;
    TRY(has_name(a, &named));
    if (named) {
        return OK;
    }
    TRY(hs_room_members(a->call->hs, a->call->ctx, a->call->room, MEMBERSHIP_NONE, 4 * HEROES_MAX,
                        &members));
    for (size_t i = 0; i < members.count && added < HEROES_MAX; i++) {
        struct stored_event event;
        bool found = false;
        if (slice_eq(members.items[i].user_id, a->join.sender.s)) {
            continue;
        }
        TRY(state_of(a, LIT("m.room.member"), members.items[i].user_id, &event, &found));
        enum membership membership = found ? membership_of(&event.event) : MEMBERSHIP_NONE;
        if (membership == MEMBERSHIP_JOIN || membership == MEMBERSHIP_INVITE) {
            add_entry(a, event.number);
            added++;
        }
    }
    return OK;
}

static struct err collect_without_members(struct join_answer *a)
{
    struct hs *hs = a->call->hs;
    uint64_t *keys = NULL;
    size_t count = 0;
    TRY(hs_state_keys_without_members(hs, a->call->ctx, a->call->room, &keys, &count));
    a->state.items = arena_array(a->call->ctx->arena, count + HEROES_MAX, sizeof *a->state.items);
    for (size_t i = 0; i < count; i++) {
        int64_t number = 0;
        bool found = false;
        TRY(state_get(hs->states, a->call->ctx, hs_room_info(a->call->room).number, a->root,
                      keys[i], &number, &found));
        if (found) {
            add_entry(a, number);
        }
    }
    return add_heroes(a);
}

static int by_event_number(const void *left, const void *right)
{
    int64_t a = ((const struct state_entry *)left)->event;
    int64_t b = ((const struct state_entry *)right)->event;
    return (a > b) - (a < b);
}

static struct err collect_state(struct join_answer *a)
{
    struct resident_call *call = a->call;
    if (a->omit_members) {
        TRY(collect_without_members(a));
    } else {
        TRY(state_read(call->hs->states, call->ctx, hs_room_info(call->room).number, a->root,
                       &a->state));
    }
    if (a->state.count > 1) {
        qsort(a->state.items, a->state.count, sizeof *a->state.items, by_event_number);
    }
    return OK;
}

static void note_cited(struct join_answer *a, const struct event *event)
{
    for (size_t i = 0; i < event->auth_event_count; i++) {
        map_set(a->cited, event->auth_events[i].s, 1);
    }
}

static struct err write_state_part(struct join_answer *a, struct ctx *ctx, size_t from, size_t to)
{
    int64_t numbers[EVENTS_AT_ONCE];
    struct stored_events events;
    for (size_t i = from; i < to; i++) {
        numbers[i - from] = a->state.items[i].event;
    }
    TRY(hs_events_scan_many(a->call->hs, ctx, a->call->room,
                            (struct event_numbers){numbers, to - from}, &events));
    for (size_t i = 0; i < events.count; i++) {
        const struct event *event = &events.items[i].event;
        json_out_raw(&a->out, event->json);
        map_set(a->returned, event->id.s, 1);
        note_cited(a, event);
    }
    return bulk_settle(&a->bulk);
}

/* Runs the work of a part in an arena of its own, so that parts do not add up. */
typedef struct err (*part_fn)(struct join_answer *a, struct ctx *ctx, size_t from, size_t to);

static struct err in_parts(struct join_answer *a, size_t count, part_fn fn)
{
    struct ctx part = *a->call->ctx;
    struct err err = OK;
    part.arena = arena_new();
    part.deferred = NULL;
    for (size_t from = 0; from < count && err.code == 0; from += EVENTS_AT_ONCE) {
        size_t to = from + EVENTS_AT_ONCE < count ? from + EVENTS_AT_ONCE : count;
        err = fn(a, &part, from, to);
        ctx_finish(&part);
        part.deferred = NULL;
        if (err.code == 0) {
            arena_reset(part.arena);
        }
    }
    if (err.code != 0) { /* its text may live in the part's arena */
        err.text = arena_cstr(a->call->ctx->arena, slice_of(err.text));
    }
    arena_free(&part.arena);
    return err;
}

static struct err write_chain_part(struct join_answer *a, struct ctx *ctx,
                                   const struct event_id *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct stored_event event;
        bool found = false;
        uint64_t ignored = 0;
        if (a->omit_members && map_get(a->returned, ids[i].s, &ignored)) {
            continue;
        }
        TRY(hs_event_find(a->call->hs, ctx, a->call->room, ids[i].s, &event, &found));
        if (found) {
            json_out_raw(&a->out, event.event.json);
        }
    }
    return bulk_settle(&a->bulk);
}

static struct event_id *list_cited(struct join_answer *a, size_t *count_out)
{
    struct event_id *ids = arena_array(a->call->ctx->arena, map_count(a->cited) + 1, sizeof *ids);
    struct slice id;
    uint64_t value = 0;
    size_t cursor = 0;
    *count_out = 0;
    while (map_next(a->cited, &cursor, &id, &value)) {
        ids[(*count_out)++] = ids_trust_event(arena_copy(a->call->ctx->arena, id));
    }
    return ids;
}

/* Spec: send_join, `auth_chain`: of the join and of all that `state` returns. What they cite, and
 * the chain of that. */
static struct err write_auth_chain(struct join_answer *a)
{
    struct resident_call *call = a->call;
    struct event_id *rest = NULL;
    size_t rest_count = 0;
    size_t count = 0;
    note_cited(a, &a->join);
    struct event_id *cited = list_cited(a, &count);
    TRY(hs_auth_chain(call->hs, call->ctx, call->room, cited, count, &rest, &rest_count));
    json_out_key_array(&a->out, LIT("auth_chain"));
    for (size_t i = 0; i < count; i += EVENTS_AT_ONCE) {
        size_t part = count - i < EVENTS_AT_ONCE ? count - i : EVENTS_AT_ONCE;
        TRY(write_chain_part(a, call->ctx, &cited[i], part));
    }
    for (size_t i = 0; i < rest_count; i++) {
        uint64_t ignored = 0;
        if (!map_get(a->cited, rest[i].s, &ignored)) {
            TRY(write_chain_part(a, call->ctx, &rest[i], 1));
        }
    }
    json_out_array_end(&a->out);
    return OK;
}

static struct err write_state(struct join_answer *a)
{
    json_out_key_array(&a->out, LIT("state"));
    TRY(in_parts(a, a->state.count, write_state_part));
    json_out_array_end(&a->out);
    return OK;
}

static void write_rest(struct join_answer *a)
{
    struct slice own = a->call->hs->server_name;
    json_out_key_raw(&a->out, LIT("event"), a->join.json);
    json_out_key_string(&a->out, LIT("origin"), own);
    json_out_key_bool(&a->out, LIT("members_omitted"), a->omit_members);
    if (a->omit_members) {
        json_out_key_array(&a->out, LIT("servers_in_room"));
        json_out_string(&a->out, own);
        for (size_t i = 0; i < a->server_count; i++) {
            json_out_string(&a->out, a->servers[i]);
        }
        json_out_array_end(&a->out);
    }
}

static struct err write_answer(struct join_answer *a)
{
    TRY(collect_state(a));
    json_out_object(&a->out);
    write_rest(a);
    TRY(write_state(a));
    TRY(write_auth_chain(a));
    json_out_object_end(&a->out);
    return OK;
}

/* Hands what was written to the reply: bytes when they are few, else the file. */
static struct err deliver(struct join_answer *a)
{
    struct http_reply *reply = a->call->reply;
    int fd = -1;
    TRY(bulk_take_file(&a->bulk, &fd));
    if (fd < 0) {
        buf_add(&reply->body, buf_slice(&a->bulk.memory));
        return OK;
    }
    reply->file_fd = fd;
    reply->file_offset = 0;
    reply->file_bytes = (int64_t)a->bulk.bytes;
    return OK;
}

struct join_form {
    struct slice before, after; /* around the answer */
};

static struct err answer_join(struct join_answer *a, const struct join_form *form)
{
    bulk_init(&a->bulk, a->call->hs->conf->data_dir, 0);
    a->returned = map_new();
    a->cited = map_new();
    buf_add(&a->bulk.memory, form->before);
    a->out = json_out_to(&a->bulk.memory);
    struct err err = write_answer(a);
    buf_add(&a->bulk.memory, form->after);
    if (err.code == 0) {
        err = deliver(a);
    }
    map_free(&a->cited);
    map_free(&a->returned);
    bulk_deinit(&a->bulk);
    return err;
}

static struct err take_join(struct resident_call *call, const struct join_form *form)
{
    struct join_answer answer = {.call = call};
    struct stored_event stored;
    bool found = false;
    struct ctx *ctx = call->ctx;
    TRY(http_query_bool(ctx, call->request, LIT("omit_members"), false, &answer.omit_members));
    TRY(resident_read_event(call, &answer.join));
    TRY(hs_room_servers(call->hs, ctx, call->room, &answer.servers, &answer.server_count));
    TRY(resident_accept(call, &answer.join));
    TRY(hs_event_find(call->hs, ctx, call->room, answer.join.id.s, &stored, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "a join that was accepted is missing");
    }
    answer.root = stored.state_before;
    return answer_join(&answer, form);
}

static struct err send_join_v2(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct resident_call call = {.membership = MEMBERSHIP_JOIN};
    TRY(resident_begin(&call, app, ctx, request, reply));
    return take_join(&call, &(struct join_form){LIT(""), LIT("")});
}

/* The old form, which servers of old rooms still use. */
static struct err send_join_v1(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct resident_call call = {.membership = MEMBERSHIP_JOIN};
    TRY(resident_begin(&call, app, ctx, request, reply));
    return take_join(&call, &(struct join_form){LIT("[200,"), LIT("]")});
}

enum { EVENT_BODY_BYTES_MAX = 1 << 17 };

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/federation/v1/make_join/{roomId}/{userId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, make_join, "Joining Rooms", NULL, 0},
    {HTTP_PUT, "/_matrix/federation/v1/send_join/{roomId}/{eventId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, send_join_v1,
     "Joining Rooms", NULL, 0},
    {HTTP_PUT, "/_matrix/federation/v2/send_join/{roomId}/{eventId}", HTTP_AUTH_SERVER,
     HTTP_RATE_FEDERATION, HTTP_BODY_JSON, HTTP_LANE_NONE, EVENT_BODY_BYTES_MAX, send_join_v2,
     "Joining Rooms", NULL, 0},
};
const struct http_route_table ss_join_routes = {routes, COUNT_OF(routes)};
