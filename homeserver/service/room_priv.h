/* Inside of a room, shared by the files that write and read rooms.
 * Locks: hs_rooms.lock (rank 20) guards the table; room.lock (rank 30) guards what readers copy.
 * Fields marked "lane" are touched only in the room's lane. */
#pragma once
#include "homeserver/base/map.h"
#include "homeserver/room/power.h"
#include "homeserver/service/compose.h"
#include "homeserver/service/event_facts.h"
#include "homeserver/service/row_cache.h"
#include "homeserver/service/user_rows.h"

#include <pthread.h>

/* Event rows and other keys of (STORE_ROOM, room). */
#define ROOM_KEY_EVENT 'e'      /* be_i64 number -> record */
#define ROOM_KEY_STATE_KEY 'k'  /* type NUL state_key -> number */
#define ROOM_KEY_STATE_NAME 'K' /* be64 number -> type NUL state_key */
#define ROOM_KEY_TXN 't'        /* device NUL type NUL txn_id -> event number, id */
#define ROOM_KEY_CITES 'A'      /* nothing: rows DERIVED_KEY_CITING are kept in this room */
#define ROOM_KEY_PARTIAL 'p'    /* the room lacks part of its state: struct room_partial */
#define ROOM_KEY_WHOLE 'P'      /* position at which that ended */
#define ROOM_KEY_REST 'q'       /* what is left to do after that: struct room_rest */
/* Keys of (STORE_ROOM_DERIVED, room). */
#define DERIVED_KEY_MEMBER 'm'      /* be64 user -> member row */
#define DERIVED_KEY_LOCAL 'l'       /* be64 user of this server, joined -> nothing */
#define DERIVED_KEY_RELATION 'r'    /* target id NUL be_i64 child -> relation row */
#define DERIVED_KEY_THREAD 'y'      /* root id -> number of the newest reply */
#define DERIVED_KEY_THREADS 'Y'     /* be_i64 newest reply -> root id */
#define DERIVED_KEY_WATERMARK 'w'   /* number of the newest event whose derived rows are written */
#define DERIVED_KEY_RECEIPT 'c'     /* be64 user, type, thread -> receipt row (receipts.c) */
#define DERIVED_KEY_RECEIPT_POS 'C' /* be64 position -> receipt row (ephemeral.c) */
#define DERIVED_KEY_INVITED 'i'     /* be64 local user with an invite or knock from elsewhere */
#define DERIVED_KEY_AHEAD 'h'       /* nothing: members were written ahead of a change of state */
#define DERIVED_KEY_CITING 'a'      /* be_i64 event, be_i64 state event citing it -> its key */
#define DERIVED_KEY_REDACTION 'x'   /* target id NUL be_i64 redaction that waits for it */
#define DERIVED_KEY_EDGE 'b'        /* missing prev event NUL be_i64 event citing it -> depth */
/* In (STORE_USER, user): USER_ROW_ROOM, be64 room -> user_room row. */

/* An event of no meaning that cites forward extremities; clients do not see it. */
#define ROOM_DUMMY_TYPE LIT("org.matrix.dummy_event")

/* What an event's row says besides its JSON. */
struct room_record {
    uint32_t flags;
    uint64_t pos;
    uint64_t state_before, state_after;
    uint64_t room_root;             /* is state_after without EVENT_FORKED */
    uint64_t later_pos, later_root; /* with EVENT_LATER */
    int64_t adopted_from;           /* with EVENT_ADOPTED: its number before */
    int64_t replaces;
    int64_t redacted_by;
    uint64_t sender;
    uint32_t joined_count, invited_count; /* of the room after this event */
    uint64_t next_key;                    /* state key numbers used up to here, plus one */
    const int64_t
        *extremities; /* forward extremities after this event; count 0 = this event alone */
    size_t extremity_count;
    struct slice device_id, txn_id;
    struct slice event_id;
    struct slice json; /* canonical */
};

