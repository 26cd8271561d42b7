/* All client-server routes of this server. */
#pragma once
#include "homeserver/http/http.h"

enum { CS_TABLES_MAX = 64 };

/* Copies the tables of the client-server modules; gives their number. */
size_t cs_routes_collect(struct http_route_table tables_out[CS_TABLES_MAX]);
