/* What strangers may learn of a room before they join it: the summary that room lists, space
 * hierarchies and summaries of one room have in common, of rooms here and of rooms that another
 * server described. Spec: client-server, "Published room directory", "Spaces", "Room Summaries";
 * server-server, "Spaces", "Published Room Directory". */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/service/rooms.h"

/* Texts are empty when the room has none. All lives in the arena. */
struct room_summary {
    struct slice room_id, name, topic, canonical_alias, avatar_url, room_type;
    struct slice join_rule; /* empty: the room has no rule, which means invite */
    struct slice encryption, room_version;
    const struct slice *allowed_rooms; /* of a restricted room */
    size_t allowed_room_count;
    int64_t joined_count;
    bool world_readable, guest_can_join;
};

struct err hs_summary_read(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct room_summary *summary_out) MUST_USE;
/* A summary that another server wrote; false when it has no valid room id. Members of wrong types
 * are passed over. */
bool hs_summary_parse(struct arena *arena, const struct json *object,
                      struct room_summary *summary_out);

enum summary_form {
    SUMMARY_PUBLIC_LIST, /* the members that room lists have */
    SUMMARY_FULL,
};
/* The members, without braces. */
void hs_summary_write(struct json_out *out, const struct room_summary *summary,
                      enum summary_form form);

/* Whether a local user may look at the room: a member, invited, able to join or knock, or anyone
 * may read it; and not banned. `user` 0 = somebody without an account. */
struct err hs_summary_visible_to_user(struct hs *hs, struct ctx *ctx, uint64_t user,
                                      const struct room_summary *summary,
                                      bool *visible_out) MUST_USE;
/* The same for the users of another server. `room` is the room here. */
struct err hs_summary_visible_to_server(struct hs *hs, struct ctx *ctx, struct room *room,
                                        struct slice server, const struct room_summary *summary,
                                        bool *visible_out) MUST_USE;
/* Whether the server has a user joined to (or, on request, invited to) the room now. */
enum server_standing { SERVER_JOINED, SERVER_JOINED_OR_INVITED };
struct err hs_server_in_room(struct hs *hs, struct ctx *ctx, struct room *room, struct slice server,
                             enum server_standing standing, bool *is_in_out) MUST_USE;

/* --- spaces --- */
struct space_child {
    struct slice room_id;
    const struct json *via; /* array of strings, at least one of them */
    struct slice order;     /* empty = none, or not valid */
    int64_t origin_server_ts;
    struct json stripped; /* the event as children_state has it */
};
struct space_children {
    struct space_child *items; /* in the order in which clients show them */
    size_t count;
};
/* Of a room here; none when it is no space. */
struct err hs_space_children(struct hs *hs, struct ctx *ctx, struct room *room, bool suggested_only,
                             struct space_children *children_out) MUST_USE;
/* Of children_state as another server wrote it; what is malformed is left out. */
void hs_space_children_parse(struct arena *arena, const struct json *children_state,
                             bool suggested_only, struct space_children *children_out);
/* "children_state": [...] */
void hs_space_children_write(struct json_out *out, const struct space_children *children);

/* --- the list of public rooms --- */
struct public_rooms_query {
    struct slice term;             /* empty = all */
    const struct json *room_types; /* array of strings and null; NULL = any */
    size_t limit;                  /* 0 = all */
    struct slice since;            /* a token of this list, or empty */
    struct slice instance;         /* instance_id of a third-party network; empty = none */
    bool all_networks;             /* the lists of all networks, too */
};
/* Reads limit, since, filter and networks of a body. M_BAD_JSON, M_INVALID_PARAM. */
struct err hs_public_rooms_query_parse(const struct json *body,
                                       struct public_rooms_query *query_out) MUST_USE;
/* Writes the whole answer. M_INVALID_PARAM for a token that is none. */
struct err hs_public_rooms_write(struct hs *hs, struct ctx *ctx,
                                 const struct public_rooms_query *query,
                                 struct json_out *out) MUST_USE;
