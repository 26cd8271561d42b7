/* A server that costs next to nothing: one thread, TLS with one certificate for all names, no
 * session tickets, two answers. */
#include "crypto/base64.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "tools/myelin-bench/made_up_priv.h"
#include "tools/myelin-bench/names.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,
    EVENTS = 64,
    SCRATCH_BYTES = 1 << 16,
    REQUEST_BYTES_MAX = 16 << 20,
    ANSWER_BYTES_MAX = 4096,
    KEYS_VALID_MS = 24 * 3600 * 1000,
};
static const char PRIORITY[] = "NORMAL:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1";

struct server {
    const struct made_up_serving *serving;
    gnutls_certificate_credentials_t credentials;
    gnutls_priority_t priority;
    struct arena *arena; /* of the request at hand */
    struct now now;
    int listener, epoll;
    char scratch[SCRATCH_BYTES];
};

struct connection {
    int fd;
    gnutls_session_t session;
    bool is_open; /* the handshake is over */
    struct buf in;
};

size_t made_up_index(struct slice host, size_t count)
{
    struct slice part, rest = host;
    uint64_t net = 0, low = 0;
    rest = slice_cut(rest, '.', &part);
    if (slice_has_prefix(part, LIT("d"))) {
        bool is_number = slice_parse_u64(slice_from(part, 1), &low);
        return is_number && low < count ? (size_t)low : count;
    }
    rest = slice_cut(rest, '.', &part);
    rest = slice_cut(rest, '.', &part);
    slice_cut(rest, ':', &rest);
    bool good = slice_parse_u64(part, &net) && slice_parse_u64(rest, &low) && low > 0;
    size_t index = good ? (size_t)(net * NAMES_A_NET + low - 1) : count;
    return index < count ? index : count;
}

/* --- answers --- */

static struct slice keys_of(struct server *server, struct slice host)
{
    struct arena *arena = server->arena;
    const struct ed25519_key *pair = &server->serving->shared->key;
    struct ed25519_public public_key = ed25519_public_of(pair);
    struct slice bytes = {(const char *)public_key.bytes, sizeof public_key.bytes};
    struct json object = json_object(), keys = json_object(), key = json_object();
    json_set(arena, &key, LIT("key"), json_string(base64_encode(arena, bytes, BASE64_STANDARD)));
    json_set(arena, &keys, LIT(MADE_UP_KEY_ID), key);
    json_set(arena, &object, LIT("server_name"), json_string(host));
    json_set(arena, &object, LIT("valid_until_ts"),
             json_int(now_wall_ms(&server->now) + KEYS_VALID_MS));
    json_set(arena, &object, LIT("verify_keys"), keys);
    json_set(arena, &object, LIT("old_verify_keys"), json_object());
    json_sign(arena, &object, &(struct json_signer){{host}, LIT(MADE_UP_KEY_ID), pair});
    return json_canonical(arena, &object);
}

static void note_arrival(const struct made_up_serving *serving, struct slice host,
                         struct slice body)
{
    struct made_up_shared *shared = serving->shared;
    size_t index = made_up_index(host, serving->count);
    struct slice text = {shared->text, atomic_load(&shared->text_len)};
    atomic_fetch_add(&shared->transactions, 1);
    if (index < serving->count && text.len > 0 && slice_contains(body, text) &&
        !atomic_exchange(&shared->has[index], true)) {
        atomic_store(&shared->arrivals[atomic_fetch_add(&shared->arrived, 1)], now_mono_us());
    }
}

static bool answer(struct server *server, struct connection *connection, struct slice head,
                   struct slice host, struct slice body)
{
    struct buf out;
    struct slice content = LIT("{\"pdus\":{}}");
    if (slice_has_prefix(head, LIT("GET /_matrix/key/v2/server "))) {
        content = keys_of(server, host);
    } else {
        note_arrival(server->serving, host, body);
    }
    buf_init_arena(&out, server->arena, ANSWER_BYTES_MAX);
    buf_add(&out, LIT("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "));
    buf_add_i64(&out, (int64_t)content.len);
    buf_add(&out, LIT("\r\n\r\n"));
    buf_add(&out, content);
    struct slice all = buf_slice(&out);
    return gnutls_record_send(connection->session, all.ptr, all.len) == (ssize_t)all.len;
}

