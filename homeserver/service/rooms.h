/* Rooms: the cache of loaded rooms, and reading what their logs hold. Writing is compose.h.
 *
 * A room has a number; its events have numbers of their own: live events count up from 1, events of
 * backfilled history count down from -1, and what no timeline shows (outliers, rejected and
 * soft-failed events) counts up from EVENT_APART_FIRST. The log row of an event carries its record
 * and, once, its canonical JSON. An event that gets a place later gets a number there; its old
 * number still finds it.
 *
 * A struct room is shared by threads. What a reader needs is copied out under the room's lock by
 * hs_room_head. Only the room's lane changes it. Spec: client-server, "Rooms". */
#pragma once
#include "homeserver/room/membership.h"
#include "homeserver/service/hs.h"

struct room;

/* What stands still about a room. */
struct room_info {
    uint64_t number;
    struct slice room_id; /* lives as long as the job holds the room */
    const struct room_rules *rules;
};

/* The room at one moment: everything up to and including event `number` / stream position `pos`. */
struct room_head {
    int64_t number; /* newest timeline event; 0 = empty room */
    uint64_t pos;   /* its position */
    uint64_t root;  /* state after it: the current state */
    uint32_t joined_count, invited_count;
    uint64_t receipt_pos; /* newest receipt's position in this room, 0 = none */
    int64_t redaction;    /* newest event that took content away since the room was loaded */
};

struct hs_rooms *hs_rooms_new(struct hs *hs, size_t rooms_max);
void hs_rooms_free(struct hs_rooms **rooms);

/* --- finding --- */
/* The number of a known room. */
struct err hs_room_find(struct hs *hs, struct ctx *ctx, struct slice room_id, uint64_t *number_out,
                        bool *found_out) MUST_USE;
/* A loaded room, held until the job ends (ctx_finish). M_NOT_FOUND when there is none. */
struct err hs_room_get(struct hs *hs, struct ctx *ctx, uint64_t number,
                       struct room **room_out) MUST_USE;
struct err hs_room_get_by_id(struct hs *hs, struct ctx *ctx, struct slice room_id,
                             struct room **room_out) MUST_USE;
struct room_info hs_room_info(const struct room *room);
/* The newest head (may be newer than what is published). */
struct room_head hs_room_head(struct room *room);
/* Newest position in this room of any kind (event, receipt), without loading anything else. */
uint64_t hs_room_changed_pos(struct room *room);
/* Position of the newest event of a room, which need not be loaded for it. */
struct err hs_room_active_pos(struct hs *hs, struct ctx *ctx, uint64_t number,
                              uint64_t *pos_out) MUST_USE;
/* Raises the room's newest receipt position. */
void hs_room_set_receipt_pos(struct room *room, uint64_t pos);
/* Local users joined now, copied into the arena. */
size_t hs_room_local_users(struct ctx *ctx, struct room *room, uint64_t **users_out);
/* Whether a local user is joined: otherwise what is here of the room may be old, or nothing. */
bool hs_room_is_resident(struct room *room);

/* --- events --- */
enum event_flag {
    EVENT_STATE = 1,   /* has a state key */
    EVENT_OUTLIER = 2, /* not in the timeline */
    EVENT_REJECTED = 4,
    EVENT_SOFT_FAILED = 8,
    EVENT_REDACTED = 16,   /* json is the pruned form */
    EVENT_RELATED = 32,    /* other events relate to it */
    EVENT_AFTER_GAP = 64,  /* came when events before it were not known here: /sync is limited */
    EVENT_FORKED = 128,    /* room_root is not state_after */
    EVENT_ADOPTED = 256,   /* had another number before it got its place */
    EVENT_LATER = 512,     /* the room's state changed after it without an event */
    EVENT_WITHHELD = 1024, /* part of the graph, but nothing that clients see */
    EVENT_PARTIAL = 2048,  /* its state_before may lack members (a partial join) */
    EVENT_RESTART = 4096,  /* the graph begins anew with it: the one forward extremity after it */
    EVENT_LOOSE = 8192,    /* of a room that this server is not in: not found by its id */
    EVENT_HISTORY = 16384, /* fetched for a gap or the time before: no part of the live timeline */
    EVENT_FORWARD = 32768, /* of another server, handed in to be told to the room's others */
    EVENT_HIDDEN = EVENT_OUTLIER | EVENT_REJECTED | EVENT_SOFT_FAILED | EVENT_WITHHELD,
};
/* Numbers of events without a place in the timeline: [FIRST, LAST). */
#define EVENT_APART_FIRST (-(INT64_C(1) << 35))
#define EVENT_APART_LAST (-(INT64_C(1) << 34))

