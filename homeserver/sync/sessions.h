/* Who is syncing, and what changed for them. Each local user who syncs has an entry in memory that
 * is subscribed to the user's rooms once; a published change marks the entries of the users that
 * can see it and wakes their waiters, so that a poll costs what changed and a change costs those
 * who are there. Nothing here decides what a user may see: marks only say where to look.
 *
 * One mutex protects everything and is held for lookups only, never across a callback or the store
 * (rank: leaf). Spec: client-server, "Syncing". */
#pragma once
#include "homeserver/base/ctx.h"
#include "homeserver/base/workers.h"
#include "store/positions.h"

enum {
    SYNC_MARKS_MAX = 512,   /* rooms remembered as changed per user */
    SYNC_FANOUT_MAX = 4096, /* users whose neighbours wait to be told */
    SYNC_DEVICE_BYTES_MAX = 64,
};

/* Where entries learn what they cannot see in a change. */
struct sync_source {
    void *arg;
    /* Rooms that the user is joined to now, in ctx's arena. */
    struct err (*rooms_joined)(void *arg, struct ctx *ctx, uint64_t user, uint64_t **rooms_out,
                               size_t *count_out);
    /* Users with whom the user shares a room now. */
    struct err (*users_sharing)(void *arg, struct ctx *ctx, uint64_t user, uint64_t **users_out,
                                size_t *count_out);
};

struct sync_sessions;

struct sync_sessions_config {
    struct positions *positions;
    struct workers *workers;
    const struct now *now;
    struct log *log;
    struct sync_source source;
    size_t users_max; /* entries kept; those idle longest go first */
};

/* Listens to the positions from now on: call before the first reserve. */
struct sync_sessions *sync_sessions_new(const struct sync_sessions_config *config);
/* Positions and workers must have stopped, waiters be cancelled. */
void sync_sessions_free(struct sync_sessions **sessions);

/* What changed for a user after a position. */
struct sync_look {
    uint64_t upto;   /* look no further than here */
    bool nothing;    /* nothing changed after `since` */
    bool complete;   /* `rooms` names every room in which something changed after `since` */
    uint64_t *rooms; /* least recently changed first */
    size_t room_count;
    /* Newest change of each kind, or 0; to be compared with `since`. */
    uint64_t account_pos;
    uint64_t device_pos; /* to-device messages, key counts */
    uint64_t shared_pos; /* presence, profiles and device lists of anyone */
};
/* Answers from memory, but for the first time (ERR_WAITS on a loop). `upto` never decreases from
 * call to call. */
struct err sync_sessions_look(struct sync_sessions *sessions, struct ctx *ctx, uint64_t user,
                              uint64_t since, struct sync_look *look_out) MUST_USE;
/* The user is not in the room as of `upto`: its changes need no longer wake anyone. */
void sync_sessions_leave(struct sync_sessions *sessions, uint64_t user, uint64_t room,
                         uint64_t upto);

/* One parked poll or stream; the owner's memory, which must live until wake has run or
 * sync_sessions_cancel has said true. */
struct sync_waiter {
    void (*wake)(void *arg); /* on a worker, once per sync_sessions_wait */
    void *arg;
    uint64_t device;        /* hash of the id: one that is equal by chance is woken for nothing */
    struct sync_user *user; /* these belong to sessions.c */
    struct sync_waiter *next, *prev;
    enum { SYNC_WAITER_IDLE, SYNC_WAITER_ARMED, SYNC_WAITER_READY } state;
};
void sync_waiter_init(struct sync_waiter *waiter, struct slice device_id, void (*wake)(void *arg),
                      void *arg);
/* Arms the waiter for changes of the user after `upto`. False, and not armed, when there already
 * are some: look again. */
bool sync_sessions_wait(struct sync_sessions *sessions, uint64_t user, uint64_t upto,
                        struct sync_waiter *waiter);
/* True: wake will not be called. False: it was or will be. */
bool sync_sessions_cancel(struct sync_sessions *sessions, struct sync_waiter *waiter);

struct sync_sessions_stats {
    size_t users, rooms, armed;
};
/* Blocks until the user's own sessions may see what the user's requests changed so far: the replies
 * to them have left, or SYNC_HOLD_MS_MAX has passed (holds.h). */
void sync_sessions_settle(struct sync_sessions *sessions, uint64_t user);
/* Whether that would return at once. */
bool sync_sessions_settled(struct sync_sessions *sessions, uint64_t user);
void sync_sessions_get_stats(struct sync_sessions *sessions, struct sync_sessions_stats *stats_out);
