/* What this server sends to others by itself: events of its users, and EDUs. One thread tails the
 * stream of changes and gives each event to the destinations that hear of it; each destination that
 * has something to send is one small struct: a job makes its transaction, another takes the answer.
 *
 * Durable is little: how far the stream has been given out, and for each destination how far it
 * has got (service/destinations.h). Events stay in their rooms' logs. After a crash the logs are
 * read again from the last mark on; what a destination already has stands below its own mark.
 *
 * A destination that waits for an answer holds no thread, so servers that fall silent do not keep
 * the living waiting: at most OUTBOX_SENDING_MAX attempts run, of those to servers without a
 * connection OUTBOX_FAR_MAX, of those that have not answered lately OUTBOX_DOUBTFUL_MAX. Servers
 * with an open connection come first: they cost little, and most of those that died lost theirs.
 * The pace is what this machine can do: an attempt begins when fewer
 * than OUTBOX_STARTING_MAX have yet to reach the network's thread.
 *
 * Spec: server-server, "Transactions", "PDUs", "EDUs". */
#pragma once
#include "federation/fed.h"
#include "federation/room_servers.h"

struct outbox;

enum {
    OUTBOX_PDUS_MAX = 50, /* of one transaction; Spec: server-server, "Transactions" */
    OUTBOX_EDUS_MAX = 100,
    OUTBOX_CATCH_UP = 100, /* more waiting events than that: the newest of each room */
    OUTBOX_LIVE_MAX = 10000,
    OUTBOX_PASSING_MAX = 500, /* EDUs that are not durable, of one destination */
    OUTBOX_STARTING_MAX = 64,
    OUTBOX_SENDING_MAX = 8000,
    OUTBOX_FAR_MAX = 6000, /* of these, to servers without a connection */
    OUTBOX_FAR_TURN = 32,  /* one turn of so many is one of theirs */
    OUTBOX_CROWDED = 1500, /* more attempts than that: none has long to answer */
    OUTBOX_DOUBTFUL_MAX = 512,
    OUTBOX_KEPT_MAX = 20000, /* idle destinations in memory */
};

struct outbox_letter {
    struct slice destination, txn_id, body;
    bool is_forced;  /* to a server that is left alone, too */
    bool is_hurried; /* many others wait */
};

/* Told once how it went; on a thread that may use the store. */
struct outbox_receipt {
    /* The first question is on its way; any thread, not always called. Calls nothing that waits. */
    void (*started)(void *arg);
    void (*fn)(void *arg, struct ctx *ctx, struct err err, const struct fed_answer *answer);
    void *arg;
};

/* The way out; replaced in tests. */
struct outbox_port {
    /* Sends a transaction; `body` is its canonical JSON. Waits for nothing; the receipt may come
     * before it returns. ERR_UNAVAILABLE and the like when there was no answer. */
    void (*send)(void *arg, struct ctx *ctx, const struct outbox_letter *letter,
                 const struct outbox_receipt *receipt);
    /* Whether a call would be refused for back-off; until when (wall ms). */
    bool (*is_down)(void *arg, struct slice server, int64_t *until_out);
    /* Whether a connection to the server is open; waits for nothing. NULL: never. */
    bool (*is_near)(void *arg, struct slice server);
    room_acl_fn acl;
    size_t sending_max;   /* attempts that run, for fewer descriptors; 0 = OUTBOX_SENDING_MAX */
    struct workers *pool; /* for the short jobs before and after; NULL = the waiting pool */
    void *arg;
};

/* Listens to the stream of changes: before the first position is reserved. */
struct err outbox_new(struct hs *hs, const struct outbox_port *port,
                      struct outbox **outbox_out) MUST_USE;
struct err outbox_start(struct outbox *outbox) MUST_USE;
/* Nothing is sent any more when this returns; the fetcher must have been stopped, or answer soon.
 */
void outbox_stop(struct outbox *outbox);
/* The same without writing down how far it got, as if the power had gone (tests). */
void outbox_abandon(struct outbox *outbox);
void outbox_free(struct outbox **outbox);

/* See fed_edu_queue. */
struct err outbox_queue(struct outbox *outbox, struct ctx *ctx, const struct slice *servers,
                        size_t count, const struct fed_edu *edu) MUST_USE;
/* The server answered or asked something: whatever waits for it goes out now. */
void outbox_peer_alive(struct outbox *outbox, struct slice server);
/* The same by order of the operator, also for a server that is down; empty = all. */
size_t outbox_retry(struct outbox *outbox, struct slice server);
struct destination_live;
void outbox_look(struct outbox *outbox, struct slice server, struct destination_live *live_out);
/* Waits until all that is published has been given out and nobody sends (tests). */
void outbox_settle(struct outbox *outbox);
