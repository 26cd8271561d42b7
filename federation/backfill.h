/* History that is not here: fetched when a client reads back to where it is missing, at the end of
 * what is here or at a gap in the middle. One fetch of a room at a time; a place that nobody could
 * fill is left alone for a while. Spec: server-server, "Backfilling and retrieving missing events".
 */
#pragma once
#include "federation/inbound.h"

struct backfills;

struct backfills *backfills_new(void);
void backfills_free(struct backfills **backfills);

/* hs->remote->backfill: the edge at event `number`, or the nearest one below it. */
struct err fed_backfill(struct hs *hs, struct ctx *ctx, struct room *room, int64_t number,
                        size_t limit, bool *added_out) MUST_USE;
