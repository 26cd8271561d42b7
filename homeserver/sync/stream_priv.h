/* Inside of the stream: its state and its frames. */
#pragma once
#include "homeserver/service/ephemeral.h"
#include "homeserver/sync/params.h"
#include "homeserver/sync/priv.h"
#include "homeserver/sync/stream.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    STREAM_AUTH_MS = 10 * 1000,
    STREAM_ACK_MS = 10 * 60 * 1000,
    STREAM_TOUCH_MS = 20 * 1000, /* presence, last seen, is the token still good */
    STREAM_FRAME_BYTES_MAX = 128 * 1024,
    STREAM_BODY_BYTES_MAX = 1 << 29,
    STREAMS_MAX = 200000,
    STREAM_ID_BYTES_MAX = 64,
};

enum stream_close {
    STREAM_CLOSE_TOO_LARGE = 1009,
    STREAM_CLOSE_INTERNAL = 1011,
    STREAM_CLOSE_BAD_FRAME = 4000,
    STREAM_CLOSE_TOKEN = 4001,
    STREAM_CLOSE_NO_AUTH = 4002,
    STREAM_CLOSE_PARAMETER = 4003,
    STREAM_CLOSE_NO_ACK = 4004,
    STREAM_CLOSE_LIMIT = 4029,
};

enum stream_phase {
    STREAM_OPENING,     /* waits for auth */
    STREAM_COMPUTING,   /* a worker makes an answer */
    STREAM_WAITING,     /* for news */
    STREAM_OUTSTANDING, /* for an acknowledgement */
    STREAM_CLOSED,
};

struct stream {
    struct sync *sync;
    struct sync_streams *streams;
    struct stream *next, *prev; /* under streams->lock */
    pthread_mutex_t lock;       /* protects ws, phase, sent and deadline; held while queueing a
                                   frame, which neither blocks nor calls back */
    struct http_ws *ws;         /* NULL after the close */
    enum stream_phase phase;
    struct sync_token sent;   /* of the outstanding answer */
    int64_t deadline_mono_ms; /* of auth or acknowledgement; 0 = none */
    struct sync_waiter waiter;
    struct sync_params params; /* set by auth, changed by whoever computes */
    char *token_owned;
    size_t token_len;
    enum presence presence;
    bool greeted;      /* the first answer has been sent */
    bool is_unlimited; /* whose frames are not limited */
    _Atomic int refs;
};

/* --- stream.c --- */
/* An answer for the last acknowledged position, or waiting for news. Takes a reference. */
void stream_compute(struct stream *stream, struct ctx *ctx);
/* Whether the token still counts. Otherwise the stream is closed and false. */
bool stream_check_token(struct stream *stream, struct ctx *ctx);
/* Ends with an error frame (codes from 4000) and a close. */
void stream_fail(struct stream *stream, struct ctx *ctx, uint16_t close, struct err err);
/* The same with `soft_logout` said. */
void stream_fail_token(struct stream *stream, struct ctx *ctx, struct err err, bool soft_logout);
/* Queues a frame; false when the connection is gone. */
bool stream_put(struct stream *stream, struct slice text);
void stream_hold(struct stream *stream);
void stream_release(struct stream *stream);

/* --- stream_frames.c --- */
void stream_on_text(void *arg, struct ctx *ctx, struct slice text);

/* --- stream_watch.c --- */
/* False: too many. */
bool streams_add(struct sync_streams *streams, struct stream *stream);
void streams_remove(struct sync_streams *streams, struct stream *stream);
