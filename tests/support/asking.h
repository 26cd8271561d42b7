/* Requests to the routes of a table from any bytes, for fuzz targets: a server without ports, a
 * user with a device, a room and a message in it. The bytes are lines: the index of the route (one
 * character, from '0' on), three path parameters, the query, the Content-Type, the If-Match; what
 * follows is the body. In parameters $room, $event, $user and $device stand for what there is, $id
 * for the id that was told last, if any.
 *
 * Fails when the server finds fault with itself, or answers with what is no JSON. */
#pragma once
#include "homeserver/client/routes_priv.h"
#include "tests/support/house.h"

struct asking {
    struct house house;
    struct guest guest;
    struct slice room_id, event_id, last_id; /* of the house's conf_arena, and last_bytes */
    char last_bytes[256];
    uint32_t runs;
};

void asking_run(struct asking *asking, const struct http_route_table *table, struct slice bytes);