/* Memory of its own within a job, for reading much of which little stays. */
struct ctx room_page_begin(const struct ctx *ctx);
void room_page_next(struct ctx *page); /* forgets what was read */
/* The job goes on: its ticket and the text of the error are carried over. */
struct err room_page_end(struct ctx *ctx, struct ctx *page, struct err err);

void room_record_encode(struct buf *out, const struct room_record *record);
/* The room's newest state that the record tells. */
uint64_t room_record_root(const struct room_record *record);
/* A row that stands where an event had its number before it was adopted: leads to the new one. */
void room_forward_encode(struct buf *out, int64_t number);
bool room_forward_decode(struct slice row, int64_t *number_out);
/* The row of an event as it is stored; *number_io becomes the number under which it is kept. */
struct err room_row_find(struct hs *hs, struct ctx *ctx, const struct room *room,
                         int64_t *number_io, struct slice *row_out, bool *found_out) MUST_USE;
/* Slices borrow from `bytes`; extremities live in the arena. */
struct err room_record_decode(struct arena *arena, struct slice bytes,
                              struct room_record *record_out) MUST_USE;

struct extremity {
    int64_t number;
    uint64_t root;      /* state after it */
    char event_id[256]; /* NUL-terminated */
    int64_t depth;
};

struct extremities {
    struct extremity *items;
    size_t count;
    const struct event *event; /* one of them that is not written yet, or NULL */
    int64_t number;
};

/* A state event that composing keeps at hand, in an arena of its own. */
struct cached_state {
    struct arena *arena_owned;
    struct event event;
    int64_t number;
};

enum {
    ROOM_EXTREMITIES_MAX = 1024, /* those of lowest depth are given up beyond it */
    ROOM_PREV_EVENTS_MAX = 20,   /* that a local event cites */
    ROOM_STATE_CACHE_MAX = 512,
};

struct room {
    uint64_t number;
    char *room_id_owned;
    size_t room_id_len;
    const struct room_rules *rules;
    size_t refs;                          /* under hs_rooms.lock */
    uint64_t used_tick;                   /* under hs_rooms.lock */
    struct room *warm_older, *warm_newer; /* under hs_rooms.lock, with is_warm: rooms_idle.c */
    bool is_warm;
    bool broken; /* a write failed: reload before the next use; under hs_rooms.lock */

    pthread_mutex_t lock;
    struct room_head head;
    uint64_t *local_users_owned; /* ascending */
    size_t local_user_count, local_user_cap;
    struct map *keys_owned;    /* type NUL state_key -> number, 0 = not in the room */
    bool has_dropped_keys;     /* keys_owned was emptied once */
    struct map *entries_owned; /* of joined local users: number -> struct user_room *; or NULL */
    uint64_t entries_version;  /* counts those that were dropped */
    struct room_levels *levels_owned; /* of some state, see room_levels_get; may be NULL */
    uint64_t policy_root;             /* the state of which names_policy speaks; 0 = none */
    bool names_policy;                /* it has an m.room.policy */
    _Atomic bool is_tidying;          /* a job sees to its forward extremities */
    struct map *servers_owned;        /* server name -> joined members; NULL = not asked for */

    /* lane */
    bool is_purged;       /* nothing may be written any more (purge.c) */
    bool keeps_cites;     /* rows DERIVED_KEY_CITING are complete */
    bool is_partial;      /* also under the lock */
    int64_t partial_join; /* of a partial room: number of the join */
    bool is_ahead;        /* also under the lock: DERIVED_KEY_AHEAD stands in the store */
    uint64_t whole_pos;   /* also under the lock; see hs_room_whole_pos */
    int64_t next_number;  /* of the next live event */
    int64_t next_apart;   /* of the next event without a place in the timeline */
    uint64_t next_key;
    struct extremity *extremities_owned;
    size_t extremity_count;
    struct map *state_cache_owned; /* type NUL state_key -> struct cached_state * */
};

