#include "tools/myelin-bench/wire.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "tools/myelin-bench/frame.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, READ_BYTES = 65536, BYTES_MAX = 1 << 30, KEEP_BYTES = 16384 };

enum phase { CLOSED, CONNECTING, OPEN };

struct wire {
    struct sockaddr_storage address;
    socklen_t address_len;
    struct slice host; /* of the Host header, owned */
    char *host_owned;
    int epoll_fd;
    bool shares_loop; /* epoll_fd is another wire's */
    uint64_t bytes;
    struct wire_conn *first;
    char *scratch_owned; /* READ_BYTES */
};

struct wire_conn {
    struct wire *wire;
    struct wire_conn *next, *previous;
    int fd;
    enum phase phase;
    bool busy, is_stream, upgraded, writing, used_before;
    struct buf in, out;
    size_t out_sent;
    int64_t sent_us;
    wire_reply_fn reply_fn;
    wire_frame_fn frame_fn;
    void *arg;
};

static void fail(struct wire_conn *conn);

static struct err resolve(struct wire *wire, struct slice authority)
{
    struct slice host, port = slice_cut(authority, ':', &host);
    char host_text[256], port_text[8] = "80";
    if (host.len == 0 || host.len >= sizeof host_text || port.len >= sizeof port_text) {
        return err_public(ERR_SYNTAX, "the server's URL must be http://HOST[:PORT]");
    }
    memcpy(host_text, host.ptr, host.len);
    host_text[host.len] = 0;
    if (port.len > 0) {
        memcpy(port_text, port.ptr, port.len);
        port_text[port.len] = 0;
    }
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host_text, port_text, &hints, &found) != 0) {
        return err_public(ERR_IO, "the server's host is not known");
    }
    memcpy(&wire->address, found->ai_addr, found->ai_addrlen);
    wire->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    return OK;
}

struct err wire_new_beside(struct slice url, struct wire *host, struct wire **wire_out)
{
    if (!slice_has_prefix(url, LIT("http://"))) {
        return err_public(ERR_SYNTAX, "the server's URL must begin with http:// (give its plain "
                                      "listener; TLS would be measured with it)");
    }
    struct slice authority;
    slice_cut(slice_from(url, 7), '/', &authority);
    struct wire *wire = mem_alloc(sizeof *wire);
    struct err err = resolve(wire, authority);
    if (err.code != 0) {
        mem_free(wire);
        return err;
    }
    wire->host_owned = mem_alloc(authority.len + 1);
    memcpy(wire->host_owned, authority.ptr, authority.len);
    wire->host = (struct slice){wire->host_owned, authority.len};
    wire->shares_loop = host != NULL;
    wire->epoll_fd = host ? host->epoll_fd : epoll_create1(EPOLL_CLOEXEC);
    wire->scratch_owned = mem_alloc_raw(READ_BYTES);
    *wire_out = wire;
    return OK;
}

struct err wire_new(struct slice url, struct wire **wire_out)
{
    return wire_new_beside(url, NULL, wire_out);
}

void wire_free(struct wire **wire)
{
    if (!*wire) {
        return;
    }
    while ((*wire)->first) {
        struct wire_conn *conn = (*wire)->first;
        wire_close(&conn);
    }
    if (!(*wire)->shares_loop) {
        close((*wire)->epoll_fd);
    }
    mem_free((*wire)->host_owned);
    mem_free((*wire)->scratch_owned);
    mem_free(*wire);
    *wire = NULL;
}

struct wire_conn *wire_open(struct wire *wire)
{
    struct wire_conn *conn = mem_alloc(sizeof *conn);
    conn->wire = wire;
    conn->fd = -1;
    conn->next = wire->first;
    if (wire->first) {
        wire->first->previous = conn;
    }
    wire->first = conn;
    buf_init(&conn->in, BYTES_MAX);
    buf_init(&conn->out, BYTES_MAX);
    return conn;
}

static void hang_up(struct wire_conn *conn)
{
    if (conn->fd >= 0) {
        close(conn->fd);
    }
    conn->fd = -1;
    conn->phase = CLOSED;
    conn->writing = conn->used_before = conn->upgraded = false;
    buf_clear(&conn->in);
}

