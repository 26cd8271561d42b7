/* Shared by the files that implement room/auth.h. */
#pragma once
#include "homeserver/room/auth.h"
#include "homeserver/room/membership.h"
#include "homeserver/room/power.h"

/* Top rules in their order. Not every version has all of them; the number of a rule is its place
 * among those its version has. */
enum auth_rule {
    AUTH_RULE_CREATE,
    AUTH_RULE_ROOM, /* version 12 */
    AUTH_RULE_AUTH_EVENTS,
    AUTH_RULE_FEDERATE,
    AUTH_RULE_ALIASES, /* versions 1 to 5 */
    AUTH_RULE_MEMBER,
    AUTH_RULE_SENDER,
    AUTH_RULE_THIRD_PARTY_INVITE,
    AUTH_RULE_LEVEL,
    AUTH_RULE_STATE_KEY,
    AUTH_RULE_POWER_LEVELS,
    AUTH_RULE_REDACTION, /* versions 1 and 2 */
};

/* Branches of the member rule in their order, counted the same way. */
enum auth_branch {
    AUTH_MEMBER_FORM,
    AUTH_MEMBER_VOUCHER, /* version 8 on */
    AUTH_MEMBER_JOIN,
    AUTH_MEMBER_INVITE,
    AUTH_MEMBER_LEAVE,
    AUTH_MEMBER_BAN,
    AUTH_MEMBER_KNOCK, /* version 7 on */
    AUTH_MEMBER_UNKNOWN,
};

struct auth_check {
    const struct auth_input *input;
    const struct event *event;
    const struct room_rules *rules;
    const struct event *create;
    struct power_levels levels;
    int64_t sender_power;
    enum membership sender_membership;
};

struct auth_verdict auth_allow(void);
/* `sub` is what follows the top number, as ".2"; may be empty. */
struct auth_verdict auth_refuse(const struct room_rules *rules, enum auth_rule rule,
                                const char *sub, const char *text);
struct auth_verdict auth_refuse_member(const struct room_rules *rules, enum auth_branch branch,
                                       const char *sub, const char *text);
const struct event *auth_state(const struct auth_check *check, struct slice type,
                               struct slice state_key);
enum membership auth_membership(const struct auth_check *check, struct slice user);

struct auth_verdict auth_check_member(const struct auth_check *check);
struct auth_verdict auth_check_power_levels(const struct auth_check *check);
