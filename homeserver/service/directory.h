/* Room aliases and the public room list, rows of STORE_ROOM_IDS.
 * Spec: client-server, "Room aliases", "Published room directory". */
#pragma once
#include "homeserver/service/rooms.h"

/* M_UNKNOWN (409) when the alias exists. */
struct err hs_alias_set(struct hs *hs, struct ctx *ctx, struct slice alias, uint64_t room,
                        uint64_t creator) MUST_USE;
struct err hs_alias_get(struct hs *hs, struct ctx *ctx, struct slice alias, uint64_t *room_out,
                        uint64_t *creator_out, bool *found_out) MUST_USE;
struct err hs_alias_delete(struct hs *hs, struct ctx *ctx, struct slice alias) MUST_USE;
/* Local aliases of a room. */
struct err hs_aliases_of(struct hs *hs, struct ctx *ctx, uint64_t room, struct slice **aliases_out,
                         size_t *count_out) MUST_USE;

/* All aliases of a room, and its entry in the room list, go over to another room in one write. */
struct err hs_names_move(struct hs *hs, struct ctx *ctx, uint64_t from, uint64_t to) MUST_USE;
struct err hs_public_set(struct hs *hs, struct ctx *ctx, uint64_t room, bool is_public) MUST_USE;
struct err hs_public_get(struct hs *hs, struct ctx *ctx, uint64_t room,
                         bool *is_public_out) MUST_USE;
/* Numbers of all published rooms, ascending. */
struct err hs_public_rooms(struct hs *hs, struct ctx *ctx, uint64_t **rooms_out,
                           size_t *count_out) MUST_USE;

/* Rooms that an application service publishes for one of its networks. Their lists are apart from
 * the server's own. */
struct room_network {
    struct slice service, network; /* ids; both empty, for reading: all of them */
};
struct err hs_network_set(struct hs *hs, struct ctx *ctx, struct room_network network,
                          uint64_t room, bool is_public) MUST_USE;
struct err hs_network_rooms(struct hs *hs, struct ctx *ctx, struct room_network network,
                            uint64_t **rooms_out, size_t *count_out) MUST_USE;
/* Takes a room that goes out of all of them. */
struct err hs_network_forget(struct hs *hs, struct ctx *ctx, uint64_t room) MUST_USE;
/* The room of a local alias, which application services may make now: ERR_WAITS outside the waiting
 * pool. M_NOT_FOUND. */
struct err hs_alias_find_room(struct hs *hs, struct ctx *ctx, struct slice alias,
                              struct room **room_out) MUST_USE;
/* A room id or alias of this server as a room. M_NOT_FOUND when it is not known here. */
struct err hs_room_resolve(struct hs *hs, struct ctx *ctx, struct slice room_id_or_alias,
                           struct room **room_out) MUST_USE;
