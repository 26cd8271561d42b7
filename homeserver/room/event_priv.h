/* Shared by the files that implement room/event.h. */
#pragma once
#include "homeserver/room/event.h"

/* Fills the plain fields from a PDU tree, checking format and sizes of the version; does not touch
 * json, content_json and id (from version 3 on). `members` says what must be there. */
enum event_completeness {
    EVENT_DRAFT, /* without hashes and signatures */
    EVENT_WHOLE,
};
struct err event_fill(struct arena *arena, const struct room_rules *rules, const struct json *tree,
                      enum event_completeness completeness, struct event *event_out) MUST_USE;
/* The bytes that are signed and, hashed, give the id: redacted, without signatures and unsigned
 * (nor, from version 3 on, event_id). */
struct slice event_payload(struct arena *arena, const struct room_rules *rules,
                           const struct json *tree);
/* The reference hash of a payload as text in the version's alphabet, with '$' in front. */
struct event_id event_id_of_payload(struct arena *arena, const struct room_rules *rules,
                                    struct slice payload);
/* A create event of version 12 gives the room its id. */
struct room_id event_room_of_create(struct arena *arena, struct event_id id);
struct err event_check_size(struct slice json) MUST_USE;