struct stored_event {
    struct event event; /* parsed from the stored bytes, in the arena */
    int64_t number;
    uint64_t pos; /* 0 for backfilled events */
    uint32_t flags;
    uint64_t state_before, state_after; /* roots */
    uint64_t room_root; /* the room's state once it was here: of all forward extremities */
    uint64_t later_pos, later_root; /* the same changed again at this position; 0 = it did not */
    int64_t replaces;               /* number of the state event that this one replaced; 0 = none */
    int64_t redacted_by;            /* number of the redaction; 0 = none */
    uint64_t sender;                /* user number */
    struct slice device_id, txn_id; /* of a local send; empty otherwise */
    /* The client format without room_id and with its brace open, ready for `unsigned`; empty when
     * it is not at hand. */
    struct slice client_open;
};

/* An event by number. found false: no such event. */
struct err hs_event_load(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                         struct stored_event *event_out, bool *found_out) MUST_USE;
/* The same without a content tree (event.content is NULL): for rendering, which splices bytes. */
struct err hs_event_scan(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                         struct stored_event *event_out, bool *found_out) MUST_USE;
/* The same for a consumer that nobody follows: what is not at hand is not kept for others. */
struct err hs_event_scan_once(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                              struct stored_event *event_out, bool *found_out) MUST_USE;
/* Scans a skimmed event (hs_events_read). */
struct err hs_event_finish(struct ctx *ctx, struct room *room, struct stored_event *event) MUST_USE;
/* Makes the content tree of a scanned event, if it has none. */
struct err hs_event_parse_content(struct ctx *ctx, struct stored_event *event) MUST_USE;
/* An event of this room by id. */
struct err hs_event_find(struct hs *hs, struct ctx *ctx, struct room *room, struct slice event_id,
                         struct stored_event *event_out, bool *found_out) MUST_USE;
/* Which room an event id belongs to. */
struct err hs_event_locate(struct hs *hs, struct ctx *ctx, struct slice event_id,
                           uint64_t *room_out, int64_t *number_out, bool *found_out) MUST_USE;

struct stored_events {
    struct stored_event *items;
    size_t count;
};
/* Timeline events (none of EVENT_HIDDEN) with from < number (forward) or
 * number < from (reverse), nearest first; at most `limit`; stops at `to` (exclusive; 0 = no end).
 */
struct event_range {
    int64_t from, to;
    size_t limit;
    enum { EVENTS_FORWARD, EVENTS_REVERSE } order;
    /* Scanned: as hs_event_scan. Skimmed: what the record says; of the event id and JSON, and the
     * rest only when it is at hand (type.ptr; see hs_event_finish). */
    enum { EVENTS_PARSED, EVENTS_SCANNED, EVENTS_SKIMMED } form;
};
struct err hs_events_read(struct hs *hs, struct ctx *ctx, struct room *room,
                          struct event_range range, struct stored_events *events_out) MUST_USE;
/* The events of these numbers (ascending), scanned; those that do not exist are left out.
 * Neighbours are read together, which costs a fraction of looking each up. */
struct event_numbers {
    const int64_t *items;
    size_t count;
};
struct err hs_events_scan_many(struct hs *hs, struct ctx *ctx, struct room *room,
                               struct event_numbers numbers,
                               struct stored_events *events_out) MUST_USE;
/* The newest timeline event whose position is <= pos: number (0 = none) and the room's state then.
 */
uint64_t hs_room_root_at(const struct stored_event *event, uint64_t pos);
struct err hs_room_at(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t pos,
                      int64_t *number_out, uint64_t *root_out) MUST_USE;

