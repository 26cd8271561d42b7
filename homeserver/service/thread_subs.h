/* Which threads a user follows (MSC4306, under its unstable names). Rows of the user, indexed by
 * the position of their last change; written in the account's lane. Spec:
 * spec/thread-subscriptions.md.
 */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/service/rooms.h"

struct thread_sub {
    uint64_t room;
    struct slice root; /* event id */
    uint64_t pos;      /* of the last change */
    bool subscribed;
    bool automatic;
    int64_t unsubscribed_at; /* newest event of the room then; 0 = never was */
};
struct thread_subs {
    struct thread_sub *items;
    size_t count;
};

/* Of a thread that was never subscribed to: found false. */
struct err hs_thread_sub_get(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                             struct slice root, struct thread_sub *sub_out,
                             bool *found_out) MUST_USE;
/* Subscribes. `cause`: number of the event that did it by itself, 0 = the user did. What the user
 * did stays so. M_CONFLICTING_UNSUBSCRIPTION when the user unsubscribed after the cause. */
struct thread_sub_wish {
    uint64_t user, room;
    struct slice root;
    int64_t cause;
};
struct err hs_thread_subscribe(struct hs *hs, struct ctx *ctx,
                               const struct thread_sub_wish *wish) MUST_USE;
/* `cause`: the newest event of the room. Does nothing when the thread is not subscribed to. */
struct err hs_thread_unsubscribe(struct hs *hs, struct ctx *ctx,
                                 const struct thread_sub_wish *wish) MUST_USE;
/* Changes with since < pos <= upto, the newest first, at most `limit`. */
struct thread_sub_window {
    uint64_t since, upto;
    size_t limit;
};
struct err hs_thread_subs_changed(struct hs *hs, struct ctx *ctx, uint64_t user,
                                  struct thread_sub_window window,
                                  struct thread_subs *subs_out) MUST_USE;
/* The members "subscribed" and "unsubscribed", each only if it holds something. */
struct err hs_thread_subs_write(struct hs *hs, struct ctx *ctx, const struct thread_subs *subs,
                                struct json_out *out) MUST_USE;
