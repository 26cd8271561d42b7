/* A peer that offers HTTP/2 gets it: the smallest one that answers, over TLS. */
#include "homeserver/http/fetch.h"
#include "homeserver/http/selfsigned.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { FRAME_HEAD = 9, FRAME_MAX = 16384, PREFACE = 24, REQUESTS = 3 };
enum frame { FRAME_DATA = 0, FRAME_HEADERS = 1, FRAME_SETTINGS = 4 };
enum { END_STREAM = 1, END_HEADERS = 4, ACK = 1 };

/* Takes one connection. */
static struct {
    int listener;
    uint16_t port;
    pthread_t thread;
    gnutls_certificate_credentials_t credentials;
    const char *offers; /* the protocol */
    char chosen[16];
    unsigned connections, requests;
} peer;

static char folder[64], certificate[96], key[96];

static bool receive(gnutls_session_t session, uint8_t *bytes, size_t len)
{
    for (size_t got = 0; got < len;) {
        ssize_t now_got = gnutls_record_recv(session, bytes + got, len - got);
        if (now_got <= 0) {
            return false;
        }
        got += (size_t)now_got;
    }
    return true;
}

struct frame_out {
    enum frame type;
    uint8_t flags, stream;
    const char *text;
};

static void send_frame(gnutls_session_t session, struct frame_out frame)
{
    uint8_t bytes[64] = {0};
    size_t len = strlen(frame.text);
    bytes[2] = (uint8_t)len;
    bytes[3] = (uint8_t)frame.type;
    bytes[4] = frame.flags;
    bytes[8] = frame.stream;
    memcpy(bytes + FRAME_HEAD, frame.text, len);
    gnutls_record_send(session, bytes, FRAME_HEAD + len);
}

/* Answers each request, once it is whole, with 200 and "{}". */
static void speak_http2(gnutls_session_t session)
{
    uint8_t head[PREFACE];
    uint8_t payload[FRAME_MAX];
    assert_true(receive(session, head, PREFACE));
    assert_memory_equal(head, "PRI * HTTP/2.0", 14);
    send_frame(session, (struct frame_out){FRAME_SETTINGS, 0, 0, ""});
    while (receive(session, head, FRAME_HEAD)) {
        size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        if (len > sizeof payload || !receive(session, payload, len)) {
            return;
        }
        if (head[3] == FRAME_SETTINGS && !(head[4] & ACK)) {
            send_frame(session, (struct frame_out){FRAME_SETTINGS, ACK, 0, ""});
        }
        bool carries = head[3] == FRAME_HEADERS || head[3] == FRAME_DATA;
        if (carries && (head[4] & END_STREAM)) { /* 0x88 stands for ":status: 200" */
            peer.requests++;
            send_frame(session, (struct frame_out){FRAME_HEADERS, END_HEADERS, head[8], "\x88"});
            send_frame(session, (struct frame_out){FRAME_DATA, END_STREAM, head[8], "{}"});
        }
    }
}

static void speak_http1(gnutls_session_t session)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    char request[4096];
    while (gnutls_record_recv(session, request, sizeof request) > 0) {
        peer.requests++;
        gnutls_record_send(session, answer, sizeof answer - 1);
    }
}

static void *serve(void *arg)
{
    gnutls_session_t session;
    gnutls_datum_t chosen = {0};
    gnutls_datum_t offer = {(unsigned char *)(uintptr_t)peer.offers, (unsigned)strlen(peer.offers)};
    int fd = accept(peer.listener, NULL, NULL);
    (void)arg;
    peer.connections++;
    gnutls_init(&session, GNUTLS_SERVER);
    gnutls_set_default_priority(session);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, peer.credentials);
    gnutls_alpn_set_protocols(session, &offer, 1, 0);
    gnutls_transport_set_int(session, fd);
    if (gnutls_handshake(session) == 0) {
        gnutls_alpn_get_selected_protocol(session, &chosen);
        snprintf(peer.chosen, sizeof peer.chosen, "%.*s", (int)chosen.size,
                 chosen.data ? (char *)chosen.data : "");
        if (strcmp(peer.chosen, "h2") == 0) {
            speak_http2(session);
        } else {
            speak_http1(session);
        }
    }
    gnutls_deinit(session);
    close(fd);
    return NULL;
}

static int start(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    (void)state;
    memset(&peer, 0, sizeof peer);
    snprintf(folder, sizeof folder, "/tmp/http2-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(certificate, sizeof certificate, "%s/cert.pem", folder);
    snprintf(key, sizeof key, "%s/key.pem", folder);
    struct err made = http_selfsigned_make(slice_of(certificate), slice_of(key), LIT("a.org"));
    assert_int_equal(made.code, 0);
    gnutls_certificate_allocate_credentials(&peer.credentials);
    assert_int_equal(gnutls_certificate_set_x509_key_file(peer.credentials, certificate, key,
                                                          GNUTLS_X509_FMT_PEM),
                     0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(peer.listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(peer.listener, 4), 0);
    assert_int_equal(getsockname(peer.listener, (struct sockaddr *)&address, &len), 0);
    peer.port = ntohs(address.sin_port);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    gnutls_certificate_free_credentials(peer.credentials);
    close(peer.listener);
    unlink(certificate);
    unlink(key);
    rmdir(folder);
    return 0;
}

/* Some requests to a peer that offers this protocol. */
static void ask(const char *offers)
{
    struct now now = now_system();
    struct ctx ctx = {.arena = arena_new(), .now = &now};
    struct http_fetcher *fetcher = NULL;
    const struct slice ca_file = slice_of(certificate);
    const struct http_fetch_config config = {.ca_files = &ca_file, .ca_file_count = 1};
    const struct http_fetch_request request = {
        .method = LIT("PUT"),
        .body = LIT("{\"pdus\":[]}"),
        .url = arena_printf(ctx.arena, "https://127.0.0.1:%u/", peer.port),
        .flags = HTTP_FETCH_HTTPS_ONLY | HTTP_FETCH_ANY_ADDRESS,
        .timeout_ms = 10000,
    };
    peer.offers = offers;
    assert_int_equal(pthread_create(&peer.thread, NULL, serve, NULL), 0);
    assert_int_equal(http_fetcher_new(&config, &fetcher).code, 0);
    for (size_t i = 0; i < REQUESTS; i++) {
        struct http_fetch_reply reply;
        assert_int_equal(http_fetch(fetcher, &ctx, &request, &reply).code, 0);
        assert_int_equal(reply.status, 200);
        assert_true(slice_eq(reply.body, LIT("{}")));
    }
    http_fetcher_free(&fetcher);
    pthread_join(peer.thread, NULL);
    arena_free(&ctx.arena);
    assert_int_equal(peer.connections, 1);
    assert_int_equal(peer.requests, REQUESTS);
}

static void a_peer_that_offers_http2_gets_it(void **state)
{
    (void)state;
    ask("h2");
    assert_string_equal(peer.chosen, "h2");
}

static void a_peer_without_it_gets_the_older_one(void **state)
{
    (void)state;
    ask("http/1.1");
    assert_string_equal(peer.chosen, "http/1.1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_peer_that_offers_http2_gets_it, start, stop),
        cmocka_unit_test_setup_teardown(a_peer_without_it_gets_the_older_one, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
