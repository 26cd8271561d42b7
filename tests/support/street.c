#include "tests/support/street.h"

#include "federation/routes.h"
#include "homeserver/service/memberships.h"
#include "spec/errcodes.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[STREET_HOUSES] = {"a.test:1", "b.test:1", "c.test:1"};

struct slice street_name(size_t house)
{
    return slice_of(names[house]);
}

static enum http_method method_of(struct slice method)
{
    static const char *const words[] = {"GET", "POST", "PUT", "DELETE"};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (slice_eq(method, slice_of(words[i]))) {
            return (enum http_method)i;
        }
    }
    return HTTP_GET;
}

/* The reply's bytes, from memory or file, in the asker's arena. */
static struct slice body_of(struct arena *arena, struct http_reply *reply)
{
    if (reply->file_fd < 0) {
        return arena_copy(arena, buf_slice(&reply->body));
    }
    char *bytes = arena_alloc(arena, (size_t)reply->file_bytes + 1);
    ssize_t got = pread(reply->file_fd, bytes, (size_t)reply->file_bytes, reply->file_offset);
    ASSERT(got == reply->file_bytes);
    close(reply->file_fd);
    return (struct slice){bytes, (size_t)got};
}

static void call_handler(struct house *house, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    struct err err = request->route->handler(&house->hs, ctx, request, reply);
    if (err.code != 0) {
        buf_clear(&reply->body);
        http_reply_error(reply, err, (struct slice){0});
    }
}

static int answer(struct street *street, const struct street_request *asked, struct arena *arena,
                  struct slice *body_out)
{
    struct house *house = &street->houses[asked->to];
    struct ctx ctx = {.arena = arena_new(), .now = &house->now, .may_wait = true};
    struct http_reply reply = {.file_fd = -1};
    struct http_request request = {.method = method_of(slice_of(asked->method)),
                                   .target = asked->target,
                                   .server = street_name(asked->from)};
    request.query = slice_cut(asked->target, '?', &request.path);
    request.json = asked->content ? *asked->content : json_object();
    buf_init_arena(&reply.body, ctx.arena, SIZE_MAX / 2);
    enum http_match match = http_router_find(street->router, ctx.arena, request.method,
                                             request.path, &request.route, request.params);
    if (match == HTTP_MATCH_FOUND) {
        call_handler(house, &ctx, &request, &reply);
    } else {
        http_reply_error(&reply, err_make(ERR_M_UNRECOGNIZED, "no such route"), (struct slice){0});
    }
    snprintf(street->asked[asked->to], sizeof street->asked[0], "%.*s", (int)request.path.len,
             request.path.ptr);
    *body_out = body_of(arena, &reply);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return reply.status ? reply.status : 200;
}

int street_ask(struct street *street, const struct street_request *request, struct slice *body_out)
{
    return answer(street, request, street->houses[request->from].ctx.arena, body_out);
}

/* --- the network of a house --- */

struct way_out {
    struct street *street;
    size_t from;
};

static struct err give(const struct http_fetch_request *request, struct http_fetch_reply *reply)
{
    if (reply->status / 100 == 2 && request->sink) {
        size_t half = reply->body.len / 2;
        TRY(request->sink(request->sink_arg, slice_sub(reply->body, 0, half)));
        TRY(request->sink(request->sink_arg, slice_from(reply->body, half)));
        reply->body = (struct slice){0};
    }
    return OK;
}

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    struct way_out *way = arg;
    struct street *street = way->street;
    struct json content;
    struct slice rest = slice_from(request->url, strlen("https://"));
    struct street_request asked = {.from = way->from, .to = STREET_HOUSES};
    for (size_t i = 0; i < STREET_HOUSES; i++) {
        if (slice_has_prefix(rest, street_name(i))) {
            asked.to = i;
        }
    }
    *reply_out = (struct http_fetch_reply){.content_type = LIT("application/json")};
    if (asked.to == STREET_HOUSES || street->is_down[asked.to]) {
        return err_make(ERR_UNAVAILABLE, "nobody is there");
    }
    if (street->intercept && street->intercept(street, asked.to, request, reply_out)) {
        return give(request, reply_out);
    }
    asked.target = slice_from(rest, street_name(asked.to).len);
    asked.method = request->method.len ? arena_cstr(ctx->arena, request->method) : "GET";
    if (request->body.len) {
        TRY(json_parse(ctx->arena, request->body, &content));
        asked.content = &content;
    }
    reply_out->status = answer(street, &asked, ctx->arena, &reply_out->body);
    return give(request, reply_out);
}

static struct err find_srv(void *arg, struct ctx *ctx, struct slice service, struct slice host,
                           struct http_dns_srvs *srvs_out)
{
    (void)arg;
    (void)ctx;
    (void)service;
    (void)host;
    *srvs_out = (struct http_dns_srvs){0};
    return OK;
}

void street_open(struct street *street)
{
    static struct http_route_table tables[SS_TABLES_MAX];
    *street = (struct street){0};
    street->router = http_router_new(tables, ss_routes_collect(tables));
    for (size_t i = 0; i < STREET_HOUSES; i++) {
        struct house *house = &street->houses[i];
        struct fed *fed = NULL;
        house_open_as(house, names[i]);
        struct way_out *way = arena_alloc(house->conf_arena, sizeof *way);
        *way = (struct way_out){street, i};
        house->ctx.may_wait = true;
        struct err err = fed_new(&house->hs, &fed);
        ASSERT(err.code == 0);
        fed->net = (struct fed_net){.fetch = fetch, .find_srv = find_srv, .arg = way};
        hs_memberships_hook(&house->hs);
    }
}

void street_next_jobs(struct street *street)
{
    for (size_t i = 0; i < STREET_HOUSES; i++) {
        house_next_job(&street->houses[i]);
        street->houses[i].ctx.may_wait = true;
    }
}

void street_close(struct street *street)
{
    for (size_t i = 0; i < STREET_HOUSES; i++) {
        fed_free(&street->houses[i].hs.fed);
        house_close(&street->houses[i]);
    }
    http_router_free(&street->router);
}
