/* Relations between events. Spec: client-server, "Forming relationships between events". */
#pragma once
#include "homeserver/room/event.h"

struct relation {
    struct slice rel_type;       /* empty when there is none */
    struct event_id event_id;    /* target of rel_type */
    struct slice key;            /* of annotations */
    struct event_id in_reply_to; /* m.in_reply_to.event_id */
    bool is_falling_back;
};

/* Reads content["m.relates_to"]; all empty when it is absent or malformed. Borrows. */
struct relation relates_parse(const struct json *content);
bool relates_is(const struct relation *relation, struct slice rel_type);
/* Whether `edit` validly replaces `original`: same room, sender and type, neither a state event,
 * the original not an edit itself, m.new_content there (unless encrypted). Spec: client-server,
 * "Validity of replacement events". */
bool relates_is_valid_edit(const struct event *edit, const struct event *original);
/* Which of two valid edits counts: the newer origin_server_ts, then the larger event id. */
bool relates_is_newer_edit(const struct event *edit, const struct event *than);
/* Root of the thread the event is in; empty when it is in none. */
struct event_id relates_thread_root(const struct json *content);
/* A thread may not start at an event that itself relates to another by rel_type. */
bool relates_may_be_thread_root(const struct json *content);
