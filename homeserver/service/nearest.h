/* The event of a room that lies nearest to a moment, by the times that the events carry. */
#pragma once
#include "homeserver/service/rooms.h"

struct nearest_query {
    int64_t ts_ms;                                    /* wall */
    enum { NEAREST_AFTER, NEAREST_BEFORE } direction; /* at or after, at or before the moment */
    const struct viewer *viewer; /* who must be able to see the event; NULL = nobody asks */
};
/* The timeline event closest to the moment in the direction. The times of a timeline mostly grow;
 * where they do not, the closest one near that place is given. */
struct err hs_event_nearest(struct hs *hs, struct ctx *ctx, struct room *room,
                            struct nearest_query query, struct stored_event *event_out,
                            bool *found_out) MUST_USE;
