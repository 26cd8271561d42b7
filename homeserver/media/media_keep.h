/* What the operator does with files: quarantine, removal, and the room that files of other servers
 * take. */
#pragma once
#include "homeserver/media/media.h"

/* The kept id of an mxc:// URI. M_INVALID_PARAM. */
struct err media_keep_parse(struct hs *hs, struct ctx *ctx, struct slice uri,
                            struct media *media_out) MUST_USE;
enum media_quarantine { MEDIA_QUARANTINE, MEDIA_RELEASE };
/* A file that is quarantined is served to nobody, and not fetched again when it is another
 * server's. One that is not here can be quarantined, too. M_NOT_FOUND. */
struct err media_keep_quarantine(struct hs *hs, struct ctx *ctx, const struct media *media,
                                 enum media_quarantine what) MUST_USE;

struct media_purged {
    int64_t files, bytes;
};
/* Removes files of other servers that were fetched before; they are fetched again when somebody
 * wants them. Those in quarantine stay. Slow. */
struct err media_keep_purge_remote(struct hs *hs, struct ctx *ctx, int64_t before_ms,
                                   struct media_purged *purged_out) MUST_USE;