struct hs_rooms {
    struct hs *hs;
    pthread_mutex_t lock;
    struct map *by_number; /* number -> struct room * */
    struct map *numbers;   /* room id -> number */
    struct row_cache *rows_owned;
    struct arena *arena_owned;
    struct push_rules *everybody; /* push_rules_of_everybody */
    size_t rooms_max;
    struct room *warm_oldest, *warm_newest; /* rooms_idle.c */
    size_t warm_count;
    uint64_t tick;
    int64_t tended_mono_ms;         /* of the thread that tends */
    uint64_t tended_tick;           /* then */
    uint64_t next_number;           /* 0 = not read yet */
    _Atomic int64_t create_date_ms; /* latest that an equal room was moved to (compose.c) */
};

struct store_object room_object(struct ctx *ctx, uint64_t room);
struct store_object room_derived_object(struct ctx *ctx, uint64_t room);
struct store_object room_state_object(struct ctx *ctx, uint64_t room);
struct store_object user_object(struct ctx *ctx, uint64_t user);
struct slice key_u64(struct ctx *ctx, char prefix, uint64_t number);
struct slice key_i64(struct ctx *ctx, char prefix, int64_t number);
struct slice key_bytes(struct ctx *ctx, char prefix, struct slice bytes);
/* A row of a user about something in a room: the key is a letter, be64 room and a name. Borrows
 * from `key`. */
struct user_row_of_room {
    uint64_t room;
    struct slice name;
    struct unpack value;
};
struct err user_row_of_room_load(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice key,
                                 struct user_row_of_room *row_out, bool *found_out) MUST_USE;
struct slice state_pair(struct ctx *ctx, struct slice type, struct slice state_key);

/* An event that is in memory, with its facts; row NULL = it is not there. */
struct known_event {
    struct cached_row *row; /* to be given back with row_cache_release */
    const struct stored_event *event;
    const struct event_facts *facts;
};
struct err room_event_known(struct hs *hs, struct ctx *ctx, const struct room *room, int64_t number,
                            struct known_event *known_out) MUST_USE;
/* Puts a freshly made room into the cache, held until the job ends. */
struct room *rooms_adopt(struct hs *hs, struct ctx *ctx, uint64_t number, struct slice room_id,
                         const struct room_rules *rules);
/* be64 number of a room that was purged -> nothing. */
struct store_object rooms_purged_object(void);
/* The joined users of a room that is in memory and has only local ones, ascending; false: ask the
 * store. */
bool rooms_copy_joined(struct hs *hs, struct ctx *ctx, uint64_t number, uint64_t **users_out,
                       size_t *count_out);
/* A joined local user's entry of a room that is in memory. Who misses takes the version, reads the
 * store and offers what it read: it is not taken in when an entry was dropped meanwhile. */
bool rooms_get_entry(struct hs *hs, uint64_t user, struct user_room *entry_io,
                     uint64_t *version_out);
void rooms_offer_entry(struct hs *hs, uint64_t user, const struct user_room *entry,
                       uint64_t version);
/* Under hs_rooms.lock. Nobody holds the room any more: what it has at hand stays for a while. */
void rooms_idle_note(struct hs_rooms *rooms, struct room *room);
/* Under hs_rooms.lock, before the room is freed. */
void rooms_idle_forget(struct hs_rooms *rooms, struct room *room);
/* Under hs_rooms.lock: drops the least recently used quarter of what nobody holds, when the table
 * is full. */
void rooms_evict_some(struct hs_rooms *rooms);
void room_free(struct room *room); /* that is in no table */
/* Forgets a room that is no longer stored, as soon as no job holds it. */
void rooms_drop(struct hs *hs, uint64_t number, struct slice room_id);
/* lane: M_NOT_FOUND when the room was purged while the job waited. */
struct err room_check_there(const struct room *room) MUST_USE;
/* lane: a write failed that what is in memory went ahead of. */
void room_mark_broken(struct hs *hs, struct room *room);
/* Rows that make the room known; they are written before its first event. ERR_CONFLICT when its id
 * is known already. */
struct err rooms_write_names(struct hs *hs, struct ctx *ctx, const struct room *room) MUST_USE;
/* The room of an id; a new one without events when it was not known. Held until the job ends. */
struct err rooms_open(struct hs *hs, struct ctx *ctx, struct slice room_id,
                      const struct room_rules *rules, struct room **room_out) MUST_USE;
