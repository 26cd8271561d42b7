/* The one stream position counter. Every change that a client can see gets a position; positions
 * are published in order, each only when it and all lower ones are durable. Everything that tails
 * changes (sync sessions, later pushers, federation, appservices) listens here.
 * A position is reserved, used in stored keys, written, and then completed (or abandoned). */
#pragma once
#include "store/store.h"

struct positions;

enum change_kind {
    CHANGE_EVENT,        /* room, number: an event in a room's timeline; user: the local user
                            whose own membership it changes, if it does */
    CHANGE_STATE_ONLY,   /* room: state changed without a timeline event */
    CHANGE_RECEIPT,      /* room, user */
    CHANGE_TYPING,       /* room (not stored) */
    CHANGE_MEMBERSHIP,   /* room, user: a local user's room changed without an event in its log
                            here (forgotten; invited or rejected over federation) */
    CHANGE_ACCOUNT_DATA, /* user, room or 0 */
    CHANGE_TO_DEVICE,    /* user, device_id */
    CHANGE_DEVICE_KEYS,  /* user: device list or cross-signing changed */
    CHANGE_KEY_COUNTS,   /* user, device_id: one-time or fallback key counts changed */
    CHANGE_PRESENCE,     /* user (not stored) */
    CHANGE_PUSH_RULES,   /* user */
    CHANGE_PROFILE,      /* user: a field of a local profile (not stored) */
};

struct change {
    uint64_t pos;
    enum change_kind kind;
    uint64_t room;      /* room number, 0 = none */
    uint64_t user;      /* user number, 0 = none */
    int64_t number;     /* event number in its room */
    uint64_t before;    /* the state before the event, when it changes none; 0 = look */
    char device_id[64]; /* NUL-terminated, empty = none; longer ids are cut (wakes more, never less)
                         */
    struct gate *gate;  /* of the request that made it, or NULL; valid while listeners run */
};

typedef void (*change_fn)(void *arg, const struct change *change);

/* Loads the counter from the store (META); the first position of this run is above all stored. */
struct err positions_open(struct store *store, struct ctx *ctx, struct positions **out) MUST_USE;
void positions_close(struct positions **positions);
/* Adds a listener; before the first reserve. Called on the publisher thread, in position order. */
void positions_listen(struct positions *positions, change_fn fn, void *arg);
/* Adds a callback that runs on the publisher thread after positions_published has moved to `pos`,
 * once for a run of changes whose listeners have been called. Listeners mark, this one wakes: who
 * is woken here sees the new positions_published. Before the first reserve. */
typedef void (*published_fn)(void *arg, uint64_t pos);
void positions_on_published(struct positions *positions, published_fn fn, void *arg);
/* Removes the listener and the callback of `arg`; neither runs any more when this returns. Not from
 * one of them. */
void positions_unlisten(struct positions *positions, const void *arg);
/* Reserves the next position. Must be followed by exactly one complete or abandon. */
uint64_t positions_reserve(struct positions *positions);
/* The change is written with this ticket (0 = nothing stored): publish when durable and in turn.
 * The flush is that of the job's reply (or comes within 5 ms), so that the reply leaves first. */
void positions_complete(struct positions *positions, const struct change *change, uint64_t ticket);
void positions_abandon(struct positions *positions, uint64_t pos);
/* Every change up to and including this position is durable and its listeners have run. */
uint64_t positions_published(const struct positions *positions);
/* The newest reserved position (what a reader of uncommitted rows may see). */
uint64_t positions_newest(const struct positions *positions);
/* Blocks until `pos` is published or never will be because the disk failed (tests, shutdown). */
void positions_wait(struct positions *positions, uint64_t pos);
