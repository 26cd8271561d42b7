#include "homeserver/http/fetch.h"

#include "tests/support/http_harness.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static struct arena *arena;
static struct now now;

static struct ctx new_ctx(void)
{
    now = now_system();
    arena = arena_new();
    return (struct ctx){.arena = arena, .now = &now};
}

enum trust { TRUST_HARNESS, TRUST_SYSTEM, TRUST_ALL };

static struct http_fetcher *new_trusting_fetcher(struct harness *harness, enum trust trust)
{
    struct slice addresses =
        arena_printf(arena, "127.0.0.1:%u", http_server_port(harness->server, HARNESS_TLS));
    const struct http_fetch_override overrides[] = {{LIT("example.org"), addresses}};
    const struct http_fetch_config config = {
        .ca_files = (struct slice[]){slice_of(harness->certificate)},
        .ca_file_count = trust == TRUST_HARNESS,
        .skip_tls_checks = trust == TRUST_ALL,
        .overrides = overrides,
        .thread_count = 3,
        .override_count = 1,
    };
    struct http_fetcher *fetcher = NULL;
    struct err err = http_fetcher_new(&config, &fetcher);
    assert_int_equal(err.code, 0);
    return fetcher;
}

static struct http_fetcher *new_fetcher(struct harness *harness)
{
    return new_trusting_fetcher(harness, TRUST_HARNESS);
}

static struct slice url_of(struct harness *harness, const char *path)
{
    return arena_printf(arena, "http://127.0.0.1:%u%s",
                        http_server_port(harness->server, HARNESS_PLAIN), path);
}

static struct err count_bytes(void *arg, struct slice bytes)
{
    *(size_t *)arg += bytes.len;
    return OK;
}

static void answers_come_whole_or_in_pieces(void **state)
{
    struct ctx ctx = new_ctx();
    struct http_fetcher *fetcher = new_fetcher(*state);
    const struct http_header headers[] = {{LIT("Content-Type"), LIT("application/json")}};
    struct http_fetch_request request = {
        .method = LIT("PUT"),
        .url = url_of(*state, "/_matrix/client/v3/echo"),
        .headers = headers,
        .header_count = 1,
        .body = LIT("{\"a\":[1]}"),
        .flags = HTTP_FETCH_ANY_ADDRESS,
    };
    struct http_fetch_reply reply;
    size_t bytes = 0;
    for (int i = 0; i < 3; i++) {
        struct err err = http_fetch(fetcher, &ctx, &request, &reply);
        assert_int_equal(err.code, 0);
        assert_int_equal(reply.status, 200);
        assert_true(slice_eq(reply.body, LIT("{\"a\":[1]}")));
        assert_true(slice_eq(reply.content_type, LIT("application/json")));
        assert_true(
            slice_eq(http_fetch_header(&reply, LIT("access-control-allow-origin")), LIT("*")));
    }
    request = (struct http_fetch_request){.url = url_of(*state, "/big"),
                                          .flags = HTTP_FETCH_ANY_ADDRESS,
                                          .sink = count_bytes,
                                          .sink_arg = &bytes};
    struct err err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, 0);
    assert_int_equal(bytes, 40000);
    request.url = url_of(*state, "/nowhere");
    err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, 0);
    assert_int_equal(reply.status, 404);
    assert_true(slice_contains(reply.body, LIT("M_UNRECOGNIZED")));
    http_fetcher_free(&fetcher);
    arena_free(&arena);
}

/* Synapse CVE-2021-21273. */
static void limits_and_forbidden_addresses_are_kept(void **state)
{
    struct ctx ctx = new_ctx();
    struct http_fetcher *fetcher = new_fetcher(*state);
    struct http_fetch_request request = {
        .url = url_of(*state, "/big"),
        .flags = HTTP_FETCH_ANY_ADDRESS,
    };
    struct http_fetch_reply reply;
    struct err err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, 0);
    request.flags = 0; /* also over the connection that is kept open */
    err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_string_equal(err.text, "the address is not allowed");
    request.flags = HTTP_FETCH_ANY_ADDRESS;
    request.body_bytes_max = 39999;
    err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, ERR_LIMIT);
    request.url = url_of(*state, "/slow");
    request.timeout_ms = 20;
    err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, ERR_TIMEOUT);
    request.url = LIT("http://127.0.0.1:1/");
    request.timeout_ms = 5000;
    err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    request.url = LIT("file:///etc/passwd");
    err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    http_fetcher_free(&fetcher);
    arena_free(&arena);
}

