/* The way to a server, with a DNS server and peers of the test's making: SRV records, aliases,
 * IPv6, .well-known and its redirects, addresses that lie. Each scene is played by a call that
 * blocks and by one that nobody waits for.
 * Spec: server-server, "Resolving server names". */
#include "federation/call_start.h"
#include "homeserver/http/selfsigned.h"
#include "homeserver/http/server.h"
#include "tests/support/fed_world.h"
#include "tests/support/names.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { HOUSES = 3, SIX = 2, RECORDS = 32, TEXT_BYTES = 128, PORTS = HOUSES + 1, CLOSED = HOUSES };

/* Peers A and B on 127.0.0.1, C on ::1. */
struct house {
    char letter;
    struct http_server *server;
};

static struct fed_world fw;
static struct http_fetcher *fetcher;
static struct names *names;
static struct house houses[HOUSES];
static struct workers *workers;
static struct now now;
static struct log *log_quiet;
static unsigned ports[PORTS]; /* the last one is nobody's */
static char folder[64];
static char texts[RECORDS][TEXT_BYTES];
static struct name_record records[RECORDS];
static size_t record_count;
static const char *_Atomic delegation; /* what .well-known of wk.org says */
static _Atomic unsigned asked;         /* how often */

static struct err say_where(void *app, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply)
{
    const struct house *house = app;
    struct slice text = arena_printf(ctx->arena, "{\"reached\":\"%c %.*s\"}", house->letter,
                                     (int)request->host.len, request->host.ptr);
    buf_add(&reply->body, text);
    return OK;
}

/* A text that begins with "https:" is a redirect. */
static struct err delegate(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct slice text = slice_of(delegation);
    (void)app;
    (void)ctx;
    (void)request;
    asked++;
    if (slice_has_prefix(text, LIT("https:"))) {
        reply->status = 302;
        http_reply_header(reply, LIT("Location"), text);
        return OK;
    }
    buf_add(&reply->body, text);
    return OK;
}

static struct err moved(void *app, struct ctx *ctx, const struct http_request *request,
                        struct http_reply *reply)
{
    (void)app;
    (void)request;
    buf_add(&reply->body, arena_printf(ctx->arena, "{\"m.server\":\"b.org:%u\"}", ports[1]));
    return OK;
}

static const struct http_route routes[] = {
    {.method = HTTP_GET, .path = "/_matrix/federation/v1/version", .handler = say_where},
    {.method = HTTP_GET, .path = "/.well-known/matrix/server", .handler = delegate},
    {.method = HTTP_GET, .path = "/moved", .handler = moved},
};
static const struct http_route_table table = {routes, COUNT_OF(routes)};

/* --- the scene --- */

static void add(const char *name, const char *type, const char *data)
{
    snprintf(texts[record_count], TEXT_BYTES, "%s", data);
    records[record_count] = (struct name_record){name, type, texts[record_count], 300};
    record_count++;
}

static void add_service(const char *name, unsigned priority, unsigned port, const char *target)
{
    char text[TEXT_BYTES];
    snprintf(text, sizeof text, "%u 10 %u %s", priority, port, target);
    add(name, "SRV", text);
}

static void fill_names(void)
{
    record_count = 0;
    add("a.org", "A", "127.0.0.1");
    add("b.org", "A", "127.0.0.1");
    add("six.org", "AAAA", "::1");
    add("alias.org", "CNAME", "a.org");
    add("inside.org", "A", "10.1.2.3");
    add("inside6.org", "AAAA", "fd00::1");
    /* both services */
    add_service("_matrix-fed._tcp.both.org", 10, ports[0], "a.org");
    add_service("_matrix._tcp.both.org", 10, ports[1], "b.org");
    add_service("_matrix._tcp.old.org", 10, ports[1], "b.org");
    /* the first in order is dead */
    add_service("_matrix-fed._tcp.spare.org", 20, ports[1], "b.org");
    add_service("_matrix-fed._tcp.spare.org", 10, ports[CLOSED], "a.org");
    add_service("_matrix-fed._tcp.order.org", 30, ports[1], "b.org");
    add_service("_matrix-fed._tcp.order.org", 5, ports[0], "a.org");
    add_service("_matrix-fed._tcp.none.org", 0, 0, "");
    add_service("_matrix-fed._tcp.toalias.org", 10, ports[0], "alias.org");
    add_service("_matrix-fed._tcp.half.org", 10, ports[0], "alias.org");
    add_service("_matrix-fed._tcp.half.org", 20, ports[1], "b.org");
    add_service("_matrix-fed._tcp.srv6.org", 10, ports[SIX], "six.org");
    add_service("_matrix-fed._tcp.noaddress.org", 10, ports[0], "nowhere.org");
    add_service("_matrix-fed._tcp.trap.org", 10, ports[0], "inside.org");
    add_service("_matrix-fed._tcp.deleg.org", 10, ports[0], "a.org");
    assert_true(record_count <= RECORDS);
}

