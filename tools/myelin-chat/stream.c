#include "tools/myelin-chat/stream.h"

#include "homeserver/base/mem.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/evp.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <wslay/wslay.h>

enum { HEAD_BYTES_MAX = 16384, FRAME_BYTES_MAX = 1 << 28, CONNECT_SECONDS = 15, WAIT_MS = 15000 };

struct stream {
    CURL *easy;
    wslay_event_context_ptr ws;
    struct buf early; /* bytes that came behind the head of the answer */
    size_t early_read;
    stream_frame_fn fn;
    void *arg;
    bool ended;
};

static int descriptor(const struct stream *stream)
{
    curl_socket_t fd = CURL_SOCKET_BAD;
    curl_easy_getinfo(stream->easy, CURLINFO_ACTIVESOCKET, &fd);
    return (int)fd;
}

static ssize_t receive(wslay_event_context_ptr ws, uint8_t *bytes, size_t size, int flags,
                       void *arg)
{
    struct stream *stream = arg;
    (void)flags;
    size_t got = stream->early.len - stream->early_read;
    if (got > 0) {
        got = got < size ? got : size;
        memcpy(bytes, stream->early.ptr + stream->early_read, got);
        stream->early_read += got;
        return (ssize_t)got;
    }
    CURLcode code = curl_easy_recv(stream->easy, bytes, size, &got);
    if (code == CURLE_OK && got > 0) {
        return (ssize_t)got;
    }
    stream->ended = stream->ended || code != CURLE_AGAIN;
    wslay_event_set_error(ws,
                          code == CURLE_AGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static ssize_t transmit(wslay_event_context_ptr ws, const uint8_t *bytes, size_t size, int flags,
                        void *arg)
{
    struct stream *stream = arg;
    size_t sent = 0;
    (void)flags;
    CURLcode code = curl_easy_send(stream->easy, bytes, size, &sent);
    if (code == CURLE_OK) {
        return (ssize_t)sent;
    }
    stream->ended = stream->ended || code != CURLE_AGAIN;
    wslay_event_set_error(ws,
                          code == CURLE_AGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static int make_mask(wslay_event_context_ptr ws, uint8_t *bytes, size_t size, void *arg)
{
    (void)ws;
    (void)arg;
    return getrandom(bytes, size, 0) == (ssize_t)size ? 0 : -1;
}

static void received(wslay_event_context_ptr ws, const struct wslay_event_on_msg_recv_arg *message,
                     void *arg)
{
    struct stream *stream = arg;
    (void)ws;
    if (message->opcode == WSLAY_TEXT_FRAME) {
        stream->fn(stream->arg, (struct slice){(const char *)message->msg, message->msg_length});
    } else if (message->opcode == WSLAY_CONNECTION_CLOSE) {
        stream->ended = true;
    }
}

static struct err wait_for(const struct stream *stream, short events)
{
    struct pollfd watched = {.fd = descriptor(stream), .events = events};
    return poll(&watched, 1, WAIT_MS) > 0 ? OK : err_public(ERR_TIMEOUT, "the server is silent");
}

static struct err send_all(struct stream *stream, struct slice bytes)
{
    while (bytes.len > 0) {
        size_t sent = 0;
        CURLcode code = curl_easy_send(stream->easy, bytes.ptr, bytes.len, &sent);
        if (code == CURLE_AGAIN) {
            TRY(wait_for(stream, POLLOUT));
        } else if (code != CURLE_OK) {
            return err_public(ERR_IO, curl_easy_strerror(code));
        }
        bytes = slice_from(bytes, sent);
    }
    return OK;
}

/* Reads the head of the answer; what follows it stays in stream->early. */
static struct err read_head(struct stream *stream, struct arena *arena, struct slice *head_out)
{
    buf_init(&stream->early, HEAD_BYTES_MAX + FRAME_BYTES_MAX);
    while (stream->early.len < HEAD_BYTES_MAX) {
        char bytes[4096];
        size_t got = 0;
        CURLcode code = curl_easy_recv(stream->easy, bytes, sizeof bytes, &got);
        if (code == CURLE_AGAIN) {
            TRY(wait_for(stream, POLLIN));
            continue;
        }
        if (code != CURLE_OK || got == 0) {
            return err_public(ERR_IO, "the server closed the connection");
        }
        buf_add(&stream->early, (struct slice){bytes, got});
        const char *end = memmem(stream->early.ptr, stream->early.len, "\r\n\r\n", 4);
        if (end) {
            stream->early_read = (size_t)(end - stream->early.ptr) + 4;
            *head_out = arena_copy(arena, (struct slice){stream->early.ptr, stream->early_read});
            return OK;
        }
    }
    return err_public(ERR_LIMIT, "the server's answer has too long a head");
}

static struct slice base64(struct arena *arena, const unsigned char *bytes, size_t size)
{
    unsigned char *text = arena_alloc(arena, size * 2 + 8);
    int len = EVP_EncodeBlock(text, bytes, (int)size);
    return (struct slice){(char *)text, (size_t)len};
}

/* What the server must answer to this key (RFC 6455, 4.2.2). */
static struct slice accept_value(struct arena *arena, struct slice key)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    struct slice text = arena_concat(arena, key, LIT("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    EVP_Digest(text.ptr, text.len, digest, &size, EVP_sha1(), NULL);
    return base64(arena, digest, size);
}

static struct err upgrade(struct stream *stream, struct arena *arena,
                          const struct api_options *options)
{
    unsigned char nonce[16];
    if (getrandom(nonce, sizeof nonce, 0) != (ssize_t)sizeof nonce) {
        return err_public(ERR_IO, "the system has no random bytes");
    }
    struct slice key = base64(arena, nonce, sizeof nonce), host, head;
    slice_cut(slice_from(options->server, slice_find(options->server, '/') + 2), '/', &host);
    struct slice request =
        arena_printf(arena,
                     "GET /_matrix/client/unstable/io.myelin.stream/v1 HTTP/1.1\r\nHost: %.*s\r\n"
                     "Authorization: Bearer %.*s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %.*s\r\n"
                     "Sec-WebSocket-Protocol: io.myelin.stream.v1\r\n\r\n",
                     (int)host.len, host.ptr, (int)options->token.len, options->token.ptr,
                     (int)key.len, key.ptr);
    TRY(send_all(stream, request));
    TRY(read_head(stream, arena, &head));
    if (!slice_eq(slice_sub(head, 9, 3), LIT("101")) ||
        !slice_contains(head, accept_value(arena, key))) {
        return err_public(ERR_UNAVAILABLE, "the server does not offer the stream");
    }
    return OK;
}

static struct err connect_to(struct stream *stream, struct arena *arena,
                             const struct api_options *options)
{
    stream->easy = curl_easy_init();
    if (!stream->easy) {
        return err_public(ERR_IO, "libcurl cannot start");
    }
    curl_easy_setopt(stream->easy, CURLOPT_URL, arena_cstr(arena, options->server));
    curl_easy_setopt(stream->easy, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(stream->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(stream->easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(stream->easy, CURLOPT_NOSIGNAL, 1L);
    if (options->ca_file) {
        curl_easy_setopt(stream->easy, CURLOPT_CAINFO, options->ca_file);
    }
    if (options->check == API_INSECURE) {
        curl_easy_setopt(stream->easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(stream->easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    CURLcode code = curl_easy_perform(stream->easy);
    return code == CURLE_OK ? OK : err_public(ERR_IO, curl_easy_strerror(code));
}

struct err stream_open(const struct api_options *options, stream_frame_fn fn, void *arg,
                       struct stream **stream_out)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = receive,
        .send_callback = transmit,
        .genmask_callback = make_mask,
        .on_msg_recv_callback = received,
    };
    struct stream *stream = mem_alloc(sizeof *stream);
    struct arena *arena = arena_new();
    stream->fn = fn;
    stream->arg = arg;
    struct err err = connect_to(stream, arena, options);
    if (err.code == 0) {
        err = upgrade(stream, arena, options);
    }
    if (err.code == 0 && wslay_event_context_client_init(&stream->ws, &callbacks, stream) != 0) {
        err = err_public(ERR_INTERNAL, "no memory for the stream");
    }
    arena_free(&arena);
    if (err.code != 0) {
        stream_close(&stream);
        return err;
    }
    wslay_event_config_set_max_recv_msg_length(stream->ws, FRAME_BYTES_MAX);
    *stream_out = stream;
    return OK;
}

void stream_close(struct stream **stream)
{
    if (!*stream) {
        return;
    }
    if ((*stream)->ws) {
        wslay_event_context_free((*stream)->ws);
    }
    if ((*stream)->easy) {
        curl_easy_cleanup((*stream)->easy);
    }
    buf_deinit(&(*stream)->early);
    mem_free(*stream);
    *stream = NULL;
}

struct err stream_send(struct stream *stream, struct slice text)
{
    struct wslay_event_msg message = {WSLAY_TEXT_FRAME, (const uint8_t *)text.ptr, text.len};
    if (stream->ended || wslay_event_queue_msg(stream->ws, &message) != 0) {
        return err_public(ERR_IO, "the stream ended");
    }
    return OK;
}

struct err stream_wait(struct stream *stream, int fd, int timeout_ms, bool *readable_out)
{
    short events = POLLIN | (wslay_event_want_write(stream->ws) ? POLLOUT : 0);
    struct pollfd watched[2] = {{descriptor(stream), events, 0}, {fd, POLLIN, 0}};
    bool early = stream->early_read < stream->early.len;
    int count = poll(watched, fd >= 0 ? 2 : 1, early ? 0 : timeout_ms);
    if (count < 0 && errno == EINTR) {
        return err_public(ERR_CANCELLED, "interrupted");
    }
    *readable_out = fd >= 0 && watched[1].revents != 0;
    if (watched[0].revents != 0 || early) {
        wslay_event_recv(stream->ws);
    }
    wslay_event_send(stream->ws);
    return stream->ended ? err_public(ERR_IO, "the stream ended") : OK;
}
