/* What is to be sent to a user's pushers and is not acknowledged yet: rows of (STORE_PUSHES, user),
 * one for each pusher and event, and a mark for each pusher. A row's key comes from the position of
 * the event, so that writing it twice changes nothing; what is not above the pusher's mark was
 * sent. Spec: client-server, "Push Notifications". */
#pragma once
#include "homeserver/service/pushers.h"

struct push_item {
    uint64_t pos;         /* of the event; 0: the token that activates the pusher */
    uint64_t room;        /* 0 with pos 0 */
    int64_t number;       /* of the event; 0: an invite to a room that is not known here */
    int64_t queued_ms;    /* wall */
    struct slice actions; /* of the rule that matched: a JSON array */
};
struct push_items {
    struct push_item *items; /* by position */
    size_t count;
};
struct push_mark {
    uint64_t pos;   /* everything up to here was sent, or is not to be */
    uint32_t badge; /* the count of unread messages that was sent last */
};

struct store_update *hs_push_update(struct ctx *ctx, uint64_t user);
/* `name` as hs_pusher_name makes it. */
void hs_push_put(struct ctx *ctx, struct store_update *update, struct slice name,
                 const struct push_item *item);
void hs_push_delete(struct ctx *ctx, struct store_update *update, struct slice name, uint64_t pos);
void hs_push_put_mark(struct ctx *ctx, struct store_update *update, struct slice name,
                      const struct push_mark *mark);
/* Deletes all rows of a pusher. */
void hs_push_forget(struct ctx *ctx, struct store_update *update, struct slice name);

/* The oldest items of a pusher; limit 0 = all. */
struct err hs_push_read(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name,
                        size_t limit, struct push_items *items_out) MUST_USE;
/* Zero when there is none. */
struct err hs_push_mark_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice name,
                            struct push_mark *mark_out) MUST_USE;
/* Names of the pushers for which something waits, each once. */
struct push_names {
    struct slice *items;
    size_t count;
};
struct err hs_push_waiting(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct push_names *names_out) MUST_USE;
/* Calls visit for each user who has rows. Slow. */
typedef struct err (*hs_push_user_fn)(void *arg, struct ctx *ctx, uint64_t user);
struct err hs_push_each_user(struct hs *hs, struct ctx *ctx, hs_push_user_fn visit,
                             void *arg) MUST_USE;
