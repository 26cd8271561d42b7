/* Power levels with their defaults. Spec: client-server, "m.room.power_levels"; room versions,
 * "Authorization rules". */
#pragma once
#include "homeserver/room/event.h"

/* The power of creators from version 12 on: above every number an event can hold. */
#define POWER_INFINITE INT64_MAX

enum power_kind {
    POWER_MESSAGE,
    POWER_STATE,
};

/* Borrows from the events it was loaded from. */
struct power_levels {
    const struct room_rules *rules;
    const struct event *create; /* may be NULL */
    const struct json *users;   /* objects or NULL */
    const struct json *events;
    const struct json *notifications;
    bool has_event;
    int64_t users_default;
    int64_t events_default;
    int64_t state_default;
    int64_t ban;
    int64_t kick;
    int64_t redact;
    int64_t invite;
};

/* `levels` may be NULL: the defaults of a room without power levels. */
struct power_levels power_load(const struct room_rules *rules, const struct event *create,
                               const struct event *levels);
int64_t power_of_user(const struct power_levels *levels, struct user_id user);
int64_t power_needed_for(const struct power_levels *levels, struct slice type,
                         enum power_kind kind);
/* The level of `notifications[key]`, 50 when not given (spec: for `room`). */
int64_t power_needed_to_notify(const struct power_levels *levels, struct slice key);
/* One level as the version reads it: integers; integer strings (1 to 9); floats (1 to 5). */
bool power_parse_level(const struct room_rules *rules, const struct json *value,
                       int64_t *level_out);
/* Creators: the sender of m.room.create and, in version 12, additional_creators; before version 11
 * content.creator. */
bool power_is_creator(const struct event *create, struct user_id user);
/* The `creator` of the room. */
struct user_id power_creator(const struct event *create);
/* What a client's PUT of m.room.power_levels must satisfy: types, ids, no creator in `users` of
 * version 12. M_BAD_JSON with a public text that names the member. */
struct err power_check_content(struct arena *arena, const struct room_rules *rules,
                               const struct event *create, const struct json *content) MUST_USE;
