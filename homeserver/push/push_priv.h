/* Inside of push. `lock` guards targets and gateways; it is a leaf. */
#pragma once
#include "homeserver/base/map.h"
#include "homeserver/push/push.h"
#include "homeserver/service/push_queue.h"
#include "homeserver/service/tail.h"

#include <pthread.h>

enum target_state {
    TARGET_IDLE,    /* nothing to do: goes */
    TARGET_READY,   /* in its gateway's queue */
    TARGET_SENDING, /* a job runs */
    TARGET_WAITING, /* until retry_ms */
};

struct push_dest {
    struct push *push;
    struct push_gateway *gateway;
    struct push_dest *next; /* in the gateway's queue, or among those that wait */
    enum target_state state;
    bool has_items;   /* rows may wait */
    bool wants_badge; /* its count may have fallen */
    bool is_doubtful; /* counts as such while it sends */
    uint32_t failures;
    int64_t retry_ms; /* wall */
    size_t queued;    /* rows, about */
    uint64_t user;
    size_t key_len;
    char key[]; /* be64 user, then hs_pusher_name */
};

struct push_gateway {
    struct push_gateway *next; /* among those with ready targets */
    struct push_dest *first, *last;
    size_t sending, target_count;
    uint32_t failures; /* in a row, of the gateway itself */
    bool has_answered, is_listed;
    int64_t retry_ms; /* wall; with failures */
    int64_t taken_ms; /* when it took something last; wall */
    size_t name_len;
    char name[]; /* scheme and authority of its URL */
};

struct push {
    struct hs *hs;
    struct push_port port;
    const unsigned char *vapid_secret; /* NULL = none */
    struct p256_key vapid;             /* see push_vapid; constant once it is there */
    bool has_vapid;                    /* under the lock */
    struct hs_tail *tail;
    uint64_t replay_upto; /* changes up to here may have been handled by a run before */

    pthread_mutex_t lock;
    pthread_cond_t calm; /* nobody sends any more */
    struct map *targets; /* be64 user and name -> struct push_dest * */
    struct map *gateways;
    struct push_gateway *listed_first, *listed_last;
    size_t listed_count;
    struct push_dest *waiting;
    size_t sending, doubtful;
    bool stopping;
};

/* --- targets.c --- */
struct slice push_dest_name(const struct push_dest *target);
struct push_wish {
    uint64_t user;
    const struct pusher *pusher;
    bool has_items, wants_badge;
    size_t queued, dropped; /* rows that came and went */
};
/* Something is to be done for a pusher; *queued_out (may be NULL): its rows, about. */
void push_wish(struct push *push, struct ctx *ctx, const struct push_wish *wish,
               size_t *queued_out);
/* Gives ready targets to the waiting pool; when it has to be called again at the latest (wall ms;
 * 0 = no need). */
int64_t push_pump(struct push *push);
/* The key of web push, computed by the first who asks; NULL: there is none. Lives as long as push.
 */
const struct p256_key *push_vapid(struct push *push);
/* How a job ended. */
enum push_end {
    PUSH_DONE,           /* nothing is left */
    PUSH_MORE,           /* others have their turn */
    PUSH_PUSHER_FAILED,  /* this pusher is tried again later */
    PUSH_GATEWAY_FAILED, /* and so are all of the gateway */
    PUSH_STORE_FAILED,
};
struct push_outcome {
    enum push_end end;
    bool has_answered;   /* the gateway did, whatever it said */
    bool has_taken;      /* something */
    int64_t retry_after; /* ms that it asks for; 0 = none */
};
void push_job_ended(struct push_dest *target, const struct push_outcome *outcome);
void push_dests_free(struct push *push);
/* Longer with each failure, up to an hour, give or take a fifth. */
int64_t push_pause_ms(uint32_t failures);

/* --- decide.c: the tail's --- */
struct err push_on_change(void *push, struct ctx *ctx, const struct change *change) MUST_USE;
struct err push_on_lost(void *push, struct ctx *ctx) MUST_USE;
/* Wakes all pushers for which rows wait. */
struct err push_resume(struct push *push, struct ctx *ctx) MUST_USE;

/* --- pusher_data.c: what a pusher's JSON says --- */
enum pusher_kind { PUSHER_NONE, PUSHER_HTTP, PUSHER_WEBPUSH };
struct pusher_data {
    enum pusher_kind kind;
    bool is_enabled; /* and activated, if it has to be */
    bool event_id_only;
    struct slice url;
    struct slice gateway;    /* scheme and authority of the URL */
    struct slice auth;       /* of web push */
    const struct json *data; /* NULL = none */
};
void push_read_pusher(struct arena *arena, const struct pusher *pusher,
                      struct pusher_data *data_out);

/* --- notice.c: what is said of an event --- */
struct push_notice {
    struct slice event_id; /* empty: it is about counts alone */
    struct slice room_id, type, sender, sender_name, room_name, room_alias;
    struct slice membership; /* of a member event */
    struct slice content;    /* JSON; empty = none */
    bool is_member, is_target;
    bool is_urgent;
    struct slice tweaks; /* JSON object */
    uint32_t unread, missed_calls;
};
/* found false: there is nothing to say any more: the event is gone, redacted or read, or the user
 * has left. */
struct push_subject {
    uint64_t user;
    const struct push_item *item;
};
struct err push_notice_load(struct hs *hs, struct ctx *ctx, const struct push_subject *subject,
                            struct push_notice *notice_out, bool *found_out) MUST_USE;
/* Counts unread notifications in all rooms of a user into the notice, at position `upto` or what is
 * published by now. */
struct err push_count_unread(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t upto,
                             struct push_notice *notice) MUST_USE;

/* --- payload.c --- */
/* The body of /_matrix/push/v1/notify. */
void push_write_http(struct buf *out, const struct push_notice *notice, const struct pusher *pusher,
                     const struct pusher_data *data);
/* The text of a web push message, no longer than bytes_max: what does not fit is left out. */
struct slice push_write_web(struct arena *arena, const struct push_notice *notice,
                            const struct pusher_data *data, size_t bytes_max);
/* Whether the answer of a gateway rejects the key. */
bool push_is_rejected(struct arena *arena, struct slice body, struct slice pushkey);

/* --- send.c --- */
void push_send_job(void *target);
/* One message on its way. */
enum push_verdict_kind {
    PUSH_TAKEN,
    PUSH_KEY_GONE, /* the pusher is to be removed */
    PUSH_REFUSED,  /* this message */
    PUSH_LATER,    /* the pusher's, or the gateway's, fault */
    PUSH_GATEWAY_OUT,
    PUSH_CANCELLED,
};
struct push_letter {
    const struct pusher *pusher;
    const struct pusher_data *data;
    const struct push_notice *notice; /* NULL: the activation token */
};
struct push_reception {
    enum push_verdict_kind kind;
    bool has_answered;
    int64_t retry_after_ms;
    int status;
};
struct push_reception push_deliver(struct push *push, struct ctx *ctx,
                                   const struct push_letter *letter);
