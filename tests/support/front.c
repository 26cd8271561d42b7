#include "tests/support/front.h"

#include "homeserver/service/requester.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct http_server_config front_config(struct hs *hs, const struct http_route_table *tables,
                                       size_t count)
{
    static const struct http_listener listeners[] = {{.host = {"127.0.0.1", 9}}};
    return (struct http_server_config){
        .listeners = listeners,
        .listener_count = 1,
        .loop_count = 1,
        .request_timeout_ms = 5000,
        .idle_timeout_ms = 5000,
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