/* Holds a room beyond the job; each hold is given back. */
void rooms_hold(struct hs *hs, struct room *room);
void rooms_unhold(struct hs *hs, struct room *room);
uint64_t rooms_next_number(struct hs *hs, struct ctx *ctx, struct err *err_out);

/* lane: the current state event under a pair, parsed, from the cache or the store; NULL = none. The
 * result lives until the pair changes or the cache is dropped (room_state_cache_trim). */
struct err room_state_current(struct hs *hs, struct ctx *ctx, struct room *room, struct slice type,
                              struct slice state_key, const struct event **event_out) MUST_USE;
void room_state_cache_drop(struct room *room, struct slice pair);
void room_state_cache_trim(struct room *room); /* between events, when it has grown too large */
void room_state_cache_clear(struct room *room);
/* The power levels of the room at a head; those asked for last are kept. Held until the job ends.
 */
struct err room_levels_get(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct room_head *head,
                           const struct power_levels **levels_out) MUST_USE;
void room_levels_drop(struct room *room); /* with the room */
/* lane: the number of a pair, made if new (then rows are added to `update`). */
struct err room_state_key_intern(struct hs *hs, struct ctx *ctx, struct room *room,
                                 struct slice type, struct slice state_key,
                                 struct store_update *update, uint64_t *key_out) MUST_USE;

/* Everything about appending one event that is already sealed and allowed. */
struct room_append {
    const struct event *event;
    uint64_t sender;
    struct slice device_id, txn_id;
    /* of events that other servers made */
    uint32_t flags;                   /* EVENT_AFTER_GAP, EVENT_PARTIAL, EVENT_RESTART */
    bool is_foreign;                  /* redactions may come before their targets */
    bool has_before;                  /* otherwise it comes after the room's state */
    uint64_t state_before;            /* a stored root */
    int64_t adopted_from;             /* number that it had without a place; 0 = none */
    struct store_update *const *more; /* written in the same call */
    size_t more_count;
};
/* lane: the number that the next live event with these flags gets: one after a gap leaves room
 * below itself (INTAKE_GAP_NUMBERS). */
int64_t room_live_number(const struct room *room, uint32_t flags);
/* lane: writes the event as the new head and all that derives from it. */
struct err room_append(struct hs *hs, struct ctx *ctx, struct room *room,
                       const struct room_append *append, struct hs_sent *sent_out) MUST_USE;

/* lane: the room's state becomes another without an event of its own; event `number`, the newest
 * that stands, says so from now on. */
struct room_move {
    uint64_t root;
    struct extremities ends; /* the forward extremities */
    int64_t number;
    bool completes; /* it is the state of a room that was partial until now */
    struct store_update *more[2];
    size_t more_count;
};
struct err room_move(struct hs *hs, struct ctx *ctx, struct room *room,
                     const struct room_move *move) MUST_USE;

/* A member whose membership is another in the room's state than before. */
struct derived_member {
    uint64_t user;
    struct slice user_id, display_name, avatar_url;
    int64_t number; /* of the member event; 0 = there is none any more */
    bool is_local;
    bool is_own; /* by the event at hand */
    bool is_new; /* the event is not the one of before */
    enum membership membership, previous;
};
struct derived_members {
    struct derived_member *items;
    size_t count, cap;
};
/* What derives from one event, added to the updates. */
struct derive {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct event *event;
    int64_t number;
    uint64_t pos;
    uint64_t sender;
    struct store_update *derived; /* of (STORE_ROOM_DERIVED, room) */
    struct derived_members members;
    struct store_update **users; /* of (STORE_USER, member), made by derive_members_write */
    size_t user_count;
    bool is_page;         /* of members whose memberships of before are not asked for */
    bool is_ahead;        /* rows of members were written ahead: out, see derive_difference */
    bool is_withheld;     /* a redaction that is not applied: out */
    bool is_foreign;      /* as in struct room_append */
    int64_t rewritten[2]; /* events whose rows change: the target of a relation, of a redaction */
};
/* The event's own change of a member. */
struct err derive_member(struct derive *derive) MUST_USE;
/* A change of a member by the room's state: number 0 = the member event is gone. What is read on
 * the way lives in `page`. */
