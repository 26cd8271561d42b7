/* Every branch of server discovery, with an answer of .well-known and SRV records of the test's
 * making. Spec: server-server, "Resolving server names". */
#include "tests/support/fed_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

struct scene {
    const char *server;
    const char *wellknown; /* body of a 200; NULL = not reachable */
    const char *srv_fed;   /* of the host asked: "target:port ..."; NULL = none */
    const char *srv_old;
    const char *want; /* "authority>connect_to ..."; "" = refused */
};

static const struct scene scenes[] = {
    /* 1: literals */
    {"1.2.3.4", NULL, NULL, NULL, "1.2.3.4>1.2.3.4:8448"},
    {"1.2.3.4:80", NULL, NULL, NULL, "1.2.3.4:80>1.2.3.4:80"},
    {"[2001:db8::1]", NULL, NULL, NULL, "[2001:db8::1]>[2001:db8::1]:8448"},
    {"[2001:db8::1]:9", NULL, NULL, NULL, "[2001:db8::1]:9>[2001:db8::1]:9"},
    /* 2: an explicit port asks nobody */
    {"a.org:5", "{\"m.server\":\"b.org\"}", "x.org:7", NULL, "a.org:5>a.org:5"},
    /* 3: delegation */
    {"a.org", "{\"m.server\":\"5.6.7.8\"}", NULL, NULL, "5.6.7.8>5.6.7.8:8448"},
    {"a.org", "{\"m.server\":\"5.6.7.8:99\"}", NULL, NULL, "5.6.7.8:99>5.6.7.8:99"},
    {"a.org", "{\"m.server\":\"[::2]:99\"}", NULL, NULL, "[::2]:99>[::2]:99"},
    {"a.org", "{\"m.server\":\"b.org:99\"}", "x.org:7", NULL, "b.org:99>b.org:99"},
    {"a.org", "{\"m.server\":\"b.org\"}", "x.org:7", "y.org:8", "b.org>x.org:7"},
    {"a.org", "{\"m.server\":\"b.org\"}", NULL, "y.org:8", "b.org>y.org:8"},
    {"a.org", "{\"m.server\":\"b.org\"}", NULL, NULL, "b.org>b.org:8448"},
    {"a.org", "{\"m.server\":\"b.org\",\"more\":[1]}", NULL, NULL, "b.org>b.org:8448"},
    /* what is no delegation leads to 4 */
    {"a.org", "{\"m.server\":\"b.org:x\"}", NULL, NULL, "a.org>a.org:8448"},
    {"a.org", "{\"m.server\":\"\"}", NULL, NULL, "a.org>a.org:8448"},
    {"a.org", "{\"m.server\":5}", NULL, NULL, "a.org>a.org:8448"},
    {"a.org", "[]", NULL, NULL, "a.org>a.org:8448"},
    {"a.org", "{\"m.server\":\"b.org\"", NULL, NULL, "a.org>a.org:8448"},
    {"a.org", "{\"m.server\":\"https://b.org\"}", NULL, NULL, "a.org>a.org:8448"},
    /* 4 to 6 */
    {"a.org", NULL, "x.org:7", "y.org:8", "a.org>x.org:7"},
    {"a.org", NULL, NULL, "y.org:8", "a.org>y.org:8"},
    {"a.org", NULL, NULL, NULL, "a.org>a.org:8448"},
    {"a.org", NULL, ".:0", NULL, ""},
};

static struct fed_world fw;

static struct err on_fetch(struct fed_world *world, const struct http_fetch_request *request,
                           struct http_fetch_reply *reply)
{
    const struct scene *scene = world->arg;
    assert_true(request->flags & HTTP_FETCH_HTTPS_ONLY);
    assert_true(request->redirects_max > 0 && request->redirects_max < 20);
    assert_true(slice_eq(request->url, LIT("https://a.org/.well-known/matrix/server")));
    if (!scene->wellknown) {
        return err_make(ERR_UNAVAILABLE, "refused");
    }
    *reply = fed_world_reply(world, 200, scene->wellknown, "");
    return OK;
}

