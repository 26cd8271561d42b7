/* What the files of a local user take: (STORE_MEDIA, "~" be64 user) holds media id -> bytes for
 * each file that the user uploaded, and "=" the sum of them. Both derive from the records of media,
 * and change in one update, so that a file counts once whatever is done twice. */
#pragma once
#include "homeserver/service/media_rows.h"

struct media_usage {
    int64_t bytes, files;
};

/* Whether a file counts: its content is here, and a user of this server uploaded it. */
bool hs_media_counts(const struct media *media);
struct err hs_media_usage_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                              struct media_usage *usage_out) MUST_USE;
/* Counts a file of media->bytes, or takes it out again: an update to be written together with the
 * one of the record. It carries a condition: after ERR_CONFLICT it is made anew. usage_out: what it
 * leads to. */
struct err hs_media_usage_add(struct hs *hs, struct ctx *ctx, const struct media *media,
                              struct store_update **update_out,
                              struct media_usage *usage_out) MUST_USE;
struct err hs_media_usage_remove(struct hs *hs, struct ctx *ctx, const struct media *media,
                                 struct store_update **update_out) MUST_USE;
/* Counts what was uploaded before this server counted. Once, at start, before anybody uploads. */
struct err hs_media_usage_start(struct hs *hs, struct ctx *ctx) MUST_USE;

/* The rows, for check and rebuild. */
struct store_object hs_media_usage_object(struct ctx *ctx, uint64_t user);
bool hs_media_is_usage_object(struct slice id, uint64_t *user_out);
struct slice hs_media_usage_sum_key(void);
struct slice hs_media_encode_usage(struct ctx *ctx, const struct media_usage *usage);
