/* What the stream of changes said while nobody listened, read from the rooms' logs. */
#pragma once
#include "homeserver/service/rooms.h"

struct stream_event {
    uint64_t room;
    int64_t number;
    uint64_t pos;
};
struct stream_events {
    struct stream_event *items_owned; /* ascending by position; mem_free */
    size_t count, cap;
};
/* Which events are wanted; scanned. */
typedef bool (*stream_wants_fn)(void *arg, const struct stored_event *event);
/* Events of all rooms above a position, outliers and older history left out; `wants` NULL = all of
 * them. Reads the head of each room and of a room no more than what it looks for; 24 bytes an
 * event. A room that cannot be opened is passed over. */
struct err hs_stream_events_since(struct hs *hs, struct ctx *ctx, uint64_t since,
                                  stream_wants_fn wants, void *arg,
                                  struct stream_events *events_out) MUST_USE;