static void open_house(size_t index)
{
    char certificate[96];
    char key[96];
    struct house *house = &houses[index];
    struct http_listener listener = {.host = index == SIX ? LIT("::1") : LIT("127.0.0.1"),
                                     .tls = true};
    snprintf(certificate, sizeof certificate, "%s/cert.pem", folder);
    snprintf(key, sizeof key, "%s/key.pem", folder);
    if (index == 0) {
        struct err made = http_selfsigned_make(slice_of(certificate), slice_of(key), LIT("a.org"));
        assert_int_equal(made.code, 0);
    }
    const struct http_server_config config = {.listeners = &listener,
                                              .listener_count = 1,
                                              .tls_certificate = slice_of(certificate),
                                              .tls_key = slice_of(key),
                                              .loop_count = 1,
                                              .connection_max_per_address = 200,
                                              .tables = &table,
                                              .table_count = 1,
                                              .app = house,
                                              .workers = workers,
                                              .now = &now,
                                              .log = log_quiet};
    house->letter = (char)('A' + index);
    assert_int_equal(http_server_new(&config, &house->server).code, 0);
    assert_int_equal(http_server_start(house->server).code, 0);
    ports[index] = http_server_port(house->server, 0);
}

static void open_fed(void)
{
    static const struct slice allowed[] = {{"127.0.0.1/32", 12}, {"::1/128", 7}};
    char dns[32];
    snprintf(dns, sizeof dns, "127.0.0.1:%u", names_port(names));
    fed_world_open(&fw);
    fed_free(&fw.fed);
    const struct http_fetch_override override = {
        LIT("wk.org"), arena_printf(fw.world.ctx.arena, "127.0.0.1:%u", ports[0])};
    const struct http_fetch_config config = {.thread_count = 3,
                                             .dns_server = slice_of(dns),
                                             .skip_tls_checks = true,
                                             .allow = allowed,
                                             .allow_count = COUNT_OF(allowed),
                                             .overrides = &override,
                                             .override_count = 1};
    assert_int_equal(http_fetcher_new(&config, &fetcher).code, 0);
    fw.world.hs.fetcher = fetcher;
    assert_int_equal(fed_new(&fw.world.hs, &fw.fed).code, 0);
    fw.fed->senders = workers_new("sender", 2, 1000);
}

static void close_fed(void)
{
    http_fetcher_stop(fetcher);
    workers_join(fw.fed->senders);
    http_fetcher_await(fetcher);
    fed_world_close(&fw);
    http_fetcher_free(&fetcher);
}

static int start(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/destination-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    now = now_system();
    log_quiet = log_new(LOG_LEVEL_ERROR, STDERR_FILENO);
    workers = workers_new("peer", 2, 1000);
    for (size_t i = 0; i < HOUSES; i++) {
        open_house(i);
    }
    ports[CLOSED] = 1; /* tcpmux: nobody listens there */
    fill_names();
    names = names_open(records, record_count);
    open_fed();
    delegation = "{}";
    asked = 0;
    return 0;
}

static int stop(void **state)
{
    char path[96];
    (void)state;
    close_fed();
    names_close(&names);
    for (size_t i = 0; i < HOUSES; i++) {
        http_server_stop(houses[i].server, 0);
    }
    workers_free(&workers);
    for (size_t i = 0; i < HOUSES; i++) {
        http_server_free(&houses[i].server);
    }
    log_free(&log_quiet);
    snprintf(path, sizeof path, "%s/cert.pem", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/key.pem", folder);
    unlink(path);
    rmdir(folder);
    return 0;
}

/* --- calls --- */

enum way { WAY_BLOCKING, WAY_UNWATCHED, WAYS };

struct told {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_told;
    char text[TEXT_BYTES];
};

/* "A host" of who was reached, or the error's text. */
static void note(char *text, struct err err, const struct fed_answer *answer)
{
    struct slice reached = json_get_string(&answer->json, LIT("reached"));
    if (err.code) {
        snprintf(text, TEXT_BYTES, "%s", err.text);
    } else {
        snprintf(text, TEXT_BYTES, "%.*s", (int)reached.len, reached.ptr);
    }
}

static void on_called(void *arg, struct ctx *ctx, struct err err, const struct fed_answer *answer)
{
    struct told *told = arg;
    (void)ctx;
    pthread_mutex_lock(&told->lock);
    note(told->text, err, answer);
    told->is_told = true;
    pthread_cond_signal(&told->changed);
    pthread_mutex_unlock(&told->lock);
}

static const char *reach(const char *server, enum way way)
{
    static struct told told = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, ""};
    struct fed_call call = {.destination = slice_of(server),
                            .path = LIT("/_matrix/federation/v1/version"),
                            .timeout_ms = 20000,
                            .flags = FED_CALL_UNSIGNED | FED_CALL_ANYWAY};
    told.is_told = false;
    if (way == WAY_BLOCKING) {
        struct fed_answer answer = {0};
        struct err err = fed_call(fw.fed, &fw.world.ctx, &call, &answer);
        note(told.text, err, &answer);
        return told.text;
    }
    const struct fed_called called = {.fn = on_called, .arg = &told};
    fed_call_start(fw.fed, &call, &called);
    pthread_mutex_lock(&told.lock);
    while (!told.is_told) {
        pthread_cond_wait(&told.changed, &told.lock);
    }
    pthread_mutex_unlock(&told.lock);
    return told.text;
}

