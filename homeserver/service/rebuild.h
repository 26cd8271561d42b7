/* Writes anew what derives from the logs, wherever it is not what they say. Rows that are right
 * stay. May be interrupted and begun again at any time. Nothing else may use the store meanwhile,
 * and what is cached of it is stale afterwards. */
#pragma once
#include "homeserver/service/check.h"

/* The differences that were found, and how many of them could be healed. */
struct err hs_rebuild(struct hs *hs, struct ctx *ctx, const struct check_options *options,
                      struct check_result *result_out) MUST_USE;
