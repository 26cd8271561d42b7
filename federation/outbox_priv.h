/* Inside of the outbox, a consumer of the stream of changes. `lock` guards all destinations; what
 * the tail's thread and the sending jobs read from the store or write there, they do without it.
 * hs_tail_poke is all that is called under it. */
#pragma once
#include "federation/outbox.h"
#include "homeserver/base/map.h"
#include "homeserver/service/destinations.h"
#include "homeserver/service/tail.h"

#include <pthread.h>

/* An EDU that is not durable; destinations share it. */
enum passing_kind {
    PASSING_WHOLE,    /* json: the EDU */
    PASSING_PRESENCE, /* json: an entry of `push` */
    PASSING_RECEIPT,  /* json: the receipt of `user` in `room` */
};
struct passing {
    uint32_t refs; /* under outbox.lock */
    enum passing_kind kind;
    struct slice key; /* a newer one with the same key takes the place; empty = none */
    struct slice room, user;
    struct slice json;
    char bytes[];
};

enum dest_state {
    DEST_IDLE,    /* nothing to send */
    DEST_READY,   /* stands in a ready list */
    DEST_SENDING, /* a job runs, or an answer is awaited */
    DEST_CHORE,   /* the tail thread has to do something first */
    DEST_WAITING, /* until next_try_ms */
};

struct dest {
    struct outbox *outbox;
    struct dest *ready_next;
    bool is_starting; /* sends, and has not reached the network */
    size_t rounds;    /* transactions in a row */
    enum dest_state state;
    bool is_proven;   /* the last attempt succeeded */
    bool is_near;     /* a connection was open when something came for it */
    bool is_far_sent; /* sends, and was not near */
    bool has_txn;     /* a transaction is stored and not acknowledged */
    bool has_edus;    /* rows of EDUs may be there */
    bool has_marks;   /* rows of marks may be there */
    bool reload;      /* events wait that only the marks know */
    bool is_dirty;    /* stands in outbox.dirty */
    bool has_chore;   /* stands in outbox.chores */
    bool is_forced;   /* the operator wants it tried now */
    uint32_t singles; /* so many more items go one by one, after a transaction was refused */
    uint32_t failures;
    uint64_t acknowledged;
    int64_t last_success_ms, failed_since_ms;
    int64_t next_try_ms;
    size_t timer;                     /* place in the heap + 1; 0 = not there */
    struct destination_event *events; /* ascending by position, events[first ..] */
    size_t first, count, cap;
    struct passing **passing;
    size_t passing_count, passing_cap;
    size_t name_len;
    char name[];
};

struct dest_list {
    struct dest **items;
    size_t count, cap;
};
struct ready_list {
    struct dest *first, *last;
};

struct outbox {
    struct hs *hs;
    struct outbox_port port;
    struct hs_tail *tail;
    bool is_running;
    pthread_mutex_t lock; /* everything below but what is said to be the tail's */
    pthread_cond_t calm;  /* for outbox_settle and outbox_stop */
    bool stopping;
    bool is_busy; /* chores are being done */
    struct map *dests;
    struct ready_list near, far, doubtful; /* the first two are proven */
    size_t sending_max, far_max;
    size_t sending, far_sending, doubtful_sending, ready;
    size_t turns;
    size_t starting;
    size_t leaving;          /* jobs that have sent and still use the outbox */
    struct dest_list timers; /* heap by next_try_ms */
    struct dest_list chores;

    /* the tail's */
    bool is_resumed; /* what waits since the last run is on its way */
    struct dest_list dirty;
    struct room_servers *servers, *servers_now;
    struct edus_out *edus;
};

/* --- outbox.c --- */
struct slice dest_name(const struct dest *dest);
/* The destination, made and loaded when it is new. For the tail, which alone drops idle ones. */
struct err outbox_dest(struct outbox *outbox, struct ctx *ctx, struct slice server,
                       struct dest **dest_out) MUST_USE;
/* The same for everybody; on success the lock is held. */
struct err outbox_lock_dest(struct outbox *outbox, struct ctx *ctx, struct slice server,
                            struct dest **dest_out) MUST_USE;
