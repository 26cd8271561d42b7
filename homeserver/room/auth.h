/* Authorisation of events against a room state, rule by rule. Pure.
 * Spec: room versions 1 to 12, "Authorization rules". */
#pragma once
#include "homeserver/room/auth_events.h"

struct auth_verdict {
    bool allowed;
    char rule[32];    /* number of the rule that refused, as the room version's page counts */
    const char *text; /* static; why it was refused */
};

/* The state event under a key, or NULL. Must be stable during the call. */
typedef const struct event *(*auth_state_fn)(void *arg, struct slice type, struct slice state_key);

struct auth_input {
    struct arena *arena;
    const struct event *event;
    const struct event *create; /* the room's create event. Version 12 finds it by the room id, so
                                   pass it always; NULL: looked up in the state (not in 12) */
    auth_state_fn state;
    void *state_arg;
};

/* All rules except the one on auth_events. Signatures and hashes have been checked before (also
 * that of join_authorised_via_users_server, by event_check_signatures). */
struct auth_verdict auth_check_event(const struct auth_input *input);
/* The rule on auth_events: no duplicate keys, nothing outside the selection, nothing rejected, the
 * create event there (not in 12), all of this room. `cited` are the events, in any order; one that
 * is unknown must have been fetched or the event refused before. */
struct auth_verdict auth_check_auth_events(const struct event *event,
                                           const struct event *const *cited, size_t count);
/* Both, with the cited events as the state: "authorised by its auth events". */
struct auth_verdict auth_check_by_auth_events(struct arena *arena, const struct event *event,
                                              const struct event *create,
                                              const struct event *const *cited, size_t count);
/* M_FORBIDDEN with the public text of a refusal; OK when allowed. */
struct err auth_error(struct arena *arena, const struct auth_verdict *verdict) MUST_USE;
/* The user id at the beginning of a state key that begins with '@' (MSC3757): what stands before
 * the first '_' behind the first ':'. It need not be a valid one. */
struct slice auth_state_key_owner(struct slice state_key);
