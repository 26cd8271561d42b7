/* The WebSocket stream of spec/stream.md, client side: frames by wslay, the connection (and TLS) by
 * libcurl. */
#pragma once
#include "tools/myelin-chat/api.h"

struct stream;

/* One text message of the server. */
typedef void (*stream_frame_fn)(void *arg, struct slice text);

/* Connects and upgrades; ERR_UNAVAILABLE when the server does not offer the stream. */
struct err stream_open(const struct api_options *options, stream_frame_fn fn, void *arg,
                       struct stream **stream_out) MUST_USE;
void stream_close(struct stream **stream);
/* Queues a text message; the next stream_wait sends it. */
struct err stream_send(struct stream *stream, struct slice text) MUST_USE;
/* Waits up to timeout_ms for frames, or for `fd` (-1 = none) to become readable, which
 * *readable_out tells. ERR_IO when the connection ended. */
struct err stream_wait(struct stream *stream, int fd, int timeout_ms, bool *readable_out) MUST_USE;
