/* The route tables against spec/endpoints.tsv: what is due now is served, what is served is known,
 * and what waits for later is printed by name. */
#include "homeserver/client/routes.h"

#include "federation/routes.h"
#include "homeserver/base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ENDPOINTS_MAX = 400, LINE_BYTES_MAX = 1024 };

struct endpoint {
    char method[8], path[256], operation[64], due[32];
    bool served;
};

struct endpoints {
    struct endpoint items[ENDPOINTS_MAX];
    size_t count;
};

/* Routes beyond the specification's list: other spellings of listed paths, pages, extensions. */
static const char *const extras[] = {
    "GET /_matrix/client/unstable/io.myelin.stream/v1",
    "POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
    "GET /_matrix/client/unstable/im.nheko.summary/rooms/{}/summary",
    "GET /_matrix/client/unstable/im.nheko.summary/summary/{}",
    "GET /_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms",
    "PUT /_matrix/client/unstable/org.matrix.msc4140/rooms/{}/delayed_event/{}/{}",
    "GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events",
    "GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{}",
    "POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{}",
    "POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{}/cancel",
    "POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{}/restart",
    "POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{}/send",
    "PUT /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
    "GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
    "DELETE /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device",
    "GET /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{}/events",
    "POST /_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{}/events",
    "POST /_matrix/client/unstable/org.matrix.msc4174/pushers/ack",
    "POST /_matrix/client/unstable/org.matrix.msc4108/rendezvous",
    "GET /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{}",
    "PUT /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{}",
    "DELETE /_matrix/client/unstable/org.matrix.msc4108/rendezvous/{}",
    "GET /_matrix/client/unstable/io.element.msc4388/rendezvous",
    "POST /_matrix/client/unstable/io.element.msc4388/rendezvous",
    "GET /_matrix/client/unstable/io.element.msc4388/rendezvous/{}",
    "PUT /_matrix/client/unstable/io.element.msc4388/rendezvous/{}",
    "DELETE /_matrix/client/unstable/io.element.msc4388/rendezvous/{}",
    "POST /_synapse/admin/v1/send_server_notice",
    "PUT /_synapse/admin/v1/send_server_notice/{}",
    "DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{}/account_data/{}",
    "DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{}/rooms/{}/account_data/{}",
    "PUT /_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription",
    "GET /_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription",
    "DELETE /_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription",
    "GET /_matrix/client/unstable/io.element.msc4308/thread_subscriptions",
    "GET /_synapse/admin/v1/register",
    "POST /_synapse/admin/v1/register",
    "GET /_matrix/static/client/login",
    "GET /_matrix/static/client/login/",
    "POST /_matrix/static/client/login/",
    "GET /_matrix/client/v3/auth/{}/fallback/web",
    "POST /_matrix/client/v3/auth/{}/fallback/web",
    "GET /_matrix/key/v2/server/{}",
    "POST /_matrix/client/v3/rooms/{}/send/{}",
    "PUT /_matrix/federation/v1/send_join/{}/{}",
    "PUT /_matrix/federation/v1/send_leave/{}/{}",
};

