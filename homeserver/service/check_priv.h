/* Inside of checking and rebuilding: the walk over all rows and what it carries. */
#pragma once
#include "homeserver/service/check.h"
#include "homeserver/service/room_priv.h"

enum check_mode { CHECK_ONLY, CHECK_REBUILD };

struct checker {
    struct hs *hs;
    struct ctx *ctx; /* of the whole run */
    struct ctx room; /* memory of the room at hand */
    struct ctx page; /* memory of the rows at hand */
    const struct check_options *options;
    struct check_result *result;
    enum check_mode mode;
    struct check_used *used;     /* positions of events seen so far */
    struct check_rooms *rooms;   /* all rooms */
    const struct check_room *at; /* the room at hand; NULL = none */
    struct slice event_id;       /* the event at hand; empty = none */
    int64_t number;
};

struct check_room {
    uint64_t number;
    struct slice room_id;
    const struct room_rules *rules;
};
struct check_rooms {
    struct check_room *items; /* by number */
    size_t count, cap;
    struct map *by_number; /* number -> index + 1 */
};

/* A place of a derived row. */
struct check_place {
    enum check_index index;
    struct store_object object;
    struct slice key;
};

/* check.c */
void check_report(struct checker *c, enum check_index index, struct slice key, const char *what,
                  bool healed);
/* Counts a thing that was compared. */
void check_compared(struct checker *c, enum check_index index);
/* The row at the place must be there and hold `expected`; a rebuild writes it. */
struct err check_row_is(struct checker *c, struct check_place place,
                        struct slice expected) MUST_USE;
/* The row at the place, which is there, must not be; a rebuild deletes it. */
struct err check_row_stray(struct checker *c, struct check_place place) MUST_USE;
/* Calls visit for all rows of an object whose keys begin with `prefix` (0 = all rows). The rows
 * live in c->page, as does what visit makes there; visit must not begin another walk. */
typedef struct err (*check_visit_fn)(struct checker *c, void *arg, const struct store_row *row);
struct err check_each_row(struct checker *c, struct store_object object, char prefix,
                          check_visit_fn visit, void *arg) MUST_USE;
/* A place of the counter: whether it is new and in range. */
struct err check_position(struct checker *c, uint64_t pos) MUST_USE;
/* The newest position that there may be. */
uint64_t check_counter(const struct checker *c);
/* Whether the error says that stored data are damaged: then it is a difference. */
bool check_is_damage(struct err err);
const struct check_room *check_room_find(const struct checker *c, uint64_t number);
/* Rows `letter` + name whose values begin with a position, and their index by it. */
struct check_by_position {
    enum check_index index;
    struct store_object object;
    char letter, index_letter;
};
struct err check_by_position(struct checker *c, const struct check_by_position *rows) MUST_USE;

/* check_ids.c: what stands outside of rooms. */
struct err check_user_ids(struct checker *c) MUST_USE;
struct err check_rooms_load(struct checker *c) MUST_USE;
struct err check_aliases(struct checker *c) MUST_USE;
struct err check_event_ids(struct checker *c) MUST_USE;
struct err check_users(struct checker *c) MUST_USE;

/* check_accounts.c */
struct err check_user_known(struct checker *c, uint64_t user, bool *known_out) MUST_USE;
struct err check_device_known(struct checker *c, uint64_t user, struct slice device_id,
                              bool *known_out) MUST_USE;
struct err check_account(struct checker *c, struct store_object user) MUST_USE;
struct err check_pushers(struct checker *c) MUST_USE;

/* check_keys.c, check_lists.c, check_media.c */
struct err check_keys(struct checker *c) MUST_USE;
struct err check_device_lists(struct checker *c) MUST_USE;
struct err check_inboxes(struct checker *c) MUST_USE;
struct err check_media(struct checker *c) MUST_USE;

/* check_tokens.c */
struct err check_device_tokens(struct checker *c, struct store_object user) MUST_USE;
struct err check_tokens(struct checker *c) MUST_USE;

/* --- a room --- */

/* A member as the log tells it, in the order of the log. */
struct walk_member {
    struct user_room entry;
    int64_t current;         /* member event in the present state, 0 = none */
    struct slice member_row; /* expected row, when current */
    bool is_local;
};

