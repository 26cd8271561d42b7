/* Files of other servers: fetched once, whoever asks, and streamed to the disk.
 * Spec: server-server, "Content Repository". */
#pragma once
#include "homeserver/service/remote.h"

struct fed_media; /* what is being fetched */

struct fed_media *fed_media_new(void);
void fed_media_free(struct fed_media **media);

/* A part of the port (remote.h). */
struct err fed_media(struct hs *hs, struct ctx *ctx, struct slice server, struct slice media_id,
                     int64_t timeout_ms) MUST_USE;
