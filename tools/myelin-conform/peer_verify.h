/* Whether the server under test signed what it should have, by the keys that it publishes. */
#pragma once
#include "tools/myelin-conform/stage.h"

/* A signed object. `why_out` is empty when all its signatures of the server hold. */
struct err peer_verify_object(struct stage *stage, const struct json *object,
                              struct slice *why_out) MUST_USE;
/* Content hash and required signatures of an event; other servers' keys are those of the scene. */
struct err peer_verify_event(struct stage *stage, const struct room_rules *rules,
                             const struct json *tree, struct slice *why_out) MUST_USE;
/* "valid" or what is wrong with the X-Matrix header of a request to this peer. */
struct err peer_verify_request(struct stage *stage, const struct peer *peer,
                               const struct peer_request *request,
                               struct slice *verdict_out) MUST_USE;
