#include "homeserver/http/tls.h"

#include "homeserver/base/mem.h"
#include "homeserver/http/priv.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_BYTES = 16384, LINGER_MS = 10000, PATH_BYTES_MAX = 4096 };

/* One loaded certificate; lives as long as a connection uses it. */
struct identity {
    gnutls_certificate_credentials_t credentials;
    _Atomic unsigned references;
};

struct http_tls {
    pthread_mutex_t mutex; /* protects current; leaf lock */
    struct identity *current;
    gnutls_priority_t priority;
    gnutls_datum_t ticket_key;
};

/* A connection: `outer` speaks TLS to the peer, `inner` speaks plainly to the library. */
struct http_tls_pipe {
    struct http_loop *home;
    struct http_tls_pipe *next, *prev;
    struct http_tls_pipe **owner; /* cleared when the pipe ends; NULL = none */
    gnutls_session_t session;
    struct identity *identity;
    struct loop_watch *outer_watch, *inner_watch;
    struct http_wheel_entry linger;
    char *up; /* decrypted bytes that the inner socket did not take yet */
    size_t up_len, up_done;
    int outer, inner;
    bool open;         /* the handshake is done */
    bool outer_eof;    /* the peer will send no more */
    bool inner_eof;    /* the library has closed */
    bool send_blocked; /* GnuTLS holds a record that the outer socket did not take */
    bool want_outer_read, want_outer_write, want_inner_read, want_inner_write;
};

static void unref_identity(struct identity *identity)
{
    if (identity && atomic_fetch_sub(&identity->references, 1) == 1) {
        gnutls_certificate_free_credentials(identity->credentials);
        mem_free(identity);
    }
}

static struct err load(struct slice certificate, struct slice key, struct identity **identity_out)
{
    struct arena *arena = arena_new();
    struct identity *identity = mem_alloc(sizeof *identity);
    atomic_store(&identity->references, 1);
    int code = gnutls_certificate_allocate_credentials(&identity->credentials);
    ASSERT(code == 0);
    code =
        gnutls_certificate_set_x509_key_file2(identity->credentials, arena_cstr(arena, certificate),
                                              arena_cstr(arena, key), GNUTLS_X509_FMT_PEM, NULL, 0);
    arena_free(&arena);
    if (code < 0) {
        unref_identity(identity);
        return err_public(ERR_IO, gnutls_strerror(code)); /* static text */
    }
    *identity_out = identity;
    return OK;
}

