/* Which servers are in a room at an event: kept for each room as a count of joined members by
 * server, and carried from one snapshot of the state to the next by what differs between them, so
 * that the cost of an event does not depend on the number of members. One thread uses it. */
#pragma once
#include "homeserver/service/rooms.h"

struct room_servers;

enum { ROOM_SERVERS_KEPT = 4096 };

/* Which servers a room's m.room.server_acl lets in; `content` NULL = no such event. */
typedef bool (*room_acl_fn)(const struct json *content, struct slice server);

struct room_servers *room_servers_new(struct hs *hs, room_acl_fn acl);
void room_servers_free(struct room_servers **servers);

/* Servers with a joined member in a snapshot, but for this server and those that the ACL of the
 * snapshot keeps out; sorted; good until the next call. While a room is partial: those that a
 * resident server named. */
struct server_names {
    const struct slice *items;
    size_t count;
};
struct err room_servers_at(struct room_servers *servers, struct ctx *ctx, struct room *room,
                           uint64_t root, struct server_names *names_out) MUST_USE;
/* That list is known to be empty, without a look at the store. */
bool room_servers_none(const struct room_servers *servers, struct room *room, uint64_t root);
bool server_names_has(struct server_names names, struct slice server);
