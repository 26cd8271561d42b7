/* Filters of /sync, and the event filters that /messages, /context and /search share with them.
 * Parsing checks every type; matching is pure.
 * Spec: client-server, "Filtering". */
#pragma once
#include "homeserver/base/json.h"

enum {
    SYNC_FILTER_BYTES_MAX = 65536,
    SYNC_TIMELINE_DEFAULT = 10,
    SYNC_TIMELINE_MAX = 1000, /* events of one room in one answer */
};

/* A list of strings; `given` false = nothing was said. */
struct sync_names {
    struct slice *items;
    size_t count;
    bool given;
};

enum sync_url { SYNC_URL_ANY, SYNC_URL_WITH, SYNC_URL_WITHOUT };

/* EventFilter and RoomEventFilter in one. */
struct sync_event_filter {
    struct sync_names types, not_types, senders, not_senders, rooms, not_rooms;
    struct sync_names rel_types, not_rel_types; /* MSC3874, under its unstable names */
    enum sync_url url;
    bool needs_content; /* cannot tell without the event's content */
    size_t limit;       /* as given, at most SYNC_TIMELINE_MAX */
    bool limit_given;
    bool lazy_load_members, include_redundant_members, unread_thread_notifications;
    bool takes_all; /* lets every event of every room through */
};

struct sync_filter {
    struct sync_event_filter presence, account_data;
    struct sync_event_filter room_state, room_timeline, room_ephemeral, room_account_data;
    struct sync_names rooms, not_rooms;
    bool include_leave;
    bool federation_format;
    struct sync_names event_fields;
};

/* The filter that lets everything through. */
struct sync_filter sync_filter_all(void);
/* Result borrows from the tree and the arena. M_BAD_JSON with a text that names the member. */
struct err sync_filter_parse(struct arena *arena, const struct json *object,
                             struct sync_filter *filter_out) MUST_USE;
/* From text; M_NOT_JSON when it is not JSON. */
struct err sync_filter_parse_text(struct arena *arena, struct slice text,
                                  struct sync_filter *filter_out) MUST_USE;
/* A RoomEventFilter alone (query parameter `filter` of /messages and /context, body of /search). */
struct err sync_filter_parse_events(struct arena *arena, const struct json *object,
                                    struct sync_event_filter *filter_out) MUST_USE;

/* Whether the `rooms` and `not_rooms` of an event filter let a room through. */
bool sync_filter_takes_room(const struct sync_event_filter *filter, struct slice room_id);
/* The same for the room lists of the whole filter. */
bool sync_filter_visits_room(const struct sync_filter *filter, struct slice room_id);
bool sync_filter_takes_type(const struct sync_event_filter *filter, struct slice type);
bool sync_filter_takes_sender(const struct sync_event_filter *filter, struct slice sender);
/* Types, senders and contains_url; room lists are the caller's (sync_filter_takes_room). `content`
 * may be NULL when there is none. */
bool sync_filter_takes_event(const struct sync_event_filter *filter, struct slice type,
                             struct slice sender, const struct json *content);