/* Both ways, each with nothing known beforehand. */
static void check(const char *server, const char *want)
{
    for (enum way way = WAY_BLOCKING; way < WAYS; way++) {
        close_fed();
        open_fed();
        assert_string_equal(reach(server, way), want);
    }
}

static const char *with_port(const char *name, size_t house)
{
    static char text[TEXT_BYTES];
    snprintf(text, sizeof text, "%s:%u", name, ports[house]);
    return text;
}

static void check_with_port(const char *name, size_t house)
{
    char server[TEXT_BYTES];
    char want[TEXT_BYTES + 4];
    snprintf(server, sizeof server, "%s", with_port(name, house));
    snprintf(want, sizeof want, "%c %s", (char)('A' + house), server);
    check(server, want);
}

/* --- SRV --- */

static void the_newer_service_goes_before_the_deprecated_one(void **state)
{
    (void)state;
    check("both.org", "A both.org");
    assert_int_equal(names_asked(names, "_matrix._tcp.both.org", "SRV"), 0);
    check("old.org", "B old.org");
    assert_int_equal(names_asked(names, "_matrix-fed._tcp.old.org", "SRV"), WAYS);
}

static void services_are_tried_in_the_order_of_their_priorities(void **state)
{
    (void)state;
    check("order.org", "A order.org");
    check("spare.org", "B spare.org");
}

static void a_service_that_is_not_offered_is_not_looked_for_elsewhere(void **state)
{
    (void)state;
    check("none.org", "the server's SRV record says that it does not federate");
}

static void a_service_at_an_alias_is_refused(void **state)
{
    (void)state;
    check("toalias.org", "the target of the server's SRV record is an alias");
    check("half.org", "B half.org"); /* the next one is good */
    check_with_port("alias.org", 0); /* a name with a port may be one */
}

static void a_service_without_an_address_is_not_reached(void **state)
{
    (void)state;
    check("noaddress.org", "the server's name has no address");
}

static void services_are_kept_for_a_while(void **state)
{
    (void)state;
    assert_string_equal(reach("both.org", WAY_UNWATCHED), "A both.org");
    assert_string_equal(reach("both.org", WAY_UNWATCHED), "A both.org");
    assert_string_equal(reach("both.org", WAY_BLOCKING), "A both.org");
    assert_int_equal(names_asked(names, "_matrix-fed._tcp.both.org", "SRV"), 1);
    assert_int_equal(names_asked(names, "a.org", "A"), 1);
}

/* --- addresses --- */

static void peers_with_ipv6_alone_are_reached(void **state)
{
    (void)state;
    check_with_port("six.org", SIX);
    check_with_port("[::1]", SIX);
    check("srv6.org", "C srv6.org");
}

static void names_that_lie_inside_are_refused(void **state)
{
    (void)state;
    check("inside.org:8448", "the address is not allowed");
    check("inside6.org:8448", "the address is not allowed");
    check("trap.org", "the address is not allowed");
    check("[fd00::1]:8448", "the address is not allowed");
    check("169.254.169.254:80", "the address is not allowed");
}

/* The name was good when it was looked at first. */
static void a_name_that_turns_inside_later_is_refused(void **state)
{
    static const struct name_record turned[] = {{"b.org", "A", "10.0.0.1", 1}};
    (void)state;
    for (enum way way = WAY_BLOCKING; way < WAYS; way++) {
        close_fed();
        open_fed();
        names_change(names, records, record_count);
        assert_int_equal(strncmp(reach(with_port("b.org", 1), way), "B ", 2), 0);
        names_change(names, turned, COUNT_OF(turned));
        close_fed(); /* in place of waiting until the answer is old */
        open_fed();
        assert_string_equal(reach(with_port("b.org", 1), way), "the address is not allowed");
    }
}

