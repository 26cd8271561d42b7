/* Redaction of events: what each room version keeps. Spec: room versions, "Redactions". */
#pragma once
#include "homeserver/base/json.h"
#include "spec/room_rules.h"

/* A copy of a PDU with only what survives redaction; shares values with `pdu`. `unsigned` is
 * dropped. A missing or odd `content` becomes an empty object. */
struct json redact_event(struct arena *arena, const struct room_rules *rules,
                         const struct json *pdu);
/* The content a redacted event of this type keeps. */
struct json redact_content(struct arena *arena, const struct room_rules *rules, struct slice type,
                           const struct json *content);
/* Whether a top-level member survives redaction (content is cut down, not dropped). */
bool redact_keeps_member(const struct room_rules *rules, struct slice key);
/* Whether a redaction may be applied, once both events are known and accepted: the sender has the
 * redact level, or both senders (versions 1 and 2: event ids) are of one server.
 * Spec: room version 3, "Handling redactions". */
struct event;
struct power_levels;
bool redact_is_allowed(const struct event *redaction, const struct event *target,
                       const struct power_levels *levels);
