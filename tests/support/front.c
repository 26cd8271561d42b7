#include "tests/support/front.h"

#include "homeserver/service/requester.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { PATIENT_MS = 300000 }; /* a busy machine cuts nobody */

struct http_server_config front_config(struct hs *hs, const struct http_route_table *tables,
                                       size_t count)
{
    static const struct http_listener listeners[] = {{.host = {"127.0.0.1", 9}}};
    return (struct http_server_config){
        .listeners = listeners,
        .listener_count = 1,
        .loop_count = 1,
        .request_timeout_ms = PATIENT_MS,
        .idle_timeout_ms = PATIENT_MS,
        .tables = tables,
        .table_count = count,
        .app = hs,
        .authenticate = hs_authenticate,
        .lane_of = hs_lane_of_requester,
        .workers = hs->workers,
        .now = hs->now,
    };
}

void front_start(struct harness *front, const struct http_server_config *config)
{
    assert_int_equal(http_server_new(config, &front->server).code, 0);
    assert_int_equal(http_server_start(front->server).code, 0);
}

void front_ask_sync(int fd, const char *token, const char *since, int timeout_ms)
{
    char request[1024];
    int len = snprintf(request, sizeof request,
                       "GET /_matrix/client/v3/sync?timeout=%d%s%s HTTP/1.1\r\n"
                       "Host: a\r\nAuthorization: Bearer %s\r\n\r\n",
                       timeout_ms, since[0] ? "&since=" : "", since, token);
    harness_write(fd, (struct slice){request, (size_t)len});
}

void front_take_since(const struct harness_reply *answer, char since[64])
{
    const char *at = strstr(answer->body, "\"next_batch\":\"");
    assert_non_null(at);
    snprintf(since, 64, "%.*s", (int)strcspn(at + 14, "\""), at + 14);
}
