/* Server-server routes. Spec: server-server API. */
#pragma once
#include "homeserver/http/http.h"

enum { SS_TABLES_MAX = 32 };

/* Copies the tables of the server-server modules; gives their number. */
size_t ss_routes_collect(struct http_route_table tables_out[SS_TABLES_MAX]);

/* One table for each in_*.c. */
extern const struct http_route_table ss_keys_routes;
extern const struct http_route_table ss_query_routes;
extern const struct http_route_table ss_rooms_routes;
extern const struct http_route_table ss_media_routes;
extern const struct http_route_table ss_send_routes;
extern const struct http_route_table ss_history_routes;
extern const struct http_route_table ss_join_routes;
extern const struct http_route_table ss_leave_routes;
extern const struct http_route_table ss_knock_routes;
extern const struct http_route_table ss_invite_routes;
extern const struct http_route_table ss_third_party_routes;
extern const struct http_route_table ss_device_keys_routes;
