/* Inside media: waking those who wait for a file. */
#pragma once
#include "homeserver/media/media.h"

void media_waits_wake(struct media_waits *waits, struct slice media_id);
/* Parks the request until the file is there or the time is over. */
void media_waits_park(struct media_waits *waits, struct ctx *ctx,
                      const struct http_request *request, struct http_reply *reply,
                      const struct media_view *view, int64_t timeout_ms);
/* The answer as things stand now. */
struct err media_answer(struct hs *hs, struct ctx *ctx, const struct media_view *view,
                        struct http_reply *reply) MUST_USE;