static struct err on_srv(struct fed_world *world, struct slice service, struct slice host,
                         struct http_dns_srvs *srvs)
{
    const struct scene *scene = world->arg;
    bool is_new = slice_eq(service, LIT("_matrix-fed._tcp"));
    const char *text = is_new ? scene->srv_fed : scene->srv_old;
    uint64_t port = 0;
    struct slice target;
    bool delegated = scene->wellknown && strstr(scene->want, "b.org");
    assert_true(slice_eq(host, delegated ? LIT("b.org") : LIT("a.org")));
    if (!text) {
        return OK;
    }
    assert_true(slice_parse_u64(slice_cut(slice_of(text), ':', &target), &port));
    srvs->items = arena_alloc(world->world.ctx.arena, sizeof *srvs->items);
    srvs->items[0].port = (uint16_t)port;
    srvs->items[0].target = slice_eq(target, LIT(".")) ? (struct slice){0} : target;
    srvs->count = 1;
    return OK;
}

static struct slice resolve(const char *server)
{
    struct fed_finding finding = {.server = slice_of(server)};
    struct buf text;
    buf_init_arena(&text, fw.world.ctx.arena, 4096);
    struct err err = fed_destination_find(fw.fed, &fw.world.ctx, &finding);
    for (size_t i = 0; i < finding.count && !err.code; i++) {
        buf_add(&text, i ? LIT(" ") : LIT(""));
        buf_add(&text, finding.targets[i].authority);
        buf_add(&text, LIT(">"));
        buf_add(&text, finding.targets[i].connect_to);
    }
    return buf_slice(&text);
}

static void each_branch_leads_to_its_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(scenes); i++) {
        struct scene scene = scenes[i];
        fed_world_open(&fw);
        fw.arg = &scene;
        fw.on_fetch = on_fetch;
        fw.on_srv = on_srv;
        struct slice got = resolve(scene.server);
        if (!slice_eq(got, slice_of(scene.want))) {
            print_error("%zu %s: %.*s\n", i, scene.server, (int)got.len, got.ptr);
        }
        assert_true(slice_eq(got, slice_of(scene.want)));
        fed_world_close(&fw);
    }
}

static struct err answer_with(struct fed_world *world, const struct http_fetch_request *request,
                              struct http_fetch_reply *reply)
{
    const char *const *parts = world->arg;
    (void)request;
    *reply = fed_world_reply(world,
                             parts[0][0] == '2'   ? 200
                             : parts[0][0] == '4' ? 404
                                                  : 503,
                             parts[1], parts[2]);
    return OK;
}

struct cache_case {
    const char *parts[3];
    int64_t kept_ms; /* asked again after this time, not before */
};

static void answers_are_kept_as_their_headers_say(void **state)
{
    static const struct cache_case cases[] = {
        {{"200", "{\"m.server\":\"b.org:1\"}", ""}, 86400000},
        {{"200", "{\"m.server\":\"b.org:1\"}", "cache-control: public, Max-Age=3600"}, 3600000},
        {{"200", "{\"m.server\":\"b.org:1\"}", "Cache-Control: max-age=\"7200\""}, 7200000},
        {{"200", "{\"m.server\":\"b.org:1\"}", "Cache-Control: max-age=99999999999999999999"},
         86400000},
        {{"200", "{\"m.server\":\"b.org:1\"}", "Cache-Control: max-age=9999999"}, 172800000},
        {{"200", "{\"m.server\":\"b.org:1\"}", "Cache-Control: no-store"}, 60000},
        {{"200", "{\"m.server\":\"b.org:1\"}", "Expires: Tue, 14 Nov 2023 23:13:20 GMT"}, 3600000},
        {{"200", "{\"m.server\":\"b.org:1\"}", "Expires: 0"}, 60000},
        {{"200", "{}", "Cache-Control: max-age=3600"}, 60000},
        {{"404", "", "Cache-Control: max-age=3600"}, 60000},
        {{"503", "", ""}, 60000},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        fed_world_open(&fw);
        fw.arg = (void *)(uintptr_t)cases[i].parts;
        fw.on_fetch = answer_with;
        resolve("a.org");
        world_wait(&fw.world, cases[i].kept_ms - 1);
        resolve("a.org");
        assert_int_equal(fw.fetches, 1);
        world_wait(&fw.world, 2);
        resolve("a.org");
        assert_int_equal(fw.fetches, 2);
        fed_world_close(&fw);
    }
}

