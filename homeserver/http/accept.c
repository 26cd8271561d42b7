/* Listening sockets (one per loop and listener, balanced by the kernel) and the life of
 * connections. */
#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/http/priv.h"
#include "spec/errcodes.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

enum {
    ACCEPTS_AT_ONCE = 64,
    BACKLOG = 4096,
    PAUSE_MS = 100,
    UNREAD_MS = 1000, /* for a request that came together with the deadline */
    WEIGHT_TLS = 3,   /* its socket and both ends of a socket pair */
};

struct acceptor {
    struct http_loop *home;
    const struct http_listener *listener;
    struct loop_watch *watch;
    struct http_wheel_entry pause; /* out of descriptors: try again later */
    int fd;
};

/* A request that arrived just now, which a close would reset. */
static bool has_unread(const struct http_connection *connection)
{
    char byte;
    return connection->phase == HTTP_PHASE_IDLE && !connection->home->draining &&
           recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void on_deadline(void *arg)
{
    struct http_connection *connection = arg;
    struct http_loop *home = connection->home;
    if (connection->phase == HTTP_PHASE_PARKED) {
        http_park_expire(connection);
    } else if (has_unread(connection)) {
        http_wheel_set(&home->wheel, &connection->deadline, loop_mono_ms(home->loop) + UNREAD_MS);
    } else {
        http_front_cut(connection, err_make(ERR_M_REQUEST_TIMEOUT, "request too slow"));
    }
}

static struct http_connection *new_connection(struct http_loop *home, const struct sockaddr *peer,
                                              const struct http_listener *listener)
{
    struct http_connection *connection = mem_alloc(sizeof *connection);
    connection->home = home;
    connection->fd = -1;
    connection->place.weight = listener->tls ? WEIGHT_TLS : 1;
    connection->is_admin = listener->admin;
    connection->address_len =
        (uint8_t)http_address_text(peer, connection->address, connection->place.key);
    connection->deadline = (struct http_wheel_entry){.fn = on_deadline, .arg = connection};
    return connection;
}

static bool is_proxy(const struct http_server_config *config, struct slice address)
{
    for (size_t i = 0; i < config->trusted_proxy_count; i++) {
        if (slice_eq(address, config->trusted_proxies[i])) {
            return true;
        }
    }
    return false;
}

/* Counts the connection; false when the server or its address has too many. */
static bool admit(struct http_connection *connection)
{
    struct http_server *server = connection->home->server;
    struct http_place *place = &connection->place;
    size_t before = atomic_fetch_add(&server->connection_count, place->weight);
    bool room = before + place->weight <= server->config.connection_max;
    place->by_address =
        !is_proxy(&server->config, (struct slice){connection->address, connection->address_len});
    room = room && (!place->by_address || http_addresses_enter(server->addresses, place->key));
    if (!room) {
        atomic_fetch_sub(&server->connection_count, place->weight);
        stats_add(server->config.stats, STAT_http_refused_connections_total, 1);
    } else {
        stats_gauge_add(server->config.stats, STAT_http_connections, place->weight);
    }
    return room;
}

void http_place_leave(struct http_server *server, const struct http_place *place)
{
    atomic_fetch_sub(&server->connection_count, place->weight);
    stats_gauge_add(server->config.stats, STAT_http_connections, -(int64_t)place->weight);
    if (place->by_address) {
        http_addresses_leave(server->addresses, place->key);
    }
}

void http_connection_free(struct http_connection *connection)
{
    struct http_loop *home = connection->home;
    http_wheel_cancel(&home->wheel, &connection->deadline);
    http_park_unwatch(connection);
    http_exchange_drop_job(connection);
    http_tls_move_owner(&connection->pipe, NULL);
    mem_free(connection->piece);
    if (connection->prev) {
        connection->prev->next = connection->next;
    } else {
        home->connections = connection->next;
    }
    if (connection->next) {
        connection->next->prev = connection->prev;
    }
    if (!connection->upgraded) {
        http_place_leave(home->server, &connection->place);
    }
    mem_free(connection);
}

void http_accept_fd(struct http_loop *home, int fd, const struct sockaddr *peer, socklen_t peer_len,
                    const struct http_listener *listener)
{
    struct http_connection *connection = new_connection(home, peer, listener);
    if (!admit(connection)) {
        mem_free(connection);
        close(fd);
        return;
    }
    int plain = listener->tls ? http_tls_wrap(home, fd, &connection->pipe) : fd;
    if (plain < 0) {
        http_place_leave(home->server, &connection->place);
        mem_free(connection);
        return;
    }
    connection->next = home->connections;
    if (connection->next) {
        connection->next->prev = connection;
    }
    home->connections = connection;
    http_wheel_set(&home->wheel, &connection->deadline,
                   loop_mono_ms(home->loop) + home->server->config.request_timeout_ms);
    http_front_add(home->front, plain, peer, peer_len, connection);
}

static void on_pause_over(void *arg)
{
    struct acceptor *acceptor = arg;
    loop_watch_set(acceptor->watch, LOOP_READ);
}

static void on_acceptable(void *arg, unsigned events)
{
    struct acceptor *acceptor = arg;
    struct http_loop *home = acceptor->home;
    (void)events;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        struct sockaddr_storage peer;
        socklen_t peer_len = sizeof peer;
        int fd = accept4(acceptor->fd, (struct sockaddr *)&peer, &peer_len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            int on = 1;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            http_accept_fd(home, fd, (struct sockaddr *)&peer, peer_len, acceptor->listener);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            log_warn(home->server->config.log, "accept_paused", .err = slice_of(strerror(errno)));
            loop_watch_set(acceptor->watch, 0);
            http_wheel_set(&home->wheel, &acceptor->pause, loop_mono_ms(home->loop) + PAUSE_MS);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static int bind_socket(const struct addrinfo *info, uint16_t port)
{
    struct sockaddr_storage address;
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    memcpy(&address, info->ai_addr, info->ai_addrlen);
    if (info->ai_family == AF_INET6) {
        ((struct sockaddr_in6 *)&address)->sin6_port = htons(port);
    } else {
        ((struct sockaddr_in *)&address)->sin_port = htons(port);
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, info->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

/* The first address of the host that can be bound; `::` takes IPv4 too. */
static int open_socket(struct http_server *server, const struct http_listener *listener,
                       uint16_t port)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    const char *host = listener->host.len ? arena_cstr(server->arena, listener->host) : NULL;
    int fd = -1;
    if (getaddrinfo(host, "0", &hints, &found) != 0) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    for (struct addrinfo *info = found; info && fd < 0; info = info->ai_next) {
        fd = bind_socket(info, port);
    }
    int saved = errno;
    freeaddrinfo(found);
    errno = saved;
    return fd;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        return 0;
    }
    return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                               : ((struct sockaddr_in *)&address)->sin_port);
}

struct err http_accept_listen(struct http_server *server)
{
    for (size_t i = 0; i < server->config.listener_count; i++) {
        const struct http_listener *listener = &server->config.listeners[i];
        server->ports[i] = listener->port;
        for (size_t j = 0; j < server->loop_count; j++) {
            struct acceptor *acceptor = &server->loops[j].acceptors[i];
            acceptor->fd = open_socket(server, listener, server->ports[i]);
            if (acceptor->fd < 0) {
                return err_publicf(server->arena, ERR_IO, "cannot listen on %.*s port %u: %s",
                                   (int)listener->host.len, listener->host.ptr,
                                   (unsigned)server->ports[i], strerror(errno));
            }
            server->ports[i] = port_of(acceptor->fd);
            acceptor->home = &server->loops[j];
            acceptor->listener = listener;
            acceptor->pause = (struct http_wheel_entry){.fn = on_pause_over, .arg = acceptor};
        }
    }
    return OK;
}

void http_accept_init(struct http_loop *home)
{
    size_t count = home->server->config.listener_count;
    home->acceptors = arena_array(home->server->arena, count, sizeof *home->acceptors);
    for (size_t i = 0; i < count; i++) {
        home->acceptors[i].fd = -1;
    }
}

void http_accept_start(struct http_loop *home)
{
    for (size_t i = 0; i < home->server->config.listener_count; i++) {
        struct acceptor *acceptor = &home->acceptors[i];
        acceptor->watch = loop_watch_new(home->loop, acceptor->fd, on_acceptable, acceptor);
        loop_watch_set(acceptor->watch, LOOP_READ);
    }
}

void http_accept_stop(struct http_loop *home)
{
    for (size_t i = 0; i < home->server->config.listener_count; i++) {
        struct acceptor *acceptor = &home->acceptors[i];
        http_wheel_cancel(&home->wheel, &acceptor->pause);
        loop_watch_free(&acceptor->watch);
        if (acceptor->fd >= 0) {
            close(acceptor->fd);
            acceptor->fd = -1;
        }
    }
}
