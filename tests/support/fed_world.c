#include "tests/support/fed_world.h"

#include "crypto/base64.h"
#include "crypto/signing_key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    struct fed_world *fw = arg;
    (void)ctx;
    fw->fetches++;
    *reply_out = (struct http_fetch_reply){0};
    return fw->on_fetch ? fw->on_fetch(fw, request, reply_out)
                        : err_make(ERR_UNAVAILABLE, "not reachable");
}

static struct err find_srv(void *arg, struct ctx *ctx, struct slice service, struct slice host,
                           struct http_dns_srvs *srvs_out)
{
    struct fed_world *fw = arg;
    (void)ctx;
    *srvs_out = (struct http_dns_srvs){0};
    return fw->on_srv ? fw->on_srv(fw, service, host, srvs_out) : OK;
}

void fed_world_open(struct fed_world *fw)
{
    char path[64];
    *fw = (struct fed_world){0};
    world_open(&fw->world, 0);
    if (!fw->world.hs.signing_key) {
        snprintf(path, sizeof path, "/tmp/fed-world-%ld.key", (long)getpid());
        assert_int_equal(signing_key_load(slice_of(path), &fw->world.hs.signing_key).code, 0);
        fw->world.hs.signer = signing_key_signer(fw->world.hs.signing_key,
                                                 ids_trust_server(fw->world.hs.server_name));
        unlink(path);
    }
    fw->world.ctx.may_wait = true;
    assert_int_equal(fed_new(&fw->world.hs, &fw->fed).code, 0);
    fw->fed->net = (struct fed_net){.fetch = fetch, .find_srv = find_srv, .arg = fw};
}

void fed_world_close(struct fed_world *fw)
{
    fed_free(&fw->fed);
    signing_key_free(&fw->world.hs.signing_key);
    world_close(&fw->world);
}

struct slice fed_world_base64(struct fed_world *fw, const void *bytes, size_t len)
{
    return base64_encode(fw->world.ctx.arena, (struct slice){bytes, len}, BASE64_STANDARD);
}

struct http_fetch_reply fed_world_reply(struct fed_world *fw, int status, const char *body,
                                        const char *headers)
{
    struct arena *arena = fw->world.ctx.arena;
    struct http_fetch_reply reply = {.status = status, .body = arena_copy(arena, slice_of(body))};
    struct slice rest = slice_of(headers);
    reply.headers = arena_array(arena, 8, sizeof *reply.headers);
    while (rest.len && reply.header_count < 8) {
        struct slice line;
        struct slice name;
        rest = slice_cut(rest, '\n', &line);
        struct slice value = slice_cut(line, ':', &name);
        reply.headers[reply.header_count++] = (struct http_header){name, slice_trim(value)};
    }
    return reply;
}
