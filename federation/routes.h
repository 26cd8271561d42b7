/* Server-server routes. Spec: server-server API. */
#pragma once
#include "homeserver/http/http.h"

extern const struct http_route_table ss_keys_routes;
