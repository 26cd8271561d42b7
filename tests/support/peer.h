/* Servers that exist only in tests, and rooms that live on them: the events that they make are
 * sealed and signed like any other server's, with the auth events and the state that the
 * specification asks for, so that they can be handed to a server under test in any order.
 * States are resolved by room/resolve.h over whole states: what a server makes of the same events
 * can be compared with them. */
#pragma once
#include "crypto/ed25519.h"
#include "homeserver/base/map.h"
#include "homeserver/room/resolve.h"

struct peer {
    struct slice name; /* lives as long as the caller keeps it */
    struct slice key_id;
    struct ed25519_key key;
    struct json_signer signer;
};
/* A server "name" with the key ed25519:1, which follows from the name. */
void peer_init(struct peer *peer, const char *name);
/* A user id "@localpart:name", in the arena. */
struct slice peer_user(struct arena *arena, const struct peer *peer, const char *localpart);

enum { PEER_EVENTS_MAX = 4096, PEER_PREV_MAX = 20 };

struct peer_event {
    struct event event;
    struct resolve_set before, after; /* whole states */
    bool refused;                     /* by the rules, in the state before it: not built upon */
};
struct peer_room {
    struct arena *arena_owned;
    const struct room_rules *rules;
    struct slice room_id;
    struct peer_event *events; /* PEER_EVENTS_MAX */
    size_t count;
    struct map *by_id; /* event id -> index + 1 */
    int64_t ts;        /* of the next event */
};

/* What is to be made. */
struct peer_draft {
    const struct peer *peer; /* signs */
    struct slice sender;
    const char *type;
    const char *state_key; /* NULL: not a state event */
    const char *content;   /* JSON */
    const size_t *prev;    /* indices; NULL: the event before */
    size_t prev_count;
    const struct event_id *auth; /* NULL: those that the state asks for */
    size_t auth_count;
    int64_t depth; /* 0: one more than the deepest */
    const char *redacts;
};

/* A room of `creator` on the peer: create, join, power levels (creator 100), public join rules,
 * shared history. */
void peer_room_open(struct peer_room *room, const char *version, const struct peer *peer,
                    struct slice creator);
void peer_room_close(struct peer_room *room);
/* Makes the event; its index. It is kept whether or not the rules allow it (`refused`). */
size_t peer_make(struct peer_room *room, const struct peer_draft *draft);
/* A member event. */
size_t peer_member(struct peer_room *room, const struct peer_draft *like, struct slice target,
                   const char *membership);
const struct event *peer_get(const struct peer_room *room, size_t at);
/* The index of an event by id; SIZE_MAX when it is none of the room's. */
size_t peer_find(const struct peer_room *room, struct slice id);
/* The resolved state after these events. */
struct resolve_set peer_state_after(struct peer_room *room, const size_t *ends, size_t count);
