/* What a user keeps on the server: account data (global and per room), tags, filters, push rules;
 * and notification counts, which follow from push rules and receipts.
 * Rows live in (STORE_USER, user). Account data carries the position of its last change and is
 * indexed by it. Writes run in the account's lane.
 * Spec: client-server, "Client Config", "Room Tagging", "Filtering", "Push Notifications",
 * "Ignoring Users". */
#pragma once
#include "homeserver/room/push_eval.h"
#include "homeserver/service/rooms.h"

struct hs_prefs *hs_prefs_new(struct hs *hs);
void hs_prefs_free(struct hs_prefs **prefs);

struct account_datum {
    uint64_t pos;
    uint64_t room; /* 0 = global */
    struct slice type;
    struct slice content; /* canonical JSON object */
};
struct account_data {
    struct account_datum *items;
    size_t count;
};
/* Makes new content from the old (ptr NULL = not set), in the account's lane; leaving *content_out
 * alone leaves the datum as it is. */
typedef struct err (*account_data_fn)(void *arg, struct ctx *ctx, struct slice old,
                                      struct slice *content_out);
struct account_data_edit {
    uint64_t user, room; /* room 0 = global */
    struct slice type;
    account_data_fn make;
    void *arg;
};
struct err hs_account_data_edit(struct hs *hs, struct ctx *ctx,
                                const struct account_data_edit *edit) MUST_USE;
/* Stores a datum and publishes the change. m.fully_read, m.push_rules: the caller refuses them. */
struct err hs_account_data_put(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                               struct slice type, struct slice content) MUST_USE;
struct err hs_account_data_get(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                               struct slice type, struct slice *content_out,
                               bool *found_out) MUST_USE;
/* Everything changed after `since` up to `upto` (since 0: all that exists), oldest change first.
 * m.push_rules and m.tag are account data like any other here. */
struct err hs_account_data_since(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t since,
                                 uint64_t upto, struct account_data *data_out) MUST_USE;
/* All of one room (0 = global) that was set up to `upto`. */
struct err hs_account_data_of_room(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                                   uint64_t upto, struct account_data *data_out) MUST_USE;

/* Whether `user` ignores `other` (m.ignored_user_list, cached). */
struct err hs_is_ignored(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice other_user_id,
                         bool *ignored_out) MUST_USE;
/* Drops message events (not state) of ignored senders from the list, in place. */
struct err hs_drop_ignored(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct stored_events *events) MUST_USE;

/* Filters: stored JSON per user. */
struct err hs_filter_put(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice json,
                         struct slice *filter_id_out) MUST_USE;
struct err hs_filter_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice filter_id,
                         struct slice *json_out, bool *found_out) MUST_USE;

/* The user's compiled rules; cached until they change; held until the job ends. */
struct err hs_push_rules_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                             const struct push_rules **rules_out) MUST_USE;
/* The whole document `{"global": {...}}`, default rules merged in. */
struct err hs_push_rules_read(struct hs *hs, struct ctx *ctx, uint64_t user,
                              struct json *rules_out) MUST_USE;
/* Changes what is stored of the rules and publishes it as m.push_rules. `change` runs in the
 * account's lane and gets the user's own part of the document: own rules, and of default rules what
 * was changed. With an error nothing is written. */
typedef struct err (*push_rules_fn)(void *arg, struct ctx *ctx, struct json *stored);
struct err hs_push_rules_edit(struct hs *hs, struct ctx *ctx, uint64_t user, push_rules_fn change,
                              void *arg) MUST_USE;

struct thread_count {
    struct slice thread; /* root event id; empty = main timeline */
    uint32_t notify, highlight;
};
struct unread_counts {
    struct thread_count main;     /* threads excluded */
    struct thread_count *threads; /* those above zero */
    size_t thread_count;
    uint32_t notify_all, highlight_all; /* threads included */
    uint32_t calls_all;                 /* invites to calls among those, not answered */
};
/* Unread notifications of a joined user in a room at stream position `upto`. Counted lazily:
 * evaluates only events that came since the last call and after the user's receipts; cached. */
struct err hs_unread_counts(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                            uint64_t upto, struct unread_counts *counts_out) MUST_USE;
/* The same for a caller that knows the user's entry of the room: joined since event
 * `joined_number`. */
struct counts_request {
    uint64_t user;
    struct slice user_id;
    int64_t joined_number;
    uint64_t upto;
};
struct err hs_unread_counts_of(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct counts_request *request,
                               struct unread_counts *counts_out) MUST_USE;
