/* Join rules with their allow list. Spec: client-server, "m.room.join_rules". */
#pragma once
#include "homeserver/room/event.h"

enum join_rule {
    JOIN_RULE_INVITE, /* also when there is no event */
    JOIN_RULE_PUBLIC,
    JOIN_RULE_KNOCK,
    JOIN_RULE_RESTRICTED,
    JOIN_RULE_KNOCK_RESTRICTED,
    JOIN_RULE_OTHER, /* unknown, or not in this room version: nobody joins by it */
};

struct join_rules {
    enum join_rule rule;
    const struct room_id *allowed_rooms; /* conditions of type m.room_membership with a good id */
    size_t allowed_room_count;
};

/* Only the rule, judged by the event's room version; NULL means invite. */
enum join_rule join_rules_rule(const struct event *join_rules);
/* Rule and allow list; malformed conditions are passed over. */
struct join_rules join_rules_parse(struct arena *arena, const struct event *join_rules);
/* Whether members of allowed rooms may join (restricted and knock_restricted). */
bool join_rules_are_restricted(enum join_rule rule);
bool join_rules_allow_knock(enum join_rule rule);
