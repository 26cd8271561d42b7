/* What this server sends to the pushers of its users. One consumer of the stream of changes decides
 * which of them an event concerns and writes a row for each (service/push_queue.h); each pusher
 * that has something to send is one small struct and, while it sends, one job of the waiting pool.
 *
 * A row is deleted when the gateway has taken it, so that nothing is lost by a crash, and sent
 * again is only what the gateway had under the same event id. One job sends for a pusher, in the
 * order of the events. At most PUSH_SENDING_MAX jobs run at once, and PUSH_DOUBTFUL_MAX of them for
 * gateways that do not answer; of such a gateway one pusher tries, and all others wait for the
 * outcome. Spec: client-server, "Push Notifications"; push-gateway, "Push Gateway API". */
#pragma once
#include "crypto/p256.h"
#include "homeserver/http/fetch.h"
#include "homeserver/service/pushers.h"

struct push;

enum {
    PUSH_SENDING_MAX = 48,
    PUSH_DOUBTFUL_MAX = 24,
    PUSH_GATEWAY_SENDING_MAX = 16,
    PUSH_GATEWAY_NEW_MAX = 4, /* of one that has not answered yet */
    PUSH_QUEUE_MAX = 1000,    /* rows of one pusher: the oldest go first */
};

/* The way out; replaced in tests. */
struct push_port {
    struct err (*fetch)(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out);
    void *arg;
};

struct push_config {
    struct push_port port;             /* fetch NULL: hs->fetcher */
    const unsigned char *vapid_secret; /* P256_SECRET_BYTES; NULL: nothing is sent by web push */
};

/* Listens to the stream of changes: before the first position is reserved. */
struct push *push_new(struct hs *hs, const struct push_config *config);
struct err push_start(struct push *push) MUST_USE;
/* Nothing is decided any more when this returns; what sends ends with the fetcher and the waiting
 * pool. */
void push_stop(struct push *push);
/* The same as a crash would (tests). */
void push_abandon(struct push *push);
/* After the waiting pool was joined. */
void push_free(struct push **push);
/* Waits until all that is published was decided upon and nobody sends (tests). */
void push_settle(struct push *push);

/* The public key of the server's web push, uncompressed; false: it has none. */
bool push_vapid_public(struct push *push, unsigned char public_out[P256_PUBLIC_BYTES]);
/* Sends the token that activates a pusher, which was set just now. push may be NULL. */
struct err push_activation(struct push *push, struct ctx *ctx, uint64_t user,
                           const struct pusher *pusher) MUST_USE;
