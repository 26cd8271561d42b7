/* Receipts (stored in (STORE_ROOM_DERIVED, room), one per user, type and thread, indexed by
 * position), typing and presence (memory only; their changes take stream positions so that they
 * wake sync). Spec: client-server, "Receipts", "Read and fully read markers", "Typing
 * Notifications", "Presence". */
#pragma once
#include "homeserver/service/rooms.h"

struct json_out;

struct hs_ephemeral *hs_ephemeral_new(struct hs *hs);
void hs_ephemeral_free(struct hs_ephemeral **ephemeral);

enum receipt_type { RECEIPT_READ, RECEIPT_READ_PRIVATE };
struct receipt {
    uint64_t pos;
    uint64_t user;
    struct slice user_id;
    enum receipt_type type;
    struct slice thread; /* ptr NULL = unthreaded, "main", or a thread root */
    struct slice event_id;
    int64_t number; /* of the event, 0 when not known here */
    int64_t ts_ms;
};
struct receipts {
    struct receipt *items;
    size_t count;
};
/* Sets a receipt (never moves one back) and publishes it. */
struct err hs_receipt_set(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct receipt *receipt) MUST_USE;
/* Receipts changed after `since` up to `upto`, oldest first; private ones only of `viewer`. */
struct err hs_receipts_since(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t viewer,
                             uint64_t since, uint64_t upto, struct receipts *receipts_out) MUST_USE;
/* All receipts of one user in a room. */
struct err hs_receipts_of_user(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                               struct receipts *receipts_out) MUST_USE;

/* Typing: set by a member for timeout_ms (0 = stopped); stale entries expire by themselves and wake
 * sync. */
void hs_typing_set(struct hs *hs, uint64_t room, uint64_t user, int64_t timeout_ms);
/* Of somebody who may not have been typing. */
void hs_typing_stop(struct hs *hs, uint64_t room, uint64_t user);
/* User ids typing now, and the position of the last change (0 = never). */
size_t hs_typing_get(struct hs *hs, struct ctx *ctx, uint64_t room, struct slice **user_ids_out,
                     uint64_t *pos_out);
/* Writes them as the `content` of an m.typing event, a member of the object that is open. */
void hs_typing_write(const struct slice *user_ids, size_t count, struct json_out *out);

enum presence { PRESENCE_OFFLINE, PRESENCE_UNAVAILABLE, PRESENCE_ONLINE };
struct presence_state {
    uint64_t user;
    struct slice user_id;
    enum presence presence;
    int64_t last_active_ago_ms; /* -1 = unknown */
    bool currently_active;
    struct slice status_msg; /* ptr NULL = none */
    uint64_t pos;
};
/* Explicit presence of a user (PUT presence), or what a sync of one device says (set_presence). */
void hs_presence_set(struct hs *hs, uint64_t user, enum presence presence, struct slice status_msg);
/* What the server of a remote user says; it holds until that says otherwise, or half an hour. */
struct remote_presence {
    uint64_t user;
    enum presence presence;
    struct slice status_msg; /* ptr NULL = none */
    int64_t last_active_ago_ms;
    bool currently_active;
};
void hs_presence_set_remote(struct hs *hs, const struct remote_presence *presence);
/* A device is syncing; `presence` is its set_presence. Idle devices decay by themselves. */
void hs_presence_touch(struct hs *hs, uint64_t user, struct slice device_id,
                       enum presence presence);
bool hs_presence_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct presence_state *out);
/* Users whose presence changed after `since`, oldest first (not filtered by who may see it). */
size_t hs_presence_since(struct hs *hs, struct ctx *ctx, uint64_t since, uint64_t upto,
                         struct presence_state **out);
