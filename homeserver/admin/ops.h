/* What an operator does to a server, as named operations with JSON arguments and a JSON answer:
 * myelinctl runs them on a store of its own or has the admin listener of the running server do it.
 */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/service/hs.h"

/* Runs operation `name` ("users/list", ...). `args` is an object. M_UNRECOGNIZED for unknown names;
 * public texts say what is wrong with the arguments. Waits for nothing but the store. */
struct err admin_run(struct hs *hs, struct ctx *ctx, struct slice name, const struct json *args,
                     struct json_out *out) MUST_USE;