void wire_close(struct wire_conn **conn)
{
    struct wire_conn *old = *conn;
    if (!old) {
        return;
    }
    hang_up(old);
    if (old->previous) {
        old->previous->next = old->next;
    } else {
        old->wire->first = old->next;
    }
    if (old->next) {
        old->next->previous = old->previous;
    }
    buf_deinit(&old->in);
    buf_deinit(&old->out);
    mem_free(old);
    *conn = NULL;
}

static void watch(struct wire_conn *conn, int operation, bool writing)
{
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = conn};
    conn->writing = writing;
    epoll_ctl(conn->wire->epoll_fd, operation, conn->fd, &event);
}

static void connect_now(struct wire_conn *conn)
{
    struct wire *wire = conn->wire;
    int on = 1;
    conn->fd = socket(wire->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) {
        return;
    }
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(conn->fd, (struct sockaddr *)&wire->address, wire->address_len) != 0 &&
        errno != EINPROGRESS) {
        hang_up(conn);
        return;
    }
    conn->phase = CONNECTING;
    watch(conn, EPOLL_CTL_ADD, true);
}

static void flush(struct wire_conn *conn)
{
    while (conn->out_sent < conn->out.len) {
        ssize_t sent = send(conn->fd, conn->out.ptr + conn->out_sent,
                            conn->out.len - conn->out_sent, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) {
                fail(conn);
            } else if (!conn->writing) {
                watch(conn, EPOLL_CTL_MOD, true);
            }
            return;
        }
        conn->out_sent += (size_t)sent;
        conn->wire->bytes += (uint64_t)sent;
    }
    if (conn->writing) {
        watch(conn, EPOLL_CTL_MOD, false);
    }
}

static void start(struct wire_conn *conn)
{
    conn->out_sent = 0;
    if (conn->phase == CLOSED) {
        connect_now(conn);
        if (conn->phase == CLOSED) {
            fail(conn);
        }
    } else if (conn->phase == OPEN) {
        flush(conn);
    }
}

/* A kept connection that the server closed while it was idle: the request goes out once more. */
static bool retry(struct wire_conn *conn)
{
    bool stale = conn->busy && conn->used_before && conn->in.len == 0;
    hang_up(conn);
    if (stale) {
        conn->out_sent = 0;
        connect_now(conn);
    }
    return stale && conn->phase != CLOSED;
}

static void fail(struct wire_conn *conn)
{
    if (retry(conn)) {
        return;
    }
    if (conn->is_stream) {
        conn->is_stream = false;
        conn->frame_fn(conn->arg, (struct slice){0});
    } else if (conn->busy) {
        conn->busy = false;
        struct wire_reply reply = {.sent_us = conn->sent_us, .done_us = now_mono_us()};
        conn->reply_fn(conn->arg, &reply);
    }
}

static void write_head(struct wire_conn *conn, const struct wire_request *request)
{
    struct buf *out = &conn->out;
    buf_clear(out);
    buf_add(out, request->method);
    buf_add_byte(out, ' ');
    buf_add(out, request->path);
    buf_add(out, LIT(" HTTP/1.1\r\nHost: "));
    buf_add(out, conn->wire->host);
    if (request->token.len > 0) {
        buf_add(out, LIT("\r\nAuthorization: Bearer "));
        buf_add(out, request->token);
    } else if (request->authorization.len > 0) {
        buf_add(out, LIT("\r\nAuthorization: "));
        buf_add(out, request->authorization);
    }
}

void wire_send(struct wire_conn *conn, const struct wire_request *request, wire_reply_fn fn,
               void *arg)
{
    struct buf *out = &conn->out;
    write_head(conn, request);
    if (request->body.len > 0) {
        buf_add(out, LIT("\r\nContent-Type: application/json\r\nContent-Length: "));
        buf_add_u64(out, request->body.len);
    }
    buf_add(out, LIT("\r\n\r\n"));
    buf_add(out, request->body);
    conn->busy = true;
    conn->reply_fn = fn;
    conn->arg = arg;
    conn->sent_us = now_mono_us();
    start(conn);
}

