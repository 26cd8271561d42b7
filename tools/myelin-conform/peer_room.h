/* Rooms of a played server: events made, kept and looked up. The caller holds the peer's lock. */
#pragma once
#include "tools/myelin-conform/peer.h"

/* NULL when unknown. */
struct peer_room *peer_room_find(struct peer *peer, struct slice room_id);
struct peer_room *peer_room_add(struct peer *peer, struct slice room_id,
                                const struct room_rules *rules);
struct peer_event *peer_room_event(const struct peer_room *room, struct slice event_id);
struct peer_event *peer_room_state(const struct peer_room *room, struct slice type,
                                   struct slice state_key);
/* Keeps an event: as one of the state that another server gave, or as the newest of the room. */
enum peer_keep {
    PEER_KEEP_STATE,  /* state, but no place in the timeline */
    PEER_KEEP_OUT,    /* known by its id only */
    PEER_KEEP_NEWEST, /* a new extremity */
};
struct peer_event *peer_room_keep(struct peer *peer, struct peer_room *room,
                                  const struct json *tree, enum peer_keep keep);
/* Fills what the draft leaves out: room_id, depth, prev_events, auth_events, origin_server_ts,
 * content. */
struct json peer_room_draft(struct peer *peer, const struct peer_room *room,
                            const struct json *draft);
/* Content hash and signature, without any check of form. */
struct json peer_event_seal(struct arena *arena, const struct room_rules *rules,
                            const struct json *draft, const struct json_signer *signer);
struct slice peer_event_id(struct arena *arena, const struct room_rules *rules,
                           const struct json *tree);
/* The auth events of these events, and theirs, as far as they are known; without duplicates. */
struct json peer_room_auth_chain(struct peer *peer, const struct peer_room *room,
                                 struct peer_event *const *events, size_t count);
/* Ids of the events that an event cites under `prev_events` or `auth_events`. */
size_t peer_event_cited(struct arena *arena, const struct json *tree, struct slice member,
                        struct slice **ids_out);
