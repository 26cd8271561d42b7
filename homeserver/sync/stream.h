/* The WebSocket stream: /sync pushed, with acknowledgements. spec/stream.md is the protocol.
 *
 * A stream is always in one of a few phases: it waits for `auth`, computes an answer, waits for the
 * acknowledgement of one, or waits for news. Only then is anything kept beside this one struct. */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/service/requester.h"
#include "homeserver/sync/sync.h"

#define SYNC_STREAM_PROTOCOL "io.myelin.stream.v1"

struct sync_streams;

/* Starts the thread that watches over deadlines and tokens of streams. */
struct sync_streams *sync_streams_new(struct sync *sync);
/* Streams must be closed. */
void sync_streams_free(struct sync_streams **streams);

/* Takes the connection over. `token` is the access token of the header, or empty. */
struct err sync_stream_open(struct sync *sync, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply) MUST_USE;