void wire_stream(struct wire_conn *conn, struct slice token, wire_frame_fn fn, void *arg)
{
    struct wire_request request = {
        .method = LIT("GET"),
        .path = LIT("/_matrix/client/unstable/io.myelin.stream/v1"),
        .token = token,
    };
    write_head(conn, &request);
    buf_add(&conn->out, LIT("\r\nUpgrade: websocket\r\nConnection: Upgrade"
                            "\r\nSec-WebSocket-Version: 13"
                            "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
                            "\r\nSec-WebSocket-Protocol: io.myelin.stream.v1\r\n\r\n"));
    conn->is_stream = true;
    conn->upgraded = false;
    conn->frame_fn = fn;
    conn->arg = arg;
    start(conn);
}

static void send_frame(struct wire_conn *conn, enum frame_opcode opcode, struct slice payload)
{
    if (conn->out_sent == conn->out.len) {
        buf_clear(&conn->out);
        conn->out_sent = 0;
    }
    frame_write(&conn->out, opcode, payload);
    if (!conn->writing) {
        flush(conn);
    }
}

void wire_text(struct wire_conn *conn, struct slice text)
{
    if (conn->is_stream && conn->upgraded) {
        send_frame(conn, FRAME_TEXT, text);
    }
}

/* Where the head of a reply ends, 0 when it is not all there. */
static size_t head_size(struct slice bytes)
{
    const char *end = memmem(bytes.ptr, bytes.len, "\r\n\r\n", 4);
    return end ? (size_t)(end - bytes.ptr) + 4 : 0;
}

static struct slice header(struct slice head, struct slice name)
{
    while (head.len > 0) {
        struct slice line, value, key;
        head = slice_cut(head, '\n', &line);
        value = slice_cut(line, ':', &key);
        if (slice_eq_nocase(key, name)) {
            return slice_trim(value);
        }
    }
    return (struct slice){0};
}

/* Joins the chunks in place when all are there; false when more is to come. */
static bool join_chunks(char *body, size_t len, struct slice *body_out)
{
    size_t at = 0, end = 0;
    bool last = false;
    for (size_t from = 0; !last;) {
        const char *line = memmem(body + from, len - from, "\r\n", 2);
        if (!line) {
            return false;
        }
        size_t size = 0;
        for (const char *c = body + from; c < line && *c != ';'; c++) {
            size = size * 16 + (size_t)(*c <= '9' ? *c - '0' : (*c | 32) - 'a' + 10);
        }
        from = (size_t)(line - body) + 2 + size + 2;
        if (from > len) {
            return false;
        }
        last = size == 0;
        end = from;
    }
    for (size_t from = 0; from < end;) {
        const char *line = memmem(body + from, end - from, "\r\n", 2);
        size_t start_at = (size_t)(line - body) + 2;
        size_t size = 0;
        for (const char *c = body + from; c < line && *c != ';'; c++) {
            size = size * 16 + (size_t)(*c <= '9' ? *c - '0' : (*c | 32) - 'a' + 10);
        }
        memmove(body + at, body + start_at, size);
        at += size;
        from = start_at + size + 2;
    }
    *body_out = (struct slice){body, at};
    return true;
}

static int status_of(struct slice head)
{
    uint64_t status = 0;
    return slice_parse_u64(slice_sub(head, 9, 3), &status) ? (int)status : 0;
}

/* Delivers the reply if it is complete. */
static void read_reply(struct wire_conn *conn)
{
    struct slice bytes = buf_slice(&conn->in);
    size_t head_len = head_size(bytes);
    if (head_len == 0) {
        return;
    }
    struct slice head = slice_sub(bytes, 0, head_len), body = slice_from(bytes, head_len);
    uint64_t length = 0;
    if (slice_parse_u64(header(head, LIT("Content-Length")), &length)) {
        if (body.len < length) {
            return;
        }
        body.len = (size_t)length;
    } else if (header(head, LIT("Transfer-Encoding")).len > 0 &&
               !join_chunks(conn->in.ptr + head_len, body.len, &body)) {
        return;
    }
    struct wire_reply reply = {status_of(head), body, conn->sent_us, now_mono_us()};
    bool closes = slice_eq_nocase(header(head, LIT("Connection")), LIT("close"));
    conn->busy = false;
    conn->used_before = true;
    if (closes) {
        close(conn->fd);
        conn->fd = -1;
        conn->phase = CLOSED;
        conn->used_before = conn->writing = false;
    }
    struct buf kept = conn->in; /* the callback may send, and so connect, again */
    buf_init(&conn->in, BYTES_MAX);
    conn->reply_fn(conn->arg, &reply);
    if (conn->in.cap == 0 && kept.cap <= KEEP_BYTES) {
        buf_clear(&kept);
        conn->in = kept;
    } else {
        buf_deinit(&kept);
    }
}