struct err http_tls_new(struct slice certificate, struct slice key, struct http_tls **tls_out)
{
    struct identity *identity = NULL;
    TRY(load(certificate, key, &identity));
    struct http_tls *tls = mem_alloc(sizeof *tls);
    pthread_mutex_init(&tls->mutex, NULL);
    tls->current = identity;
    int code =
        gnutls_priority_init(&tls->priority, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2", NULL);
    ASSERT(code == 0);
    code = gnutls_session_ticket_key_generate(&tls->ticket_key);
    ASSERT(code == 0);
    *tls_out = tls;
    return OK;
}

void http_tls_free(struct http_tls **pointer)
{
    struct http_tls *tls = *pointer;
    if (tls) {
        unref_identity(tls->current);
        gnutls_priority_deinit(tls->priority);
        gnutls_free(tls->ticket_key.data);
        pthread_mutex_destroy(&tls->mutex);
        mem_free(tls);
        *pointer = NULL;
    }
}

struct err http_tls_reload(struct http_tls *tls, struct slice certificate, struct slice key)
{
    struct identity *fresh = NULL;
    TRY(load(certificate, key, &fresh));
    pthread_mutex_lock(&tls->mutex);
    struct identity *old = tls->current;
    tls->current = fresh;
    pthread_mutex_unlock(&tls->mutex);
    unref_identity(old);
    return OK;
}

void http_tls_move_owner(struct http_tls_pipe **from, struct http_tls_pipe **to)
{
    struct http_tls_pipe *pipe = from ? *from : NULL;
    if (pipe) {
        *from = NULL;
        pipe->owner = to;
    }
    if (to) {
        *to = pipe;
    }
}

static void end_pipe(struct http_tls_pipe *pipe)
{
    struct http_loop *home = pipe->home;
    http_tls_move_owner(pipe->owner, NULL);
    http_wheel_cancel(&home->wheel, &pipe->linger);
    loop_watch_free(&pipe->outer_watch);
    loop_watch_free(&pipe->inner_watch);
    gnutls_deinit(pipe->session);
    close(pipe->outer);
    close(pipe->inner);
    unref_identity(pipe->identity);
    if (pipe->prev) {
        pipe->prev->next = pipe->next;
    } else {
        home->pipes = pipe->next;
    }
    if (pipe->next) {
        pipe->next->prev = pipe->prev;
    }
    atomic_fetch_sub(&home->server->pipes, 1);
    mem_free(pipe->up);
    mem_free(pipe);
}

enum flow { FLOW_WAITS, FLOW_MOVED, FLOW_BROKEN };

static bool is_again(int64_t code)
{
    return code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED;
}

static enum flow shake_hands(struct http_tls_pipe *pipe)
{
    int code = gnutls_handshake(pipe->session);
    if (code == 0) {
        pipe->open = true;
        return FLOW_MOVED;
    }
    if (is_again(code)) {
        bool writes = gnutls_record_get_direction(pipe->session) == 1;
        pipe->want_outer_write = writes;
        pipe->want_outer_read = !writes;
        return FLOW_WAITS;
    }
    return gnutls_error_is_fatal(code) ? FLOW_BROKEN : FLOW_MOVED;
}

/* Hands decrypted bytes to the library; keeps what it does not take. */
static enum flow give_up_bytes(struct http_tls_pipe *pipe, const char *bytes, size_t len)
{
    ssize_t sent = send(pipe->inner, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        pipe->outer_eof = true; /* nobody listens any more: stop reading, but finish writing */
        return FLOW_WAITS;
    }
    size_t done = sent > 0 ? (size_t)sent : 0;
    if (pipe->up) {
        pipe->up_done += done;
        if (pipe->up_done == pipe->up_len) {
            mem_free(pipe->up);
            pipe->up = NULL;
        }
    } else if (done < len) {
        pipe->up = mem_alloc_raw(len - done);
        memcpy(pipe->up, bytes + done, len - done);
        pipe->up_len = len - done;
        pipe->up_done = 0;
    }
    pipe->want_inner_write = pipe->up != NULL;
    return pipe->up ? FLOW_WAITS : FLOW_MOVED;
}

static enum flow move_up(struct http_tls_pipe *pipe)
{
    char bytes[RECORD_BYTES];
    if (pipe->up) {
        return give_up_bytes(pipe, pipe->up + pipe->up_done, pipe->up_len - pipe->up_done);
    }
    if (pipe->outer_eof) {
        return FLOW_WAITS;
    }
    ssize_t len = gnutls_record_recv(pipe->session, bytes, sizeof bytes);
    if (len > 0) {
        return give_up_bytes(pipe, bytes, (size_t)len);
    }
    if (is_again(len)) {
        pipe->want_outer_read = true;
        return FLOW_WAITS;
    }
    if (len < 0 && len != GNUTLS_E_PREMATURE_TERMINATION && !gnutls_error_is_fatal((int)len)) {
        return FLOW_MOVED; /* an alert or a renegotiation that is not wanted */
    }
    if (len < 0 && len != GNUTLS_E_PREMATURE_TERMINATION) {
        return FLOW_BROKEN;
    }
    pipe->outer_eof = true;
    shutdown(pipe->inner, SHUT_WR);
    return FLOW_WAITS;
}

static enum flow move_down(struct http_tls_pipe *pipe)
{
    char bytes[RECORD_BYTES];
    ssize_t len = 0;
    if (!pipe->send_blocked) {
        len = recv(pipe->inner, bytes, sizeof bytes, MSG_DONTWAIT);
        if (len < 0 && (errno == EAGAIN || errno == EINTR)) {
            pipe->want_inner_read = true;
            return FLOW_WAITS;
        }
        if (len <= 0) {
            gnutls_bye(pipe->session, GNUTLS_SHUT_WR);
            pipe->inner_eof = true;
            return FLOW_BROKEN; /* all is written: the connection is over */
        }
    }
    /* One record takes all of bytes; when the socket is full GnuTLS keeps the record. */
    ssize_t sent = gnutls_record_send(pipe->session, pipe->send_blocked ? NULL : bytes,
                                      pipe->send_blocked ? 0 : (size_t)len);
    pipe->send_blocked = is_again(sent);
    if (pipe->send_blocked) {
        pipe->want_outer_write = true;
        return FLOW_WAITS;
    }
    return sent < 0 ? FLOW_BROKEN : FLOW_MOVED;
}

/* Moves what can be moved; false when the pipe has ended. */
static bool pump_once(struct http_tls_pipe *pipe)
{
    enum flow up = FLOW_MOVED;
    enum flow down = FLOW_MOVED;
    pipe->want_outer_read = pipe->want_outer_write = false;
    pipe->want_inner_read = pipe->want_inner_write = false;
    while (!pipe->open && up == FLOW_MOVED) {
        up = shake_hands(pipe);
    }
    down = pipe->open ? down : FLOW_WAITS;
    while (pipe->open && up == FLOW_MOVED) {
        up = move_up(pipe);
    }
    while (pipe->open && down == FLOW_MOVED) {
        down = move_down(pipe);
    }
    return up != FLOW_BROKEN && down != FLOW_BROKEN;
}

static void pump(struct http_tls_pipe *pipe)
{
    if (!pump_once(pipe)) {
        end_pipe(pipe);
        return;
    }
    /* While the handshake runs, the library's end must be watched for its patience. */
    bool inner_read = pipe->want_inner_read || !pipe->open;
    loop_watch_set(pipe->outer_watch, (pipe->want_outer_read ? LOOP_READ : 0) |
                                          (pipe->want_outer_write ? LOOP_WRITE : 0));
    loop_watch_set(pipe->inner_watch,
                   (inner_read ? LOOP_READ : 0) | (pipe->want_inner_write ? LOOP_WRITE : 0));
    if (pipe->send_blocked && !pipe->linger.next) {
        http_wheel_set(&pipe->home->wheel, &pipe->linger,
                       loop_mono_ms(pipe->home->loop) + LINGER_MS);
    } else if (!pipe->send_blocked) {
        http_wheel_cancel(&pipe->home->wheel, &pipe->linger);
    }
}

static void on_outer(void *arg, unsigned events)
{
    (void)events;
    pump(arg);
}

static void on_inner(void *arg, unsigned events)
{
    struct http_tls_pipe *pipe = arg;
    if (!pipe->open && (events & LOOP_READ)) {
        end_pipe(pipe); /* nothing but the end can come from there before a request */
        return;
    }
    pump(pipe);
}

/* The peer has taken nothing for a while. Whether the library still waits for it is seen at the
 * inner end: when that has closed, nobody does. */
static void on_linger(void *arg)
{
    struct http_tls_pipe *pipe = arg;
    char byte;
    ssize_t len = recv(pipe->inner, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    struct http_loop *home = pipe->home;
    if (len == 0) {
        end_pipe(pipe);
    } else {
        http_wheel_set(&home->wheel, &pipe->linger, loop_mono_ms(home->loop) + LINGER_MS);
    }
}

static void start_session(struct http_tls_pipe *pipe)
{
    struct http_tls *tls = pipe->home->server->tls;
    const gnutls_datum_t protocol = {.data = (unsigned char *)(uintptr_t) "http/1.1", .size = 8};
    pthread_mutex_lock(&tls->mutex);
    pipe->identity = tls->current;
    atomic_fetch_add(&pipe->identity->references, 1);
    pthread_mutex_unlock(&tls->mutex);
    int code = gnutls_init(&pipe->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    ASSERT(code == 0);
    gnutls_priority_set(pipe->session, tls->priority);
    gnutls_credentials_set(pipe->session, GNUTLS_CRD_CERTIFICATE, pipe->identity->credentials);
    gnutls_certificate_server_set_request(pipe->session, GNUTLS_CERT_IGNORE);
    gnutls_session_ticket_enable_server(pipe->session, &tls->ticket_key);
    gnutls_alpn_set_protocols(pipe->session, &protocol, 1, 0);
    gnutls_transport_set_int(pipe->session, pipe->outer);
}

void http_tls_flush(struct http_tls_pipe *pipe)
{
    if (pipe && pipe->open) {
        pump(pipe);
    }
}

int http_tls_wrap(struct http_loop *home, int fd, struct http_tls_pipe **owner)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
        close(fd);
        return -1;
    }
    struct http_tls_pipe *pipe = mem_alloc(sizeof *pipe);
    pipe->home = home;
    pipe->outer = fd;
    pipe->inner = ends[0];
    pipe->owner = owner;
    *owner = pipe;
    pipe->linger = (struct http_wheel_entry){.fn = on_linger, .arg = pipe};
    start_session(pipe);
    pipe->next = home->pipes;
    if (pipe->next) {
        pipe->next->prev = pipe;
    }
    home->pipes = pipe;
    atomic_fetch_add(&home->server->pipes, 1);
    pipe->outer_watch = loop_watch_new(home->loop, pipe->outer, on_outer, pipe);
    pipe->inner_watch = loop_watch_new(home->loop, pipe->inner, on_inner, pipe);
    loop_watch_set(pipe->outer_watch, LOOP_READ);
    loop_watch_set(pipe->inner_watch, LOOP_READ);
    return ends[1];
}

void http_tls_cut(struct http_loop *home)
{
    while (home->pipes) {
        end_pipe(home->pipes);
    }
}