static void failures_are_repeated_less_and_less(void **state)
{
    (void)state;
    fed_world_open(&fw);
    for (int64_t minutes = 1; minutes <= 60; minutes = minutes == 32 ? 60 : minutes * 2) {
        resolve("a.org");
        unsigned before = fw.fetches;
        world_wait(&fw.world, minutes * 60000 - 1);
        resolve("a.org");
        assert_int_equal(fw.fetches, before);
        world_wait(&fw.world, 2);
        if (minutes == 60) {
            break;
        }
    }
    resolve("a.org");
    world_wait(&fw.world, 3600001); /* never more than an hour */
    unsigned before = fw.fetches;
    resolve("a.org");
    assert_int_equal(fw.fetches, before + 1);
    fed_world_close(&fw);
}

static void a_delegation_outlives_a_short_failure(void **state)
{
    static const char *good[] = {"200", "{\"m.server\":\"b.org:1\"}", ""};
    static const char *gone[] = {"404", "", ""};
    (void)state;
    fed_world_open(&fw);
    fw.arg = good;
    fw.on_fetch = answer_with;
    resolve("a.org");
    world_wait(&fw.world, 86400001);
    fw.on_fetch = NULL; /* not reachable */
    assert_true(slice_eq(resolve("a.org"), LIT("b.org:1>b.org:1")));
    world_wait(&fw.world, 3600001);
    fw.on_fetch = answer_with;
    fw.arg = gone; /* taken back */
    assert_true(slice_eq(resolve("a.org"), LIT("a.org>a.org:8448")));
    fed_world_close(&fw);
}

static struct err many_srv(struct fed_world *world, struct slice service, struct slice host,
                           struct http_dns_srvs *srvs)
{
    static struct http_dns_srv records[] = {{20, 1, 3, {"last.org", 8}},
                                            {10, 90, 1, {"often.org", 9}},
                                            {10, 10, 2, {"seldom.org", 10}},
                                            {10, 0, 9, {"bad name", 8}}};
    (void)world;
    (void)service;
    (void)host;
    *srvs = (struct http_dns_srvs){records, COUNT_OF(records)};
    return OK;
}

static void srv_targets_come_by_priority_and_weight(void **state)
{
    unsigned often = 0;
    (void)state;
    fed_world_open(&fw);
    fw.on_srv = many_srv;
    for (int i = 0; i < 1000; i++) {
        struct slice got = resolve("a.org");
        bool first = slice_eq(got, LIT("a.org>often.org:1 a.org>seldom.org:2 a.org>last.org:3"));
        bool second = slice_eq(got, LIT("a.org>seldom.org:2 a.org>often.org:1 a.org>last.org:3"));
        assert_true(first || second);
        often += first;
    }
    assert_true(often > 800 && often < 980);
    fed_world_close(&fw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_branch_leads_to_its_place),
        cmocka_unit_test(answers_are_kept_as_their_headers_say),
        cmocka_unit_test(failures_are_repeated_less_and_less),
        cmocka_unit_test(a_delegation_outlives_a_short_failure),
        cmocka_unit_test(srv_targets_come_by_priority_and_weight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