static void a_named_host_is_reached_at_another_address_by_tls(void **state)
{
    struct ctx ctx = new_ctx();
    struct http_fetcher *fetcher = new_fetcher(*state);
    struct http_fetch_request request = {.url = LIT("https://example.org/big"),
                                         .flags = HTTP_FETCH_HTTPS_ONLY};
    struct http_fetch_reply reply;
    struct err err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, 0);
    assert_int_equal(reply.body.len, 40000);
    request.url = LIT("https://matrix.test/big"); /* connected, but the certificate is another's */
    request.connect_to = LIT("example.org:8448");
    err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    http_fetcher_free(&fetcher);
    arena_free(&arena);
}

static void a_certificate_of_a_strange_authority_is_refused_each_time(void **state)
{
    struct ctx ctx = new_ctx();
    struct http_fetcher *fetcher = new_trusting_fetcher(*state, TRUST_SYSTEM);
    const struct http_fetch_request request = {.url = LIT("https://example.org/big")};
    struct http_fetch_reply reply;
    for (int i = 0; i < 2; i++) {
        struct err err = http_fetch(fetcher, &ctx, &request, &reply);
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        assert_non_null(strstr(err.text, "authority"));
    }
    http_fetcher_free(&fetcher);
    fetcher = new_trusting_fetcher(*state, TRUST_ALL);
    assert_int_equal(http_fetch(fetcher, &ctx, &request, &reply).code, 0);
    http_fetcher_free(&fetcher);
    arena_free(&arena);
}

static void a_file_without_authorities_is_refused(void **state)
{
    struct http_fetcher *fetcher = NULL;
    const struct slice files[] = {LIT("/etc/hostname"), LIT("/nowhere")};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        const struct http_fetch_config config = {.ca_files = &files[i], .ca_file_count = 1};
        assert_int_equal(http_fetcher_new(&config, &fetcher).code, ERR_IO);
    }
}

/* The server closes; the fetcher has not looked since. */
static void an_open_connection_is_known_by_its_peer(void **state)
{
    struct harness *harness = *state;
    struct ctx ctx = new_ctx();
    struct http_fetcher *fetcher = new_fetcher(harness);
    struct http_fetch_request request = {
        .url = url_of(harness, "/_matrix/client/versions"),
        .peer = LIT("peer.org"),
        .flags = HTTP_FETCH_ANY_ADDRESS,
    };
    struct http_fetch_reply reply;
    assert_false(http_fetch_is_linked(fetcher, LIT("peer.org")));
    assert_int_equal(http_fetch(fetcher, &ctx, &request, &reply).code, 0);
    assert_true(http_fetch_is_linked(fetcher, LIT("peer.org")));
    assert_false(http_fetch_is_linked(fetcher, LIT("other.org")));
    http_server_stop(harness->server, 0);
    assert_false(http_fetch_is_linked(fetcher, LIT("peer.org")));
    http_fetcher_free(&fetcher);
    arena_free(&ctx.arena);
}

static void *stop_later(void *arg)
{
    struct harness *harness = ((void **)arg)[0];
    assert_true(harness_wait(&harness->parked, 1));
    http_fetcher_stop(((void **)arg)[1]);
    return NULL;
}

static void stopping_cancels_what_runs(void **state)
{
    struct ctx ctx = new_ctx();
    struct http_fetcher *fetcher = new_fetcher(*state);
    struct http_fetch_request request = {.url = url_of(*state, "/_matrix/client/v3/park"),
                                         .flags = HTTP_FETCH_ANY_ADDRESS};
    struct http_fetch_reply reply;
    void *args[] = {*state, fetcher};
    pthread_t thread;
    pthread_create(&thread, NULL, stop_later, args);
    struct err err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, ERR_CANCELLED);
    pthread_join(thread, NULL);
    err = http_fetch(fetcher, &ctx, &request, &reply);
    assert_int_equal(err.code, ERR_CANCELLED);
    http_fetcher_free(&fetcher);
    arena_free(&arena);
}

int main(void)
{
#define FETCH_TEST(name) cmocka_unit_test_setup_teardown(name, harness_start, harness_stop)
    const struct CMUnitTest tests[] = {
        FETCH_TEST(answers_come_whole_or_in_pieces),
        FETCH_TEST(limits_and_forbidden_addresses_are_kept),
        FETCH_TEST(a_named_host_is_reached_at_another_address_by_tls),
        FETCH_TEST(a_certificate_of_a_strange_authority_is_refused_each_time),
        FETCH_TEST(a_file_without_authorities_is_refused),
        FETCH_TEST(an_open_connection_is_known_by_its_peer),
        FETCH_TEST(stopping_cancels_what_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