void dest_list_add(struct dest_list *list, struct dest *dest);
/* Without the lock, before something is put down for the server: whether it is near. */
bool outbox_sees_near(const struct outbox *outbox, struct slice server);
/* Lock held: something waits for the destination. */
void outbox_wake(struct outbox *outbox, struct dest *dest);
/* Lock held: the end of a job. */
void outbox_wait(struct outbox *outbox, struct dest *dest, int64_t until_ms);
void outbox_chore(struct outbox *outbox, struct dest *dest);
bool dest_has_work(const struct dest *dest);
/* The tail's: forgets idle destinations when there are too many. */
void outbox_drop_idle(struct outbox *outbox);
/* Without the lock: gives ready destinations to the waiting pool. */
void outbox_pump(struct outbox *outbox);
/* Lock held: takes due destinations off the heap; when the next one is due (0 = none). */
int64_t outbox_run_timers(struct outbox *outbox, int64_t now_ms);
/* Lock held: an attempt has reached the network; whether that lets another one begin. */
bool outbox_note_start(struct outbox *outbox, struct dest *dest);
/* Lock held: the end of an attempt. */
void outbox_end_attempt(struct outbox *outbox, struct dest *dest);

/* --- outbox_tail.c --- */
struct hs_tail *outbox_tail_new(struct outbox *outbox);

/* --- outbox_give.c: events to destinations, marks --- */
struct err outbox_give_event(struct outbox *outbox, struct ctx *ctx, const struct change *change,
                             struct stored_event *event_out, bool *found_out) MUST_USE;
/* Whether its destinations hear of it (scanned is enough). */
bool outbox_tells(const struct outbox *outbox, const struct stored_event *event);
/* Writes down what waits, for destinations where that has changed. */
struct err outbox_flush(struct outbox *outbox, struct ctx *ctx) MUST_USE;
/* Writes down what waits in memory and forgets it there. */
struct err outbox_spill(struct outbox *outbox, struct ctx *ctx, struct dest *dest) MUST_USE;
/* Reads what waits from the marks and the logs. */
struct err outbox_reload(struct outbox *outbox, struct ctx *ctx, struct dest *dest) MUST_USE;
/* Wakes destinations for which something waits since the last run. */
struct err outbox_resume(struct outbox *outbox, struct ctx *ctx) MUST_USE;

/* --- outbox_send.c --- */
void outbox_send_job(void *dest);

/* --- outbox_passing.c --- */
struct passing_draft {
    enum passing_kind kind;
    struct slice key, room, user, json;
};
struct passing *passing_new(const struct passing_draft *draft);
/* Lock held. */
void passing_release(struct passing *passing);
void dest_pass(struct dest *dest, struct passing *passing);
void dest_drop_passing(struct dest *dest);
/* Lock held: takes EDUs for a transaction, up to `max`, writes them joined by commas, and returns
 * how many they became. */
size_t dest_take_passing(struct dest *dest, struct ctx *ctx, size_t max, struct buf *out);
/* Queues it for servers; none of them is a durable one's concern. */
struct err outbox_pass(struct outbox *outbox, struct ctx *ctx, struct server_names servers,
                       const struct passing_draft *draft) MUST_USE;

/* --- edus_out.c: the tail's --- */
struct edus_out *edus_out_new(struct outbox *outbox);
void edus_out_free(struct edus_out **edus);
struct err edus_out_change(struct edus_out *edus, struct ctx *ctx,
                           const struct change *change) MUST_USE;
/* A member event of a room, whoever sent it. */
struct err edus_out_member(struct edus_out *edus, struct ctx *ctx, struct room *room,
                           const struct stored_event *event) MUST_USE;
/* Typing and presence are said again before the others let them expire: when (wall ms; 0 = no
 * need). */
int64_t edus_out_next(const struct edus_out *edus);
struct err edus_out_refresh(struct edus_out *edus, struct ctx *ctx) MUST_USE;
/* --- device_lists_out.c --- */
/* Tells the servers that share a room with a local user what changed of its devices since they were
 * last told. */
struct err device_lists_publish(struct outbox *outbox, struct ctx *ctx, uint64_t user) MUST_USE;
/* Tells servers that share a room since now. */
struct err device_lists_announce(struct outbox *outbox, struct ctx *ctx, uint64_t user,
                                 struct server_names servers) MUST_USE;
/* Servers that share a room with a local user now; sorted, in the arena. `but_room` is left out. */
struct err outbox_sharing_servers(struct outbox *outbox, struct ctx *ctx, uint64_t user,
                                  uint64_t but_room, struct server_names *names_out) MUST_USE;
