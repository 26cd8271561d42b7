/* Rows of media: (STORE_MEDIA, media id) holds the record "r"; (STORE_MEDIA, "@" be64 user) the ids
 * that the user has announced and not filled yet -> when the announcement lapses (packed). A file
 * is the blob of its media id's name. The records themselves are the business of media/. */
#pragma once
#include "homeserver/service/hs.h"

struct media {
    struct slice media_id;
    uint64_t uploader;
    struct slice content_type;
    struct slice file_name; /* empty = none was given */
    int64_t bytes;
    int64_t created_ms;
    int64_t expires_ms;  /* of an announced file: when the announcement lapses */
    bool is_ready;       /* the content is here */
    bool is_quarantined; /* the operator keeps it from being served */
    struct slice origin; /* the server that a remote file is of; empty for others */
};

/* Thumbnails have records and files like what is uploaded, and the id of their original as
 * file_name; in the original's object rows "t..." say what was made of it. */
struct slice hs_media_thumbnail_prefix(void);

struct store_object hs_media_object(struct slice media_id);
struct store_object hs_media_pending_object(struct ctx *ctx, uint64_t user);
struct slice hs_media_record_key(void);
struct slice hs_media_encode(struct ctx *ctx, const struct media *media);
/* Borrows from the row. */
struct err hs_media_decode(struct slice row, struct slice media_id,
                           struct media *media_out) MUST_USE;
/* A row of one number: when an announcement expires, how many bytes a file has. */
struct slice hs_media_encode_number(struct ctx *ctx, int64_t number);