static void dns_that_fails_or_is_silent_ends_soon(void **state)
{
    int64_t began_us = now_mono_us();
    (void)state;
    names_behave(names, NAMES_FAIL);
    assert_string_equal(reach(with_port("b.org", 1), WAY_UNWATCHED), "DNS gives no answer");
    names_behave(names, NAMES_SILENT);
    assert_string_equal(reach(with_port("a.org", 0), WAY_UNWATCHED), "DNS gives no answer");
    assert_true(now_mono_us() - began_us < 15000000);
    names_behave(names, NAMES_ANSWER);
    assert_int_equal(strncmp(reach(with_port("b.org", 1), WAY_UNWATCHED), "B ", 2), 0);
}

static void stopping_ends_calls_whose_questions_are_open(void **state)
{
    struct told told = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, ""};
    struct fed_call call = {
        .destination = LIT("both.org"), .path = LIT("/"), .flags = FED_CALL_UNSIGNED};
    const struct fed_called called = {.fn = on_called, .arg = &told};
    (void)state;
    names_behave(names, NAMES_SILENT);
    fed_call_start(fw.fed, &call, &called);
    http_fetcher_stop(fetcher);
    pthread_mutex_lock(&told.lock);
    while (!told.is_told) {
        pthread_cond_wait(&told.changed, &told.lock);
    }
    pthread_mutex_unlock(&told.lock);
    assert_non_null(strstr(told.text, "stop"));
}

/* --- .well-known --- */

static void a_delegation_leads_on_and_is_kept(void **state)
{
    char text[TEXT_BYTES];
    char want[TEXT_BYTES];
    (void)state;
    snprintf(text, sizeof text, "{\"m.server\":\"b.org:%u\"}", ports[1]);
    snprintf(want, sizeof want, "B b.org:%u", ports[1]);
    delegation = text;
    assert_string_equal(reach("wk.org", WAY_UNWATCHED), want);
    assert_string_equal(reach("wk.org", WAY_BLOCKING), want);
    assert_int_equal(asked, 1);
    delegation = "{\"m.server\":\"deleg.org\"}";
    check("wk.org", "A deleg.org"); /* by its SRV record */
}

static void a_delegation_is_found_behind_a_redirect(void **state)
{
    char text[TEXT_BYTES];
    char want[TEXT_BYTES];
    (void)state;
    snprintf(text, sizeof text, "https://127.0.0.1:%u/moved", ports[1]);
    snprintf(want, sizeof want, "B b.org:%u", ports[1]);
    delegation = text;
    check("wk.org", want);
}

/* gomatrixserverlib CVE-2024-52594. */
static void a_redirect_of_the_delegation_to_the_inside_is_not_followed(void **state)
{
    (void)state;
    delegation = "https://10.0.0.1/moved";
    for (enum way way = WAY_BLOCKING; way < WAYS; way++) {
        close_fed();
        open_fed();
        reach("wk.org", way); /* goes on without a delegation: to port 8448 of wk.org */
        assert_int_equal(names_asked(names, "_matrix-fed._tcp.wk.org", "SRV"), way + 1);
    }
}

int main(void)
{
#define DESTINATION_TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        DESTINATION_TEST(the_newer_service_goes_before_the_deprecated_one),
        DESTINATION_TEST(services_are_tried_in_the_order_of_their_priorities),
        DESTINATION_TEST(a_service_that_is_not_offered_is_not_looked_for_elsewhere),
        DESTINATION_TEST(a_service_at_an_alias_is_refused),
        DESTINATION_TEST(a_service_without_an_address_is_not_reached),
        DESTINATION_TEST(services_are_kept_for_a_while),
        DESTINATION_TEST(peers_with_ipv6_alone_are_reached),
        DESTINATION_TEST(names_that_lie_inside_are_refused),
        DESTINATION_TEST(a_name_that_turns_inside_later_is_refused),
        DESTINATION_TEST(dns_that_fails_or_is_silent_ends_soon),
        DESTINATION_TEST(stopping_ends_calls_whose_questions_are_open),
        DESTINATION_TEST(a_delegation_leads_on_and_is_kept),
        DESTINATION_TEST(a_delegation_is_found_behind_a_redirect),
        DESTINATION_TEST(a_redirect_of_the_delegation_to_the_inside_is_not_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
