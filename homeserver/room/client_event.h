/* Events as clients see them: canonical content bytes spliced into the client format, without the
 * keys of federation. Spec: client-server, "Room event format", "Stripped state". */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/room/event.h"

enum client_event_room_id {
    CLIENT_EVENT_WITH_ROOM_ID,
    CLIENT_EVENT_WITHOUT_ROOM_ID, /* in /sync */
};

struct client_event_options {
    enum client_event_room_id room_id;
    struct slice unsigned_json; /* a whole object written as `unsigned`; empty: none */
    /* Filter `event_fields`: dotted names to keep, "\." escaped; event_id, type etc. only when
     * named. count 0: everything. */
    const struct slice *fields;
    size_t field_count;
};

/* Writes one client event. `redacts` appears at top level and in content, whatever the version.
 * Works on scanned events (no content tree) unless fields are given. */
void client_event_write(struct arena *arena, struct json_out *out, const struct event *event,
                        const struct client_event_options *options);
/* content, sender, state_key, type: a stripped state event. */
void client_event_write_stripped(struct json_out *out, const struct event *event);
/* The same from a PDU or stripped event of another server; false (nothing written) when a member is
 * missing or has the wrong type. */
bool client_event_write_stripped_tree(struct json_out *out, const struct json *event);
