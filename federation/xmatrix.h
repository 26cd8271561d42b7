/* The Authorization header of the scheme X-Matrix. Pure.
 * Spec: server-server, "Request Authentication". */
#pragma once
#include "homeserver/base/arena.h"

struct xmatrix {
    struct slice origin, destination, key, sig; /* ptr NULL = absent; in the arena */
};
/* Reads one header: scheme and names in any case, values quoted (with backslash escapes) or tokens
 * that may hold colons, spaces around commas, unknown parameters. False for another scheme, for
 * malformed text, for a parameter given twice, and without origin, key or sig. */
bool xmatrix_parse(struct arena *arena, struct slice header, struct xmatrix *header_out);
