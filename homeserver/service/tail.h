/* Consumers of the stream of changes that survive restarts: search, pushers, application services,
 * what goes to other servers.
 * Each has one thread, which hands it the changes it asked for in order of position and writes
 * down how far it got, so that nothing is lost by a crash. Events above the last mark are handed
 * over again after one: `handle` writes rows whose keys come from the event or its position, and a
 * second time changes nothing.
 *
 * The mark is one number (STORE_SERVER, "tails", name), written about once a second and at the end.
 * Changes of other kinds than CHANGE_EVENT are not kept by the stream: after a crash, or when a
 * consumer fell too far behind, `lost` tells it to look at what is there now. */
#pragma once
#include "homeserver/service/hs.h"

struct hs_tail;
struct stored_event;

/* A row of (STORE_SERVER, object). */
struct hs_tail_place {
    const char *object, *key;
};

/* The position of a consumer's last mark, for one that keeps its rows elsewhere; found false: it
 * has none. */
struct err hs_tail_mark(struct hs *hs, struct ctx *ctx, const char *name, uint64_t *pos_out,
                        bool *found_out) MUST_USE;

struct hs_tail_port {
    const char *name; /* of the mark, which never changes; and of the thread */
    /* Where the mark stands, of a consumer older than the common place; NULL = there. */
    const struct hs_tail_place *place;
    uint32_t kinds; /* bits TAIL_KIND(CHANGE_...) */
    enum {
        TAIL_FROM_NOW,  /* a consumer without a mark starts with what comes next */
        TAIL_FROM_START /* it is handed all events of all rooms first */
    } start;
    /* How long changes may wait for others, so that a run of them wakes the thread but once; 0 =
     * not at all. hs_tail_poke and hs_tail_settle end the wait. */
    int64_t linger_ms;
    void *arg;
    /* One change, on the tail's thread, in no lane; change->gate is NULL, and an event that is
     * handed over again names no user. ERR_M_NOT_FOUND and ERR_CORRUPT are logged and passed over;
     * after any other error the same change comes again in a second, and nothing after it before.
     * The ctx's memory ends with the call. */
    struct err (*handle)(void *arg, struct ctx *ctx, const struct change *change);
    /* Which events matter to it, asked when the logs are read again; scanned events. NULL = all. */
    bool (*wants)(void *arg, const struct stored_event *event);
    /* Housekeeping after a run of changes, after hs_tail_poke and when it is due: sets
     * *next_wall_ms to when it wants to be called at the latest (0 = no need). May be NULL. */
    struct err (*rest)(void *arg, struct ctx *ctx, int64_t *next_wall_ms);
    /* Before the mark is written: what was handled must be in the store, or wherever the consumer
     * keeps it, when this returns. May be NULL. */
    struct err (*flush)(void *arg, struct ctx *ctx);
    /* Changes that are no events may have been missed, of those above hs_tail_position. Before
     * anything else is handed over. May be NULL. */
    struct err (*lost)(void *arg, struct ctx *ctx);
};
#define TAIL_KIND(kind) (1u << (unsigned)(kind))

/* Copies the port. The tail listens from now on; before requests arrive. */
struct hs_tail *hs_tail_new(struct hs *hs, const struct hs_tail_port *port);
/* Starts the thread, which first hands over what came after the mark. */
struct err hs_tail_start(struct hs_tail *tail) MUST_USE;
/* Any thread, also one that holds a lock of its own: `rest` is called soon. */
void hs_tail_poke(struct hs_tail *tail);
/* Blocks until everything published by now was handled and `rest` has run once more (tests). */
void hs_tail_settle(struct hs_tail *tail);
/* Changes up to here are handled (any thread). */
uint64_t hs_tail_position(struct hs_tail *tail);
/* Handles what is published, writes the mark and ends the thread. Before the positions close. */
void hs_tail_stop(struct hs_tail *tail);
/* Stops as a crash would: nothing more is handled or written (tests). */
void hs_tail_abandon(struct hs_tail *tail);
void hs_tail_free(struct hs_tail **tail);
