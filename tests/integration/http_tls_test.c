#include "homeserver/http/selfsigned.h"
#include "tests/support/http_harness.h"

#include <gnutls/gnutls.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define UPGRADE                                                                                    \
    "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"                 \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: test.v1\r\n"                             \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

struct client {
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
    int fd;
};

static char got[70000];

static struct client open_tls(struct harness *harness)
{
    struct client client = {.fd = harness_connect(harness, HARNESS_TLS)};
    const gnutls_datum_t alpn = {(unsigned char *)(uintptr_t) "http/1.1", 8};
    gnutls_certificate_allocate_credentials(&client.credentials);
    assert_true(gnutls_certificate_set_x509_trust_file(client.credentials, harness->certificate,
                                                       GNUTLS_X509_FMT_PEM) > 0);
    gnutls_init(&client.session, GNUTLS_CLIENT);
    gnutls_set_default_priority(client.session);
    gnutls_alpn_set_protocols(client.session, &alpn, 1, GNUTLS_ALPN_MANDATORY);
    gnutls_credentials_set(client.session, GNUTLS_CRD_CERTIFICATE, client.credentials);
    gnutls_session_set_verify_cert(client.session, "example.org", 0);
    gnutls_transport_set_int(client.session, client.fd);
    gnutls_handshake_set_timeout(client.session, 5000);
    assert_int_equal(gnutls_handshake(client.session), 0);
    return client;
}

static void close_tls(struct client *client)
{
    gnutls_deinit(client->session);
    gnutls_certificate_free_credentials(client->credentials);
    close(client->fd);
}

static void say(struct client *client, struct slice bytes)
{
    while (bytes.len) {
        ssize_t sent = gnutls_record_send(client->session, bytes.ptr, bytes.len);
        assert_true(sent > 0);
        bytes = slice_from(bytes, (size_t)sent);
    }
}

/* Reads until the text has come. */
static void hear(struct client *client, const char *text, size_t len)
{
    size_t at = 0;
    memset(got, 0, sizeof got);
    while (!memmem(got, at, text, len)) {
        ssize_t part = gnutls_record_recv(client->session, got + at, sizeof got - at);
        if (part == GNUTLS_E_AGAIN || part == GNUTLS_E_INTERRUPTED) {
            continue;
        }
        assert_true(part > 0);
        at += (size_t)part;
    }
}

static void https_answers_and_knows_the_peer(void **state)
{
    struct client client = open_tls(*state);
    for (int i = 0; i < 5; i++) {
        say(&client, LIT("GET /_matrix/client/v3/rooms/a/state/b HTTP/1.1\r\nHost: a\r\n\r\n"));
        hear(&client, "\"from\":\"127.0.0.1\"}", 19);
        assert_non_null(strstr(got, "HTTP/1.1 200 OK"));
    }
    say(&client, LIT("GET /big HTTP/1.1\r\nHost: a\r\n\r\n"));
    hear(&client, "Content-Length: 40000\r\n", 23);
    close_tls(&client);
}

static void refusals_have_the_one_shape(void **state)
{
    static char header[20000];
    struct client client = open_tls(*state);
    memset(header, 'a', sizeof header);
    say(&client, LIT("GET / HTTP/1.1\r\nHost: a\r\nX: "));
    say(&client, (struct slice){header, sizeof header});
    hear(&client, "}", 1);
    assert_non_null(strstr(got, "HTTP/1.1 431 "));
    assert_non_null(strstr(got, "\"errcode\":\"M_TOO_LARGE\""));
    close_tls(&client);
}

static void uploads_pass(void **state)
{
    static char block[100000];
    struct client client = open_tls(*state);
    say(&client, LIT("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n"));
    for (int i = 0; i < 50; i++) {
        say(&client, (struct slice){block, sizeof block});
    }
    hear(&client, "{\"bytes\":5000000}", 17);
    close_tls(&client);
}

