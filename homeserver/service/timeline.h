/* Reading rooms for a viewer: visibility, client format with unsigned data, bundled relations,
 * pagination tokens. Spec: client-server, "Room History Visibility", "Syncing", "Relationships". */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/room/visibility.h"
#include "homeserver/service/rooms.h"

/* What was found last: neighbours in a timeline mostly share it. Rooms are told apart by address,
 * so a memo must not outlive the job's hold on its rooms. */
struct view_memo {
    struct room *visibility_room;
    uint64_t visibility_root;
    enum history_visibility visibility;
    struct room *membership_room;
    uint64_t membership_root;
    enum membership membership;
    struct room *entry_room; /* the viewer's standing in this room now */
    bool is_joined;
    int64_t left_number;
    bool is_forgotten;
    struct room *stranger_room; /* the viewer had no membership before this event of this room */
    int64_t stranger_until;
};

/* Who looks. user 0 = nobody in particular (world-readable only). */
struct viewer {
    uint64_t user;
    struct slice user_id;
    struct slice device_id;
    struct view_memo *memo; /* optional; zero-initialised by the caller, of one job and one user */
    const struct slice *fields; /* event_fields of a filter; count 0 = everything */
    size_t field_count;
    /* Events with joined_from <= number < joined_until are known to belong to a stay of the viewer;
     * both 0 = nothing is known. */
    int64_t joined_from, joined_until;
};

/* Whether the viewer may see the event, judged with the state at the event. */
struct err hs_can_see(struct hs *hs, struct ctx *ctx, struct room *room,
                      const struct viewer *viewer, const struct stored_event *event,
                      bool *visible_out) MUST_USE;
/* Keeps the visible ones, in place and in order. */
struct err hs_keep_visible(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct viewer *viewer, struct stored_events *events) MUST_USE;

/* Whether the viewer gets the event in its redacted form alone: its sender asked to be erased, and
 * the viewer was not in the room when it came. What is state of the room now stays whole: without
 * it nobody could use the room. Of an event that the viewer may see.
 * Spec: client-server, POST /account/deactivate, `erase`. */
struct err hs_is_erased_for(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct viewer *viewer, const struct stored_event *event,
                            bool *erased_out) MUST_USE;

enum event_view_flag {
    VIEW_ROOM_ID = 1,   /* include room_id (everywhere but in /sync) */
    VIEW_BUNDLE = 2,    /* include m.relations */
    VIEW_IN_BUNDLE = 4, /* the same for what is bundled itself: no thread, so that none nests */
};
/* Membership of the viewer when the event was sent (before its own change). */
struct err hs_viewer_membership(struct hs *hs, struct ctx *ctx, struct room *room,
                                const struct viewer *viewer, uint64_t root,
                                enum membership *membership_out) MUST_USE;
struct bundle_wish {
    struct room *room;
    const struct viewer *viewer;
    enum { BUNDLE_ALL, BUNDLE_WITHOUT_THREAD } depth;
};
/* The relations bundled with an event, as the members of m.relations (without braces); empty when
 * there are none. */
struct err hs_bundle_relations(struct hs *hs, struct ctx *ctx, const struct bundle_wish *wish,
                               const struct stored_event *event,
                               struct slice *members_out) MUST_USE;
/* Writes the event in client format: unsigned age, prev_content, replaces_state, membership,
 * transaction_id (only to the sending device), redacted_because, m.relations. */
struct err hs_write_event(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct viewer *viewer, const struct stored_event *event,
                          uint32_t flags, struct json_out *out) MUST_USE;
/* Writes the event as servers pass it on (filters with `event_format` federation). */
struct err hs_write_server_event(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct viewer *viewer, const struct stored_event *event,
                                 struct json_out *out) MUST_USE;
/* Writes the four-key stripped form. */
void hs_write_stripped(struct json_out *out, const struct stored_event *event);
/* The stripped state of a room for an invite or knock: the recommended types plus `also` (a member
 * event's state key, or empty). */
struct err hs_write_stripped_state(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t root,
                                   struct slice also_member, struct json_out *out) MUST_USE;

/* Pagination tokens are places between events: "t<number>" stands right before the event of that
 * number (so reading backwards from it begins with number - 1, forwards with number). Sync tokens
 * ("s<pos>...") are accepted too: right behind the newest event at that position.
 * M_INVALID_PARAM otherwise. */
struct err hs_token_to_number(struct hs *hs, struct ctx *ctx, struct room *room, struct slice token,
                              int64_t *number_out) MUST_USE;
struct slice hs_token_of_number(struct ctx *ctx, int64_t number);
