/* Inside of sliding sync: one job computes one answer. */
#pragma once
#include "homeserver/sync/priv.h"
#include "homeserver/sync/sliding.h"
#include "homeserver/sync/sliding_conns.h"
#include "homeserver/sync/sliding_list.h"

struct sync_sliding {
    struct sync *sync;
    struct sliding_conns *conns;
    struct sliding_facts *facts;
    struct sliding_lists *lists;
};

/* What several rules that match a room ask of it together. */
struct sliding_ask_state {
    const struct sliding_state **items;
    size_t count;
    struct slice text; /* a JSON array of their texts: equal texts ask for the same */
    size_t timeline_limit;
    bool lazy;
};

/* A room that rules match, or that the client must hear of because the user is in it no more. */
struct sliding_match {
    const struct sliding_entry *entry;
    uint64_t lists[2];   /* bits */
    size_t subscription; /* one above its index; 0 = none */
};
bool sync_sliding_in_list(const struct sliding_match *match, size_t list);

struct sliding_job {
    struct sync_job base; /* base.since is that of the room at hand */
    struct sync_sliding *sliding;
    const struct sliding_request *request;
    struct sliding_conn *conn;
    struct sliding_key key;
    uint64_t since;        /* of the connection */
    bool initial;          /* it is new */
    bool all;              /* every room that matches is looked at, not only those that changed */
    struct sync_look look; /* after `since` */
    uint64_t *changed;     /* its rooms, ascending */
    struct sliding_rooms rooms;
    struct sliding_match *matches; /* newest activity first */
    size_t match_count;
    size_t *list_counts; /* rooms that the filters take */
    struct sliding_sent *changes;
    size_t change_count, change_cap;
    size_t *change_at;         /* by match: one above its index among them; 0 = none */
    uint64_t *timeline_pos;    /* by match: position of the first event told now; 0 = none */
    struct sync_filter filter; /* takes everything; its timeline limit is the room's */
    struct sliding_ask_state combined; /* of these lists: mostly asked for again */
    uint64_t combined_lists[2];
    uint64_t account_pos;    /* up to where global account data was told; 0 = none */
    struct sync_users shown; /* whose member events were told, when profiles are asked for */
    bool neighbours_known;
};

/* --- sliding_window.c --- */
/* Fills matches and counts. */
struct err sync_sliding_match(struct sliding_job *job) MUST_USE;
bool sync_sliding_changed(const struct sliding_job *job, uint64_t room);
/* What the rules that match ask. M_UNKNOWN_POS when the connection has had too many of them. */
struct err sync_sliding_combine(struct sliding_job *job, const struct sliding_match *match,
                                struct sliding_ask_state *ask_out) MUST_USE;
/* The same from a text of before. */
struct err sync_sliding_parse_ask(struct sliding_job *job, struct slice text,
                                  struct sliding_ask_state *ask_out) MUST_USE;
bool sync_sliding_asks(const struct sliding_ask_state *ask, struct slice type, struct slice key);

/* The change of what was told of a match's room, made from what was told before; valid until the
 * next call. */
struct sliding_sent *sync_sliding_change(struct sliding_job *job, size_t match);

/* --- sliding_state.c --- */
struct sliding_gone {
    struct slice type, key;
};
struct sliding_delta {
    struct sliding_ask_state ask;
    const struct sliding_ask_state *asked; /* before; NULL = nothing */
    bool name_changed, avatar_changed, members_changed;
    struct stored_events state; /* what to tell of it */
    size_t state_cap;
    struct sliding_gone *gone; /* that is there no more */
    size_t gone_count;
};
/* After the timeline, of which it needs the ends and events. */
struct err sync_sliding_state(struct sliding_job *job, struct sync_room *room,
                              struct sliding_delta *delta) MUST_USE;

/* --- sliding_room.c --- */
/* Writes the room's member of `rooms`, or nothing. */
struct err sync_sliding_write_room(struct sliding_job *job, size_t match,
                                   struct json_out *out) MUST_USE;

/* --- sliding_scope.c --- */
struct sliding_in {
    const struct sliding_scope *asked;
    uint64_t lists[2];
};
struct sliding_in sync_sliding_scope(const struct sliding_job *job,
                                     const struct sliding_scope *asked);
/* Whether an extension of this scope speaks of the match's room, which must have been told of and
 * have the user in it. */
bool sync_sliding_in_scope(const struct sliding_job *job, const struct sliding_in *in,
                           size_t match);
/* What was told of a match's room, this answer included. */
const struct sliding_sent *sync_sliding_told(const struct sliding_job *job, size_t match);

/* --- sliding_people.c --- */
/* Both write nothing when there is nothing to say. */
struct err sync_sliding_write_presence(struct sliding_job *job, struct json_out *out) MUST_USE;
struct err sync_sliding_write_profiles(struct sliding_job *job, struct json_out *out) MUST_USE;
/* The client is told of this member: so it may want the profile. */
struct err sync_sliding_note_member(struct sliding_job *job,
                                    const struct stored_event *event) MUST_USE;

/* --- sliding_extensions.c --- */
struct err sync_sliding_write_extensions(struct sliding_job *job, struct json_out *out) MUST_USE;

/* --- sliding_neighbours.c --- */
/* Notes who began and who ceased to share a room with the user after job->since, in all rooms;
 * once. */
struct err sync_sliding_neighbours(struct sliding_job *job) MUST_USE;
