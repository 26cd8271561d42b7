/* A scanned event in one block of memory, with its client format made: what the row cache keeps of
 * a row beside its bytes. */
#pragma once
#include "homeserver/service/rooms.h"

/* A copy whose slices lie in `row` where those of `event` do, and in the block otherwise; to be
 * freed with mem_free. The content tree is left out. */
struct stored_event *kept_event_new(struct arena *arena, const struct stored_event *event,
                                    struct slice row, size_t *bytes_out);
