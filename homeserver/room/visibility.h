/* Who may see an event. Spec: client-server, "Room History Visibility", server behaviour. */
#pragma once
#include "homeserver/room/membership.h"

enum history_visibility {
    HISTORY_SHARED, /* the default, also for unknown values */
    HISTORY_WORLD_READABLE,
    HISTORY_INVITED,
    HISTORY_JOINED,
};

enum history_visibility visibility_parse(struct slice word);
/* Of an m.room.history_visibility event; SHARED for NULL. */
enum history_visibility visibility_of(const struct event *event);

/* `before` is the state the event was sent in. `after` differs from it only when the event itself
 * is the history visibility, or the viewer's own membership; then the more generous one counts. */
struct visibility_input {
    enum history_visibility visibility_before;
    enum history_visibility visibility_after;
    enum membership membership_before;
    enum membership membership_after;
    bool joined_later; /* the viewer is joined now or was at any time after the event */
};

/* The same serves for a server: memberships are then the best of any of its users, and
 * `joined_later` holds while one of them is in the room. */
bool visibility_allows_user(const struct visibility_input *input);