/* --- state --- */
/* The state event under (type, state_key) in a snapshot. */
struct err hs_state_event(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t root,
                          struct slice type, struct slice state_key, struct stored_event *event_out,
                          bool *found_out) MUST_USE;
/* Number of a state key pair, and the pair of a number. */
struct err hs_state_key_find(struct hs *hs, struct ctx *ctx, struct room *room, struct slice type,
                             struct slice state_key, uint64_t *key_out, bool *found_out) MUST_USE;
struct err hs_state_key_name(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t key,
                             struct slice *type_out, struct slice *state_key_out) MUST_USE;
/* Numbers of all state keys that the room ever had but those of m.room.member, ascending by name:
 * what a client that loads members lazily needs, at a cost that members do not raise. */
struct err hs_state_keys_without_members(struct hs *hs, struct ctx *ctx, struct room *room,
                                         uint64_t **keys_out, size_t *count_out) MUST_USE;
/* The same of one type. */
struct err hs_state_keys_of_type(struct hs *hs, struct ctx *ctx, struct room *room,
                                 struct slice type, uint64_t **keys_out,
                                 size_t *count_out) MUST_USE;

/* --- members --- */
/* A user's membership in a snapshot (root 0: none). */
struct err hs_membership_at(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t root,
                            struct slice user_id, enum membership *membership_out) MUST_USE;

/* The derived member index: current members of one membership. */
struct room_member {
    uint64_t user;
    int64_t number; /* the member event */
    enum membership membership;
    struct slice user_id, display_name, avatar_url; /* ptr NULL = not set */
};
struct room_members {
    struct room_member *items; /* by event number: oldest first */
    size_t count;
};
/* Calls fn for each member of any membership, in no order worth relying on; memory does not grow
 * with the room. The member lives until fn returns, as does what fn makes in `page`. */
typedef struct err (*room_member_fn)(void *arg, struct ctx *page, const struct room_member *member);
struct err hs_room_members_each(struct hs *hs, struct ctx *ctx, struct room *room,
                                room_member_fn fn, void *arg) MUST_USE;
/* limit 0 = all; else the oldest ones, in memory that does not grow with the room. membership NONE
 * = all of them. */
struct err hs_room_members(struct hs *hs, struct ctx *ctx, struct room *room,
                           enum membership membership, size_t limit,
                           struct room_members *members_out) MUST_USE;
struct err hs_room_member(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                          struct room_member *member_out, bool *found_out) MUST_USE;

/* To be called now and then, by one thread: rooms that nobody has used for ten minutes leave
 * memory. */
void hs_rooms_tend(struct hs *hs);
/* What is held in memory of rooms. */
struct hs_rooms_figures {
    size_t room_count;
    size_t row_bytes; /* of events (row_cache.h) */
};
void hs_rooms_get_figures(const struct hs *hs, struct hs_rooms_figures *figures_out);

/* --- a local user's rooms --- */
struct user_room {
    uint64_t room;
    enum membership membership;
    enum membership previous;
    bool forgotten;
    int64_t number;      /* own member event */
    uint64_t pos;        /* its position */
    uint64_t joined_pos; /* position of the event that began the present (or last) stay */
    int64_t joined_number;
    int64_t left_number;       /* the event that ended the last stay, 0 = none ended */
    struct slice invite_state; /* stripped state array of a remote invite or knock, else empty */
};
struct user_rooms {
    struct user_room *items; /* by room number */
    size_t count;
};
struct err hs_user_rooms(struct hs *hs, struct ctx *ctx, uint64_t user,
                         struct user_rooms *rooms_out) MUST_USE;
struct err hs_user_room(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                        struct user_room *entry_out, bool *found_out) MUST_USE;
/* Whether two users are joined to a common room now. */
struct err hs_users_share_room(struct hs *hs, struct ctx *ctx, uint64_t a, uint64_t b,
                               bool *share_out) MUST_USE;
/* Users (local and remote) that share a joined room with `user`, ascending, without `user`. */
struct err hs_users_sharing(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t **users_out,
                            size_t *count_out) MUST_USE;
