#include "federation/routes.h"

static const struct http_route_table *const tables[] = {
    &ss_keys_routes,  &ss_query_routes,   &ss_rooms_routes,       &ss_media_routes,
    &ss_send_routes,  &ss_history_routes, &ss_join_routes,        &ss_leave_routes,
    &ss_knock_routes, &ss_invite_routes,  &ss_third_party_routes, &ss_device_keys_routes,
};

size_t ss_routes_collect(struct http_route_table tables_out[SS_TABLES_MAX])
{
    _Static_assert(COUNT_OF(tables) <= SS_TABLES_MAX, "more tables than callers have room for");
    for (size_t i = 0; i < COUNT_OF(tables); i++) {
        tables_out[i] = *tables[i];
    }
    return COUNT_OF(tables);
}