static const char *method_name(enum http_method method)
{
    static const char *const names[] = {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"};
    return names[method];
}

/* "{anything}" becomes "{}", and a final slash goes. */
static void normalise(const char *path, char *out, size_t size)
{
    size_t len = 0;
    bool inside = false;
    for (const char *p = path; *p && len + 2 < size; p++) {
        if (!inside) {
            out[len++] = *p;
        }
        inside = *p == '{' || (inside && *p != '}');
        if (*p == '}' && out[len - 1] != '}') {
            out[len++] = '}';
        }
    }
    out[len] = '\0';
}

static void load_endpoints(struct endpoints *endpoints)
{
    char line[LINE_BYTES_MAX];
    FILE *file = fopen(SOURCE_ROOT "/spec/endpoints.tsv", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        struct endpoint *row = &endpoints->items[endpoints->count];
        char path[256] = "";
        *row = (struct endpoint){0};
        if (line[0] == '#' || strncmp(line, "method", 6) == 0) {
            continue;
        }
        int fields = sscanf(line, "%7[^\t]\t%255[^\t]\t%63[^\t\n]\t%31[^\n]", row->method, path,
                            row->operation, row->due);
        assert_true(fields >= 3);
        normalise(path, row->path, sizeof row->path);
        endpoints->count++;
        assert_true(endpoints->count < ENDPOINTS_MAX);
    }
    fclose(file);
}

static bool is_extra(const char *method, const char *path)
{
    char name[300];
    snprintf(name, sizeof name, "%s %s", method, path);
    for (size_t i = 0; i < COUNT_OF(extras); i++) {
        if (strcmp(extras[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* Marks the endpoint of a route; false when there is none and it is no extra either. */
static bool mark(struct endpoints *endpoints, const struct http_route *route)
{
    char path[256];
    bool known = false;
    normalise(route->path, path, sizeof path);
    for (size_t i = 0; i < endpoints->count; i++) {
        struct endpoint *row = &endpoints->items[i];
        size_t len = strlen(row->path);
        bool same = strcmp(row->path, path) == 0;
        bool shorter = strncmp(row->path, path, strlen(path)) == 0 && len > strlen(path) &&
                       strcmp(row->path + strlen(path), "/{}") == 0;
        bool slash = strncmp(row->path, path, strlen(path)) == 0 && path[strlen(path) - 1] == '/' &&
                     strcmp(row->path + strlen(path), "{}") == 0;
        if (strcmp(row->method, method_name(route->method)) == 0 && (same || shorter || slash)) {
            row->served = row->served || same;
            known = true;
        }
    }
    return known || is_extra(method_name(route->method), path);
}

static size_t mark_all(struct endpoints *endpoints)
{
    struct http_route_table tables[CS_TABLES_MAX + SS_TABLES_MAX];
    size_t unknown = 0;
    size_t count = cs_routes_collect(tables);
    count += ss_routes_collect(tables + count);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < tables[i].count; j++) {
            const struct http_route *route = &tables[i].routes[j];
            if (!mark(endpoints, route)) {
                print_message("not an endpoint of the specification: %s %s\n",
                              method_name(route->method), route->path);
                unknown++;
            }
        }
    }
    return unknown;
}

static void every_endpoint_is_served_or_waits_by_name(void **state)
{
    static struct endpoints endpoints;
    size_t missing = 0;
    size_t stale = 0;
    size_t served = 0;
    (void)state;
    load_endpoints(&endpoints);
    size_t unknown = mark_all(&endpoints);
    for (size_t i = 0; i < endpoints.count; i++) {
        const struct endpoint *row = &endpoints.items[i];
        served += row->served ? 1 : 0;
        if (row->served && row->due[0]) {
            print_message("served, but said to wait for %s: %s %s (%s)\n", row->due, row->method,
                          row->path, row->operation);
            stale++;
        }
        if (!row->served) {
            print_message("%s: %s %s (%s)\n", row->due[0] ? row->due : "MISSING", row->method,
                          row->path, row->operation);
            missing += row->due[0] ? 0 : 1;
        }
    }
    print_message("%zu of %zu endpoints are served\n", served, endpoints.count);
    assert_int_equal(missing, 0);
    assert_int_equal(stale, 0);
    assert_int_equal(unknown, 0);
}

/* Spec: client-server, "Guest Access", the lists of its client behaviour. */
static const char *const for_guests[] = {
    "GET /_matrix/client/v3/rooms/{}/state",
    "GET /_matrix/client/v3/rooms/{}/context/{}",
    "GET /_matrix/client/v3/rooms/{}/event/{}",
    "GET /_matrix/client/v3/rooms/{}/state/{}/{}",
    "GET /_matrix/client/v3/rooms/{}/messages",
    "GET /_matrix/client/v3/rooms/{}/members",
    "GET /_matrix/client/v3/rooms/{}/initialSync",
    "GET /_matrix/client/v3/sync",
    "GET /_matrix/client/v3/events",
    "GET /_matrix/client/v1/media/download/{}/{}",
    "GET /_matrix/client/v1/media/download/{}/{}/{}",
    "GET /_matrix/client/v1/media/thumbnail/{}/{}",
    "POST /_matrix/client/v3/rooms/{}/join",
    "POST /_matrix/client/v3/rooms/{}/leave",
    "PUT /_matrix/client/v3/rooms/{}/send/{}/{}",
    "PUT /_matrix/client/v3/rooms/{}/state/{}/{}",
    "PUT /_matrix/client/v3/sendToDevice/{}/{}",
    "PUT /_matrix/client/v3/profile/{}/{}",
    "DELETE /_matrix/client/v3/profile/{}/{}",
    "GET /_matrix/client/v3/devices",
    "GET /_matrix/client/v3/devices/{}",
    "PUT /_matrix/client/v3/devices/{}",
    "GET /_matrix/client/v3/account/whoami",
    "POST /_matrix/client/v3/keys/upload",
    "POST /_matrix/client/v3/keys/query",
    "POST /_matrix/client/v3/keys/claim",
};

static const struct http_route *find_route(const char *wanted)
{
    struct http_route_table tables[CS_TABLES_MAX + SS_TABLES_MAX];
    size_t count = cs_routes_collect(tables);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < tables[i].count; j++) {
            const struct http_route *route = &tables[i].routes[j];
            char path[256];
            char name[300];
            normalise(route->path, path, sizeof path);
            snprintf(name, sizeof name, "%s %s", method_name(route->method), path);
            if (strcmp(name, wanted) == 0) {
                return route;
            }
        }
    }
    return NULL;
}

static void guests_may_call_what_the_specification_lists(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(for_guests); i++) {
        const struct http_route *route = find_route(for_guests[i]);
        if (!route || !(route->flags & HTTP_ALLOW_GUEST)) {
            print_message("closed to guests: %s\n", for_guests[i]);
        }
        assert_non_null(route);
        assert_true(route->flags & HTTP_ALLOW_GUEST);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_endpoint_is_served_or_waits_by_name),
        cmocka_unit_test(guests_may_call_what_the_specification_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
