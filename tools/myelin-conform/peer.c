/* The listener of a played server. The only file that includes microhttpd. */
#include "tools/myelin-conform/peer.h"
#include "homeserver/base/mem.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdatomic.h>

enum { BODY_BYTES_MAX = 32 << 20, HEADERS_MAX = 32, IDLE_SECONDS = 30, PORT_TRIES = 200 };

struct peer_listener {
    struct MHD_Daemon *daemon;
};

/* A request while its bytes come in. */
struct incoming {
    struct arena *arena;
    struct slice uri;
    struct buf body;
    bool has_head;
};

static void *on_uri(void *arg, const char *uri, struct MHD_Connection *connection)
{
    (void)arg;
    (void)connection;
    struct arena *arena = arena_new();
    struct incoming *incoming = arena_alloc(arena, sizeof *incoming);
    incoming->arena = arena;
    incoming->uri = arena_copy(arena, slice_of(uri));
    buf_init_arena(&incoming->body, arena, BODY_BYTES_MAX);
    return incoming;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **own,
                         enum MHD_RequestTerminationCode how)
{
    (void)arg;
    (void)connection;
    (void)how;
    struct incoming *incoming = *own;
    if (incoming) {
        struct arena *arena = incoming->arena;
        arena_free(&arena);
    }
    *own = NULL;
}

/* A port in use is no news. */
static void ignore_message(void *arg, const char *format, va_list args)
{
    (void)arg;
    (void)format;
    (void)args;
}

struct headers {
    struct ask_header items[HEADERS_MAX];
    size_t count;
};

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    (void)kind;
    struct headers *headers = arg;
    if (headers->count < HEADERS_MAX) {
        headers->items[headers->count++] = (struct ask_header){slice_of(name), slice_of(value)};
    }
    return MHD_YES;
}

static enum MHD_Result reply_with(struct MHD_Connection *connection, struct arena *arena,
                                  const struct peer_reply *reply)
{
    if (reply->status == 0) {
        return MHD_NO;
    }
    struct MHD_Response *response = MHD_create_response_from_buffer(
        reply->body.len, (void *)(uintptr_t)reply->body.ptr, MHD_RESPMEM_MUST_COPY);
    if (!response) {
        return MHD_NO;
    }
    bool has_type = false;
    for (size_t i = 0; i < reply->header_count; i++) {
        has_type = has_type || slice_eq_nocase(reply->headers[i].name, LIT("content-type"));
        MHD_add_response_header(response, arena_cstr(arena, reply->headers[i].name),
                                arena_cstr(arena, reply->headers[i].value));
    }
    if (!has_type) {
        MHD_add_response_header(response, "Content-Type", "application/json");
    }
    enum MHD_Result result = MHD_queue_response(connection, reply->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_size, void **own)
{
    (void)url;
    (void)version;
    struct peer *peer = cls;
    struct incoming *incoming = *own;
    if (!incoming->has_head) { /* the first call comes before any byte of the body */
        incoming->has_head = true;
        return MHD_YES;
    }
    if (*data_size > 0) {
        buf_add(&incoming->body, (struct slice){data, *data_size});
        *data_size = 0;
        return MHD_YES;
    }
    struct headers headers = {.count = 0};
    MHD_get_connection_values(connection, MHD_HEADER_KIND, on_header, &headers);
    struct peer_request request = {.method = slice_of(method),
                                   .uri = incoming->uri,
                                   .body = buf_slice(&incoming->body),
                                   .headers = headers.items,
                                   .header_count = headers.count};
    struct peer_reply reply = peer_answer(peer, &request);
    return reply_with(connection, incoming->arena, &reply);
}

static struct MHD_Daemon *listen_on(struct peer *peer, const char *certificate, const char *key,
                                    unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {htonl(INADDR_LOOPBACK)},
                                  .sin_port = htons((uint16_t)port)};
    return MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_TLS, 0, NULL, NULL, on_request, peer,
        MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address, MHD_OPTION_HTTPS_MEM_CERT, certificate,
        MHD_OPTION_HTTPS_MEM_KEY, key, MHD_OPTION_URI_LOG_CALLBACK, on_uri, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)IDLE_SECONDS, MHD_OPTION_EXTERNAL_LOGGER, ignore_message, NULL, MHD_OPTION_END);
}

/* The next port that nobody has. */
static bool find_port(struct peer *peer, const struct peer_tls *tls, peer_ports *ports)
{
    const char *certificate = arena_cstr(peer->arena, tls->certificate);
    const char *key = arena_cstr(peer->arena, tls->key);
    for (int i = 0; i < PORT_TRIES && !peer->listener->daemon; i++) {
        unsigned port = PEER_PORT_FIRST + atomic_fetch_add(ports, 1) % PEER_PORTS;
        peer->name = arena_printf(peer->arena, "127.0.0.1:%u", port);
        peer->listener->daemon = listen_on(peer, certificate, key, port);
    }
    return peer->listener->daemon != NULL;
}

struct err peer_start(struct slice actor, const struct peer_tls *tls, peer_ports *ports,
                      struct peer **peer_out)
{
    struct peer *peer = mem_alloc(sizeof *peer);
    peer->arena = arena_new();
    peer->actor = actor;
    peer->key_id = LIT("ed25519:play");
    peer->key = ed25519_generate();
    pthread_mutex_init(&peer->lock, NULL);
    peer->listener = arena_alloc(peer->arena, sizeof *peer->listener);
    *peer_out = peer;
    if (!find_port(peer, tls, ports)) {
        peer_stop(peer_out);
        return err_public(ERR_IO, "cannot listen: is the certificate good?");
    }
    return OK;
}

void peer_stop(struct peer **peer)
{
    if ((*peer)->listener->daemon) {
        MHD_stop_daemon((*peer)->listener->daemon);
    }
    pthread_mutex_destroy(&(*peer)->lock);
    arena_free(&(*peer)->arena);
    mem_free(*peer);
    *peer = NULL;
}

void peer_lock(struct peer *peer)
{
    pthread_mutex_lock(&peer->lock);
}

void peer_unlock(struct peer *peer)
{
    pthread_mutex_unlock(&peer->lock);
}
