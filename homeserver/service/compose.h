/* Making local events: txn dedup, prev and auth events, hashes, signature, authorisation, append.
 * Each call runs in the room's lane (it enters it when the job is not in it yet) and returns when
 * the event is visible; it is durable by ctx->write_ticket.
 * Spec: server-server, "PDUs"; client-server, "Sending events to a room". */
#pragma once
#include "homeserver/service/rooms.h"

struct hs_draft {
    struct slice sender; /* user id */
    uint64_t sender_number;
    struct slice type;
    struct slice state_key;         /* ptr NULL = not a state event */
    struct json content;            /* an object */
    struct slice redacts;           /* event id, for m.room.redaction; placed as the version asks */
    struct slice device_id, txn_id; /* txn_id ptr NULL = none */
    int64_t origin_server_ts;       /* 0 = now */
};

struct hs_sent {
    struct slice event_id;
    int64_t number;
    uint64_t pos;
    bool replayed; /* the transaction was known: this is the first answer */
};

/* M_FORBIDDEN when the rules refuse (the text names the rule), M_TOO_LARGE over 65,536 bytes. An
 * identical state event gives the existing one back. */
struct err hs_send(struct hs *hs, struct ctx *ctx, struct room *room, const struct hs_draft *draft,
                   struct hs_sent *sent_out) MUST_USE;
/* What is to be sent, when that follows from the room as it is. `decide` runs in the room's lane,
 * refuses, or fills the draft; `done`: nothing is to be sent and `sent` is the answer. It may run
 * several times, and must come to the same draft while the room gives no reason for another. */
struct hs_proposal {
    struct err (*decide)(void *arg, struct hs_draft *draft_out, struct hs_sent *sent_out,
                         bool *done_out);
    void *arg;
    bool insists; /* goes out even when the room's policy server refuses it */
};
/* hs_send for what users of this server do: in a room with a policy server the event is composed,
 * shown to that server in no lane, and appended with its signature when it still is what the room
 * asks for. Called in no lane. ERR_WAITS as remote.h has it, before any effect; the policy server's
 * refusal with its text. Spec: server-server, "Policy Servers". */
struct err hs_propose(struct hs *hs, struct ctx *ctx, struct room *room,
                      const struct hs_proposal *proposal, struct hs_sent *sent_out) MUST_USE;
/* hs_propose of a draft that does not depend on the room. */
struct err hs_send_policed(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct hs_draft *draft, struct hs_sent *sent_out) MUST_USE;
/* Whether the room names a policy server, which then may or may not have a say. */
struct err hs_is_policed(struct hs *hs, struct ctx *ctx, struct room *room, bool *is_out) MUST_USE;
/* ERR_WAITS when something sent into the room would have to wait and this job may not: for what has
 * an effect before it sends. */
struct err hs_policy_wait(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
/* Whether the rules or another server said no, rather than that something failed here. */
bool hs_send_is_refusal(struct err err);
/* The event that hs_send would append now, sealed and allowed but stored nowhere: the template of a
 * make_join, an invite that another server signs first. The sender may be of another server. */
struct err hs_compose(struct hs *hs, struct ctx *ctx, struct room *room,
                      const struct hs_draft *draft, struct event *event_out) MUST_USE;
/* The answer of a transaction made before, if it was. Scope: device, room, type, txn_id. */
struct err hs_txn_find(struct hs *hs, struct ctx *ctx, struct room *room,
                       const struct hs_draft *draft, struct hs_sent *sent_out,
                       bool *found_out) MUST_USE;
/* A new room: number, id (from the create event in version 12), first event. In no lane yet. */
struct err hs_room_create_first(struct hs *hs, struct ctx *ctx, struct slice version,
                                const struct hs_draft *create, struct room **room_out,
                                struct hs_sent *sent_out) MUST_USE;