static void read_upgrade(struct wire_conn *conn)
{
    struct slice bytes = buf_slice(&conn->in);
    size_t head_len = head_size(bytes);
    if (head_len == 0) {
        return;
    }
    if (status_of(bytes) != 101) {
        fail(conn);
        return;
    }
    conn->upgraded = true;
    size_t rest = bytes.len - head_len;
    memmove(conn->in.ptr, conn->in.ptr + head_len, rest);
    conn->in.len = rest;
    conn->frame_fn(conn->arg, LIT(""));
}

static void handle_frame(struct wire_conn *conn, const struct frame *frame)
{
    switch (frame->opcode) {
    case FRAME_TEXT:
        conn->frame_fn(conn->arg, frame->payload);
        break;
    case FRAME_PING:
        send_frame(conn, FRAME_PONG, frame->payload);
        break;
    case FRAME_CLOSE:
        conn->used_before = false;
        fail(conn);
        break;
    case FRAME_CONTINUATION:
    case FRAME_BINARY:
    case FRAME_PONG:
        break;
    }
}

static void read_frames(struct wire_conn *conn)
{
    size_t from = 0;
    struct frame frame;
    while (conn->upgraded && frame_read(slice_from(buf_slice(&conn->in), from), &frame)) {
        from += frame.size;
        handle_frame(conn, &frame);
    }
    if (conn->upgraded && from > 0) {
        memmove(conn->in.ptr, conn->in.ptr + from, conn->in.len - from);
        conn->in.len -= from;
        if (conn->in.len == 0 && conn->in.cap > KEEP_BYTES) {
            buf_deinit(&conn->in);
            buf_init(&conn->in, BYTES_MAX);
        }
    }
}

static void handle_bytes(struct wire_conn *conn)
{
    if (!conn->is_stream) {
        if (conn->busy) {
            read_reply(conn);
        }
        return;
    }
    if (!conn->upgraded) {
        read_upgrade(conn);
    }
    if (conn->upgraded) {
        read_frames(conn);
    }
}

static void readable(struct wire_conn *conn)
{
    ssize_t got = recv(conn->fd, conn->wire->scratch_owned, READ_BYTES, 0);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            fail(conn);
        }
        return;
    }
    conn->wire->bytes += (uint64_t)got;
    buf_add(&conn->in, (struct slice){conn->wire->scratch_owned, (size_t)got});
    handle_bytes(conn);
}

static void handle(struct wire_conn *conn, uint32_t events)
{
    if (conn->phase == CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        int code = 0;
        socklen_t size = sizeof code;
        getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &code, &size);
        if (code != 0) {
            fail(conn);
            return;
        }
        conn->phase = OPEN;
    }
    if (conn->phase == OPEN && (events & EPOLLOUT)) {
        flush(conn);
    }
    if (conn->phase == OPEN && (events & (EPOLLIN | EPOLLERR | EPOLLHUP))) {
        readable(conn);
    }
}

void wire_poll(struct wire *wire, int64_t until_us)
{
    struct epoll_event events[EVENTS_MAX];
    int64_t wait_us = until_us - now_mono_us();
    if (wait_us < 0) {
        wait_us = 0;
    }
    struct timespec wait = {wait_us / 1000000, (wait_us % 1000000) * 1000};
    int count = epoll_pwait2(wire->epoll_fd, events, EVENTS_MAX, &wait, NULL);
    for (int i = 0; i < count; i++) {
        handle(events[i].data.ptr, events[i].events);
    }
}

bool wire_busy(const struct wire_conn *conn)
{
    return conn->busy;
}

uint64_t wire_bytes(const struct wire *wire)
{
    return wire->bytes;
}

bool wire_reachable(const struct wire *wire)
{
    int fd = socket(wire->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool reached =
        fd >= 0 && connect(fd, (const struct sockaddr *)&wire->address, wire->address_len) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return reached;
}
