#include "tests/support/asking.h"

#include "homeserver/media/media.h"
#include "homeserver/service/rendezvous.h"
#include "homeserver/service/requester.h"

#include <stdio.h>
#include <string.h>

enum { RUNS_MAX = 2000, REPLY_BYTES_MAX = 1 << 22 };

static void open_house(struct asking *asking)
{
    struct house *house = &asking->house;
    house_open(house);
    house->hs.rendezvous = hs_rendezvous_new(house->conf.rendezvous_life);
    house->hs.media_waits = media_waits_new(&house->hs);
    asking->guest = house_guest(house, "ann");
    struct room *room = house_room(house, &asking->guest, "{\"preset\":\"public_chat\"}");
    asking->room_id = arena_copy(house->conf_arena, hs_room_info(room).room_id);
    asking->event_id =
        arena_copy(house->conf_arena, house_say(house, room, &asking->guest, "hello"));
    asking->last_id = (struct slice){0};
}

static void close_house(struct asking *asking)
{
    hs_rendezvous_free(&asking->house.hs.rendezvous);
    media_waits_free(&asking->house.hs.media_waits);
    house_close(&asking->house);
}

/* --- the request --- */

static struct slice next_line(struct slice *rest)
{
    struct slice line;
    *rest = slice_cut(*rest, '\n', &line);
    return line;
}

static struct slice stands_for(const struct asking *asking, struct slice text)
{
    const struct {
        struct slice name, value;
    } known[] = {{LIT("$room"), asking->room_id},
                 {LIT("$event"), asking->event_id},
                 {LIT("$user"), asking->guest.actor.user_id},
                 {LIT("$device"), asking->guest.device_id},
                 {LIT("$id"), asking->last_id}};
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (slice_eq(text, known[i].name)) {
            return known[i].value;
        }
    }
    return text;
}

/* False: the front would refuse the request before a handler sees it. */
static bool read_body(struct ctx *ctx, const struct http_route *route, struct http_request *request)
{
    for (size_t i = 0; i < 3; i++) {
        if (!slice_is_utf8(request->params[i])) {
            return false;
        }
    }
    if (route->body != HTTP_BODY_JSON && route->body != HTTP_BODY_OPTIONAL_JSON) {
        return route->body != HTTP_BODY_STREAM;
    }
    struct slice text = request->body;
    if (text.len == 0 && route->body == HTTP_BODY_OPTIONAL_JSON) {
        text = LIT("{}");
    }
    return json_parse(ctx->arena, text, &request->json).code == 0 &&
           request->json.type == JSON_OBJECT;
}

static void read_request(const struct asking *asking, struct slice rest,
                         struct http_request *request)
{
    for (size_t i = 0; i < 3; i++) {
        request->params[i] = stands_for(asking, next_line(&rest));
    }
    request->query = next_line(&rest);
    request->content_type = next_line(&rest);
    request->if_match = request->if_none_match = next_line(&rest);
    request->body = rest;
    request->content_length = (int64_t)rest.len;
}

/* --- the answer --- */

static void keep_id(struct asking *asking, const struct json *answer)
{
    static const struct slice names[] = {{"id", 2},       {"delay_id", 8}, {"device_id", 9},
                                         {"event_id", 8}, {"room_id", 7},  {"filter_id", 9},
                                         {"version", 7}};
    struct slice url = json_get_string(answer, LIT("url"));
    struct slice id = url.ptr ? slice_from(url, slice_find_last(url, '/') + 1) : url;
    for (size_t i = 0; i < COUNT_OF(names) && !id.ptr; i++) {
        id = json_get_string(answer, names[i]);
    }
    if (id.ptr && id.len <= sizeof asking->last_bytes) {
        memcpy(asking->last_bytes, id.ptr, id.len);
        asking->last_id = (struct slice){asking->last_bytes, id.len};
    }
}

/* What would be answered with 500. */
static bool is_fault(struct err err)
{
    return err.code != 0 && err.code < ERR_MATRIX_FIRST && err.code != ERR_LIMIT &&
           err.code != ERR_WAITS && err.code != ERR_UNAVAILABLE && err.code != ERR_SYNTAX;
}

static void check(struct asking *asking, struct err err, const struct http_reply *reply)
{
    struct json answer;
    struct slice text = buf_slice(&reply->body);
    if (is_fault(err)) {
        fprintf(stderr, "fault %u: %s\n", err.code, err.text);
    }
    ASSERT(!is_fault(err));
    if (err.code != 0 || reply->content_type.len || text.len == 0) {
        return;
    }
    struct err parsed = json_parse(asking->house.ctx.arena, text, &answer);
    if (parsed.code != 0) {
        fprintf(stderr, "%s: %.*s\n", parsed.text, (int)text.len, text.ptr);
    }
    ASSERT(parsed.code == 0);
    keep_id(asking, &answer);
}

void asking_run(struct asking *asking, const struct http_route_table *table, struct slice bytes)
{
    struct house *house = &asking->house;
    if (asking->runs % RUNS_MAX == 0) {
        if (asking->runs) {
            close_house(asking);
        }
        open_house(asking);
    }
    asking->runs++;
    house_next_job(house);
    house->wall_ms += 100;
    house->mono_ms += 100;
    struct slice rest = bytes;
    struct slice first = next_line(&rest);
    size_t index = first.len ? (size_t)(unsigned char)(first.ptr[0] - '0') % table->count : 0;
    const struct http_route *route = &table->routes[index];
    struct requester requester = {.user_id = asking->guest.actor.user_id,
                                  .user = asking->guest.actor.user,
                                  .device_id = asking->guest.device_id};
    struct http_request request = {
        .method = route->method, .route = route, .requester = &requester};
    struct http_reply reply = {.file_fd = -1};
    read_request(asking, rest, &request);
    if (!read_body(&house->ctx, route, &request)) {
        return;
    }
    buf_init_arena(&reply.body, house->ctx.arena, REPLY_BYTES_MAX);
    check(asking, route->handler(&house->hs, &house->ctx, &request, &reply), &reply);
}