struct err derive_member_changed(struct derive *derive, struct ctx *page, struct slice user_id,
                                 int64_t number) MUST_USE;
void derive_count(struct derive *derive, struct room_head *head_io);
/* The members by which the room's state differs, counted in the head; what is at hand of the state
 * is dropped. Local users, and few others, become derive->members. When there are many, the rows of
 * the others are written right away, page by page, and derive->is_ahead is set: until the update
 * derive->derived is written, members are read from the state of before. */
struct derive_states {
    uint64_t before, after; /* stored roots */
};
struct err derive_difference(struct derive *derive, struct derive_states states,
                             struct room_head *head_io) MUST_USE;
/* A user's entry of the room after a change that event `at` brought. */
void derive_user_room(struct user_room *entry, const struct derived_member *member, int64_t at,
                      uint64_t pos);
/* Rows of the members found so far, dated with derive->pos. */
struct err derive_members_write(struct derive *derive) MUST_USE;
/* Also marks the target's row, in `log`, as related to. */
struct err derive_relation(struct derive *derive, struct store_update *log) MUST_USE;
/* Marks an event of another server that came after what relates to it. */
struct err derive_related(struct derive *derive, uint32_t *flags_io) MUST_USE;
/* lane: applies a redaction to its target, if it is known and may be redacted: adds the rewritten
 * row to `log` and removes its relations in derive->derived. */
struct err derive_redaction(struct derive *derive, struct store_update *log) MUST_USE;
/* The event is the target of a redaction that came before it and may be applied: number of that,
 * 0 = none. The redaction is shown from now on. */
struct err derive_waiting_redaction(struct derive *derive, struct store_update *log,
                                    int64_t *redaction_out) MUST_USE;
/* Rows DERIVED_KEY_EDGE: those that the event makes, less those that it fills. */
struct err room_edges_derive(struct derive *derive, uint32_t flags) MUST_USE;
struct slice room_edge_key(struct ctx *ctx, struct slice missing, int64_t citing);
struct slice room_redaction_key(struct ctx *ctx, struct slice target, int64_t redaction);
/* Whether the event is here and no outlier. */
struct err room_event_has_place(struct hs *hs, struct ctx *ctx, struct room *room,
                                struct event_id id, bool *has_place_out) MUST_USE;
/* Whether the redaction may be applied to the target now. */
struct err room_may_redact(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *redaction, const struct event *target,
                           bool *allowed_out) MUST_USE;
struct slice relation_key(struct ctx *ctx, struct slice target, int64_t child);
struct relation_row {
    int64_t child;
    uint64_t sender;
    struct slice rel_type, type, key;
};
struct relation_rows {
    struct relation_row *items; /* oldest first */
    size_t count;
};
struct err room_relations(struct hs *hs, struct ctx *ctx, struct room *room, struct slice target,
                          struct relation_rows *rows_out) MUST_USE;

/* Rows of the member index and of a user's rooms. */
void member_row_encode(struct buf *out, const struct room_member *member);
struct err member_row_decode(struct slice row, struct room_member *member_out) MUST_USE;
void user_room_encode(struct buf *out, const struct user_room *entry);
struct err user_room_decode(struct slice row, struct user_room *entry_out) MUST_USE;
/* Resolves the states `roots` of a room into one. What is new is written at once, so that it can be
 * read: a root that nobody names in the end is swept by a rebuild. lane. */
struct room_states {
    const uint64_t *roots;
    size_t count;
    const struct event *event; /* that is in them, but not written yet; NULL = none */
    int64_t number;            /* of it */
};
struct err room_resolve(struct hs *hs, struct ctx *ctx, struct room *room,
                        const struct room_states *states, uint64_t *root_out) MUST_USE;