/* Nothing may be left to read, so that what comes next is the reply. */
static void gated_round(struct harness *harness, struct client *client, struct slice request,
                        const char *answer)
{
    int count = harness->opened + 1;
    struct pollfd wait = {.fd = client->fd, .events = POLLIN};
    harness->client_fd = client->fd;
    assert_int_equal(poll(&wait, 1, 0), 0);
    say(client, request);
    assert_true(harness_wait(&harness->opened, count));
    hear(client, answer, strlen(answer));
}

static void a_gate_opens_behind_tls(void **state)
{
    struct harness *harness = *state;
    struct client client = open_tls(harness);
    say(&client, LIT("GET /none HTTP/1.1\r\nHost: a\r\n\r\n"));
    hear(&client, "}", 1);
    for (int i = 0; i < 20; i++) {
        gated_round(harness, &client, LIT("GET /gated HTTP/1.1\r\nHost: a\r\n\r\n"), "{}");
    }
    say(&client, LIT(UPGRADE));
    hear(&client, "\r\n\r\n", 4);
    for (int i = 0; i < 20; i++) {
        gated_round(harness, &client, LIT("\x81\x85\0\0\0\0gated"), "gated");
    }
    assert_int_equal(harness->opened_early, 0);
    close_tls(&client);
}

static void wss_echoes_and_notices_the_end(void **state)
{
    struct harness *harness = *state;
    struct client client = open_tls(harness);
    say(&client, LIT(UPGRADE));
    hear(&client, "\r\n\r\n", 4);
    assert_non_null(strstr(got, "HTTP/1.1 101"));
    for (int i = 0; i < 10; i++) {
        say(&client, LIT("\x81\x83\0\0\0\0abc"));
        hear(&client, "echo:abc", 8);
    }
    close_tls(&client);
    assert_true(harness_wait(&harness->closed, 1));
}

static void a_parked_request_notices_a_lost_client(void **state)
{
    struct harness *harness = *state;
    struct client client = open_tls(harness);
    say(&client, LIT("GET /_matrix/client/v3/park HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(harness_wait(&harness->parked, 1));
    close_tls(&client);
    assert_true(harness_wait(&harness->expired, 1));
}

static void a_client_that_does_not_shake_hands_is_cut(void **state)
{
    int fd = harness_connect(*state, HARNESS_TLS);
    assert_true(harness_closed(fd));
    close(fd);
    fd = harness_connect(*state, HARNESS_TLS);
    harness_write(fd, LIT("GET / HTTP/1.1\r\n\r\n"));
    assert_true(harness_closed(fd));
    close(fd);
}

static void certificates_are_replaced_while_serving(void **state)
{
    struct harness *harness = *state;
    struct client old = open_tls(harness);
    struct err err = http_selfsigned_make(slice_of(harness->certificate), slice_of(harness->key),
                                          LIT("example.org"));
    assert_int_equal(err.code, 0);
    err = http_server_reload(harness->server);
    assert_int_equal(err.code, 0);
    struct client fresh = open_tls(harness); /* trusts the new file only */
    say(&fresh, LIT("GET /big HTTP/1.1\r\nHost: a\r\n\r\n"));
    hear(&fresh, "200 OK", 6);
    say(&old, LIT("GET /big HTTP/1.1\r\nHost: a\r\n\r\n"));
    hear(&old, "200 OK", 6);
    unlink(harness->key);
    err = http_server_reload(harness->server);
    assert_int_equal(err.code, ERR_IO);
    close_tls(&old);
    close_tls(&fresh);
}

int main(void)
{
#define TLS_TEST(name) cmocka_unit_test_setup_teardown(name, harness_start, harness_stop)
    const struct CMUnitTest tests[] = {
        TLS_TEST(https_answers_and_knows_the_peer),
        TLS_TEST(refusals_have_the_one_shape),
        TLS_TEST(uploads_pass),
        TLS_TEST(a_gate_opens_behind_tls),
        TLS_TEST(wss_echoes_and_notices_the_end),
        TLS_TEST(a_parked_request_notices_a_lost_client),
        cmocka_unit_test_setup_teardown(a_client_that_does_not_shake_hands_is_cut,
                                        harness_start_hasty, harness_stop),
        TLS_TEST(certificates_are_replaced_while_serving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
