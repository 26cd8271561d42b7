/* The admin listener: metrics and health for everybody who can reach it, operations for those who
 * can read the file admin.token in data_dir. */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/service/hs.h"

extern const struct http_route_table admin_routes;

/* The token of the file; a new file when there is none. The text lives in the arena. */
struct err admin_token_load(struct arena *arena, struct slice path,
                            struct slice *token_out) MUST_USE;
