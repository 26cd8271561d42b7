/* Which state events an event must cite. Spec: server-server, "Auth events selection". */
#pragma once
#include "homeserver/room/event.h"

struct auth_key {
    struct slice type;
    struct slice state_key;
};

enum { AUTH_EVENTS_MAX = 7 };

/* The keys for an event; those without state in the room are simply not cited. Reads only rules,
 * type, sender, state_key and content, so a draft filled that far will do. Keys borrow from it.
 * m.room.create is left out in version 12, and the list is empty for a create event. */
size_t auth_events_select(const struct event *event, struct auth_key keys_out[AUTH_EVENTS_MAX]);
