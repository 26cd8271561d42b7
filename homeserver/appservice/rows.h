/* What waits for an application service, durable: one object for each, (STORE_APPSERVICE, id).
 * Events stay in the logs of their rooms; a row names one, under its position. A user whose devices
 * are to be looked at has a row, too. The transaction under way stands here whole, so that a retry
 * sends the same bytes again, and what went into it has left the other rows in the same write.
 *
 * Writers: the thread that tails the stream adds rows, the one job that sends to the service takes
 * them. Spec: application-service, "Pushing events". */
#pragma once
#include "homeserver/service/hs.h"

struct as_state {
    uint64_t next_txn; /* id of the next transaction; 0 = none was made yet */
    uint64_t sent_pos; /* every event for it up to here went into a transaction */
    int64_t last_success_ms;
    int64_t failed_since_ms; /* 0 = the last attempt succeeded */
    uint32_t failures;       /* in a row */
    struct slice failure;    /* reason of the last one */
};
struct err as_state_load(struct hs *hs, struct ctx *ctx, struct slice id,
                         struct as_state *state_out) MUST_USE;
void as_state_put(struct ctx *ctx, struct store_update *update, const struct as_state *state);
struct store_update *as_rows_update(struct ctx *ctx, struct slice id);

/* --- events --- */
struct as_event_row {
    uint64_t pos;
    uint64_t room;
    int64_t number;
};
void as_event_put(struct ctx *ctx, struct store_update *update, const struct as_event_row *row);
void as_event_delete(struct ctx *ctx, struct store_update *update, uint64_t pos);
/* The oldest at or below `upto`, at most `limit`. */
struct err as_events_read(struct hs *hs, struct ctx *ctx, struct slice id, uint64_t upto,
                          size_t limit, struct as_event_row **rows_out, size_t *count_out) MUST_USE;
/* All of them, counted. */
struct err as_events_count(struct hs *hs, struct ctx *ctx, struct slice id,
                           size_t *count_out) MUST_USE;

/* --- users to look at --- */
enum as_look {
    AS_LOOK_INBOX = 1,  /* messages for devices of this user of the service */
    AS_LOOK_COUNTS = 2, /* counts of keys of its devices */
    AS_LOOK_LIST = 4,   /* the device list changed, as those who share a room with it see it */
    AS_LOOK_LEFT = 8,   /* somebody who may share no room any more */
};
struct as_user_row {
    uint64_t user;
    uint32_t looks; /* enum as_look */
    uint64_t pos;   /* of the newest change: two rows with one differ in nothing */
};
void as_user_put(struct ctx *ctx, struct store_update *update, const struct as_user_row *row);
/* Deletes the row unless it changed since it was read. */
void as_user_take(struct ctx *ctx, struct store_update *update, const struct as_user_row *row);
struct err as_user_read(struct hs *hs, struct ctx *ctx, struct slice id, uint64_t user,
                        struct as_user_row *row_out, bool *found_out) MUST_USE;
struct err as_users_read(struct hs *hs, struct ctx *ctx, struct slice id, size_t limit,
                         struct as_user_row **rows_out, size_t *count_out) MUST_USE;

/* --- inboxes: messages up to here went into a transaction that was taken --- */
struct as_inbox_mark {
    uint64_t user;
    struct slice device_id;
    uint64_t pos;
};
void as_inbox_mark_put(struct ctx *ctx, struct store_update *update,
                       const struct as_inbox_mark *mark);
struct err as_inbox_mark_read(struct hs *hs, struct ctx *ctx, struct slice id, uint64_t user,
                              struct slice device_id, uint64_t *pos_out) MUST_USE;

/* --- the transaction under way --- */
struct as_txn {
    uint64_t id;
    uint64_t event_count, other_count;
    struct slice body;
    struct as_inbox_mark *inboxes;
    size_t inbox_count;
};
struct err as_txn_load(struct hs *hs, struct ctx *ctx, struct slice id, struct as_txn *txn_out,
                       bool *found_out) MUST_USE;
void as_txn_put(struct ctx *ctx, struct store_update *update, const struct as_txn *txn);
void as_txn_delete(struct store_update *update);