struct room_walk {
    struct checker *c;
    struct room shape; /* number and rules alone */
    struct store_object log, derived;
    struct map *state;       /* state key number -> number of the event */
    struct map *memberships; /* state key number -> membership, for members alone */
    struct map *members;     /* user number -> struct walk_member * */
    struct map *threads;     /* root id -> struct walk_thread * */
    struct map *extremities; /* event id -> number */
    uint64_t root;           /* the room's state after the newest event */
    bool keeps_cites;
    bool is_ahead; /* DERIVED_KEY_AHEAD stands */
    uint64_t next_key;
    uint32_t joined_count, invited_count;
    int64_t last_number;
    bool was_forked; /* the last event */
    uint64_t last_pos;
    bool is_rerooted; /* a rebuild made new snapshots: all later ones follow */
    bool state_was_healed;

    /* the event at hand */
    struct room_record record;
    struct event event;
    int64_t number;
    bool is_linear; /* follows the event before it and no other */
    uint32_t wrong; /* enum record_part: what the record must be rewritten for */
};
struct walk_thread {
    struct slice root;
    int64_t newest;
};

/* Parts of a record that derive from the log before it. */
enum record_part { RECORD_STATE = 1, RECORD_COUNTS = 2, RECORD_EXTREMITIES = 4, RECORD_KEYS = 8 };

/* check_room.c */
struct err check_room(struct checker *c, const struct check_room *room) MUST_USE;
/* The record under a number; found_out false also when it cannot be read. */
struct err check_record_load(struct checker *c, uint64_t room, int64_t number,
                             struct room_record *record_out, bool *found_out) MUST_USE;
struct err check_event_load(struct room_walk *w, int64_t number, struct event *event_out,
                            bool *found_out) MUST_USE;

/* check_state.c: the event at hand against the state so far; then both move on. */
struct err check_state_keys(struct room_walk *w) MUST_USE;
struct err check_state(struct room_walk *w) MUST_USE;
/* The present state as a whole. */
struct err check_state_head(struct room_walk *w) MUST_USE;

/* check_members.c */
/* The event at hand, of a member. */
struct err check_member(struct room_walk *w) MUST_USE;
/* A member whom the state changed at this position. number 0 = the member event is gone. */
struct err check_member_changed(struct room_walk *w, struct slice user_id, int64_t number,
                                uint64_t pos) MUST_USE;
struct err check_members(struct room_walk *w) MUST_USE;

/* check_graph.c: what the graph of events asks of the one at hand. */
struct err check_edges(struct room_walk *w) MUST_USE;
struct err check_waiting(struct room_walk *w) MUST_USE;
struct err check_cites_begin(struct room_walk *w) MUST_USE;
struct err check_cites(struct room_walk *w) MUST_USE;

/* check_relations.c */
struct err check_relation(struct room_walk *w) MUST_USE;
struct err check_relations(struct room_walk *w) MUST_USE;

/* check_events.c: the event at hand by itself. */
void check_event_deep(struct room_walk *w);

/* rebuild.c */
struct err rebuild_put(struct checker *c, const struct check_place *place,
                       struct slice value) MUST_USE;
struct err rebuild_delete(struct checker *c, const struct check_place *place) MUST_USE;
/* The stored record of the event at hand gets the parts that were found wrong. */
struct err rebuild_record(struct room_walk *w) MUST_USE;
/* A new snapshot: the state so far, with the event at hand under `key` (0 = without). */
struct err rebuild_snapshot(struct room_walk *w, uint64_t base, uint64_t key,
                            uint64_t *root_out) MUST_USE;
/* Removes the snapshots that no event of the room names any more. */
struct err rebuild_sweep(struct room_walk *w) MUST_USE;
/* Sets flags of a stored record. */
struct err rebuild_flag(struct checker *c, uint64_t room, int64_t number, uint32_t flag) MUST_USE;

/* Heals one room that nobody uses, whose derived rows are behind its log. */
struct err rebuild_room(struct hs *hs, struct ctx *ctx, const struct check_room *room) MUST_USE;

/* The whole run, in either mode. */
struct err check_run(struct hs *hs, struct ctx *ctx, enum check_mode mode,
                     const struct check_options *options, struct check_result *result_out) MUST_USE;