static struct slice header_of(struct slice head, struct slice name)
{
    struct slice line, rest = slice_cut(head, '\n', &line);
    while (rest.len > 0) {
        struct slice key, value;
        rest = slice_cut(rest, '\n', &line);
        value = slice_cut(line, ':', &key);
        if (slice_eq_nocase(key, name)) {
            return slice_trim(value);
        }
    }
    return (struct slice){0};
}

/* Answers what is whole; false when the connection has to go. */
static bool answer_all(struct server *server, struct connection *connection)
{
    static const char END[] = "\r\n\r\n";
    for (;;) {
        struct slice in = buf_slice(&connection->in);
        const char *end = in.len ? memmem(in.ptr, in.len, END, sizeof END - 1) : NULL;
        if (!end) {
            return true;
        }
        struct slice head = {in.ptr, (size_t)(end - in.ptr) + sizeof END - 1};
        struct slice length = header_of(head, LIT("Content-Length"));
        uint64_t bytes = 0;
        if (length.len > 0 && (!slice_parse_u64(length, &bytes) || bytes > REQUEST_BYTES_MAX)) {
            return false;
        }
        if (in.len < head.len + bytes) {
            return true;
        }
        struct slice body = slice_sub(in, head.len, bytes);
        bool good = answer(server, connection, head, header_of(head, LIT("Host")), body);
        arena_reset(server->arena);
        struct slice left = slice_from(in, head.len + bytes);
        memmove((char *)connection->in.ptr, left.ptr, left.len);
        connection->in.len = left.len;
        if (!good) {
            return false;
        }
    }
}

/* --- connections --- */

static void drop(struct connection *connection)
{
    gnutls_deinit(connection->session);
    close(connection->fd);
    buf_deinit(&connection->in);
    mem_free(connection);
}

static void greet(struct server *server)
{
    int on = 1;
    int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    struct connection *connection = mem_alloc(sizeof *connection);
    *connection = (struct connection){.fd = fd};
    buf_init(&connection->in, REQUEST_BYTES_MAX);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    gnutls_init(&connection->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);
    gnutls_priority_set(connection->session, server->priority);
    gnutls_credentials_set(connection->session, GNUTLS_CRD_CERTIFICATE, server->credentials);
    gnutls_transport_set_int(connection->session, fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event);
}

static bool is_for_now(ssize_t result)
{
    return result == GNUTLS_E_AGAIN || result == GNUTLS_E_INTERRUPTED;
}

/* False when the connection has to go. */
static bool take(struct server *server, struct connection *connection)
{
    if (!connection->is_open) {
        int result = gnutls_handshake(connection->session);
        connection->is_open = result == GNUTLS_E_SUCCESS;
        if (!connection->is_open) {
            return !gnutls_error_is_fatal(result);
        }
    }
    for (;;) {
        ssize_t got = gnutls_record_recv(connection->session, server->scratch, SCRATCH_BYTES);
        if (got <= 0) {
            return is_for_now(got);
        }
        buf_add(&connection->in, (struct slice){server->scratch, (size_t)got});
        if (buf_check(&connection->in).code != 0 || !answer_all(server, connection)) {
            return false;
        }
    }
}

static void serve(struct server *server)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(server->epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection) {
                greet(server);
            } else if (!take(server, connection)) {
                drop(connection);
            }
        }
    }
}

static bool open_listener(struct server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(server->serving->port),
                                  .sin_addr.s_addr = htonl(INADDR_ANY)};
    int on = 1;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    return bind(server->listener, (struct sockaddr *)&address, sizeof address) == 0 &&
           listen(server->listener, BACKLOG) == 0 &&
           epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->listener, &event) == 0;
}

struct err made_up_serve(const struct made_up_serving *serving)
{
    struct server *server = mem_alloc(sizeof *server);
    *server = (struct server){.serving = serving, .arena = arena_new(), .now = now_system()};
    gnutls_certificate_allocate_credentials(&server->credentials);
    if (gnutls_certificate_set_x509_key_file(server->credentials, serving->certificate,
                                             serving->key, GNUTLS_X509_FMT_PEM) != 0 ||
        gnutls_priority_init(&server->priority, PRIORITY, NULL) != 0) {
        return err_public(ERR_IO, "the certificate of the made-up servers cannot be used");
    }
    if (!open_listener(server)) {
        return err_public(ERR_IO, "a port of the made-up servers is taken");
    }
    atomic_fetch_add(&serving->shared->listening, 1);
    serve(server);
    return OK;
}