/* lane: makes rows DERIVED_KEY_CITING complete, and has them kept from now on. */
struct err room_cites_build(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
/* The same in a room whose events are all yet to be given to room_cites_add. */
struct err room_cites_begin(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
struct err room_cites_load(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
/* lane: the rows of one state event, added to `derived`, when they are kept. */
struct room_citing {
    const struct event *event;
    int64_t number;
    uint64_t key; /* of its type and state key */
};
struct slice room_citing_key(struct ctx *ctx, int64_t cited, int64_t citing);
struct err room_cites_add(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct room_citing *citing, struct store_update *derived) MUST_USE;
/* The same in any room. */
struct err room_cites_put(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct room_citing *citing, struct store_update *derived) MUST_USE;
/* Whether `matches` holds for the event or for a state event whose auth chain holds it. Rows must
 * be complete. */
struct room_cites_query {
    struct room *room;
    int64_t number;
    struct err (*matches)(void *arg, uint64_t key, int64_t number, bool *matches_out);
    void *arg;
};
struct err room_cites_find(struct hs *hs, struct ctx *ctx, const struct room_cites_query *query,
                           bool *found_out) MUST_USE;
/* What an event cites, and what is cited through events that do not count (soft-failed, rejected).
 */
struct room_cited {
    struct event_id *ids;
    size_t count, cap;
};
struct err room_cited_load(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *event, struct room_cited *cited_out) MUST_USE;
/* Those of the room that are not cited, and `own`; cited NULL: `own` alone. */
void room_extremities_after(struct ctx *ctx, const struct room *room,
                            const struct room_cited *cited, const struct extremity *own,
                            struct extremities *after_out);
void room_extremities_set(struct room *room, const struct extremities *extremities);
struct err room_extremities_root(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct extremities *extremities,
                                 uint64_t *root_out) MUST_USE;
/* What is remembered of a partial room. */
struct room_partial {
    int64_t join;  /* number of the join */
    int64_t apart; /* numbers from here on were given out since */
    const struct slice *servers;
    size_t server_count;
};
struct err room_partial_get(struct hs *hs, struct ctx *ctx, struct room *room,
                            struct room_partial *partial_out) MUST_USE;
/* The rows that say so (partial NULL: that it is whole), as two updates. */
void room_partial_put(struct ctx *ctx, const struct room *room, const struct room_partial *partial,
                      struct store_update *updates_out[2]);
struct room_rest;
/* In place of it: the room is whole, and this is left to do, for which the room stays listed. */
void room_rest_put(struct ctx *ctx, const struct room *room, const struct room_rest *rest,
                   struct store_update *updates_out[2]);
/* lane: the number of the join; 0 = the room is whole. */
void room_partial_set(struct room *room, int64_t join);
/* lane: whether the states before and after the event are what they are, or will be when the room
 * is whole. Those of a stay that ended before lack members for good. */
bool room_state_is_known(const struct room *room, const struct stored_event *event);
/* lane: rows of members are ahead of the room's state from now on. */
void room_ahead_begin(struct room *room, struct ctx *ctx, struct store_update *derived);
struct err room_ahead_load(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
/* lane: the partial time is over as of this position: its row, and the room in memory. */
void room_partial_put_end(struct ctx *ctx, struct store_update *update, uint64_t pos);
void room_partial_end(struct room *room, uint64_t pos);
struct err room_partial_load(struct hs *hs, struct ctx *ctx, struct room *room) MUST_USE;
/* An event that is not wanted again: nothing keeps its row at hand. */
struct err room_event_once(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                           struct stored_event *event_out, bool *found_out) MUST_USE;
/* Which servers have joined members: follows memberships once it was asked for. */
void room_servers_change(struct room *room, const struct derived_members *members);
void room_servers_forget(struct room *room);

/* A user's entry of the room was written. */
void room_entry_forget(struct room *room, uint64_t user);
/* Adds or removes a local joined user (lane; takes the room's lock). */
void room_local_user_set(struct room *room, uint64_t user, enum membership membership);
