/* Spec: client-server, "Mutual Rooms". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/users.h"

enum { PAGE_MAX = 500 };

struct sharing {
    struct cs_room_call call;
    uint64_t other;
    uint64_t from; /* room number to begin with */
    int64_t count;
    size_t written;
    uint64_t next; /* 0 = the list is whole */
};

static struct err read_other(struct sharing *s, bool *known_out)
{
    struct slice user_id = http_query_get(s->call.ctx, s->call.request, LIT("user_id"));
    if (!ids_is_user(user_id) || slice_eq(user_id, s->call.actor.user_id)) {
        return err_public(ERR_M_INVALID_PARAM, "`user_id` must be the id of another user.");
    }
    return hs_user_find(s->call.hs, s->call.ctx, user_id, &s->other, known_out);
}

static struct err read_from(struct sharing *s)
{
    struct slice from = http_query_get(s->call.ctx, s->call.request, LIT("from"));
    if (!from.ptr ||
        (from.len && from.ptr[0] == 'm' && slice_parse_u64(slice_from(from, 1), &s->from))) {
        return OK;
    }
    return err_public(ERR_M_INVALID_PARAM, "`from` is not a token of this list.");
}

static struct err write_if_shared(struct sharing *s, uint64_t number)
{
    struct room *room = NULL;
    struct room_member member;
    bool found = false;
    TRY(hs_room_get(s->call.hs, s->call.ctx, number, &room));
    TRY(hs_room_member(s->call.hs, s->call.ctx, room, s->other, &member, &found));
    if (!found || member.membership != MEMBERSHIP_JOIN) {
        return OK;
    }
    s->count++;
    if (number < s->from || s->next) {
        return OK;
    }
    if (s->written == PAGE_MAX) {
        s->next = number;
        return OK;
    }
    s->written++;
    json_out_string(&s->call.out, hs_room_info(room).room_id);
    return OK;
}

static struct err mutual_rooms(void *app, struct ctx *ctx, const struct http_request *request,
                               struct http_reply *reply)
{
    struct sharing s = {0};
    struct user_rooms rooms = {0};
    bool known = false;
    cs_call_begin(&s.call, app, ctx, request, reply);
    TRY(read_other(&s, &known));
    TRY(read_from(&s));
    if (known) {
        TRY(hs_user_rooms(s.call.hs, ctx, s.call.actor.user, &rooms));
    }
    json_out_object(&s.call.out);
    json_out_key_array(&s.call.out, LIT("joined"));
    for (size_t i = 0; i < rooms.count; i++) {
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            TRY(write_if_shared(&s, rooms.items[i].room));
        }
    }
    json_out_array_end(&s.call.out);
    json_out_key_int(&s.call.out, LIT("count"), s.count);
    if (s.next) {
        json_out_key_string(&s.call.out, LIT("next_batch"),
                            arena_printf(ctx->arena, "m%llu", (unsigned long long)s.next));
    }
    json_out_object_end(&s.call.out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_GET, "/_matrix/client/v1/mutual_rooms", HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE,
     HTTP_LANE_NONE, 0, mutual_rooms, "Mutual Rooms", NULL, HTTP_ALLOW_SUSPENDED},
    /* the path that clients used before the endpoint was merged (MSC2666) */
    {HTTP_GET, "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms", HTTP_AUTH_USER,
     HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0, mutual_rooms, "Mutual Rooms", NULL,
     HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_mutual_rooms_routes = {routes, COUNT_OF(routes)};
