/* The content repository: what this server knows of each uploaded file, and the files themselves as
 * blobs of the store, streamed both ways. A file may be announced first and filled later; who asks
 * meanwhile waits. Spec: client-server, "Content repository". */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/media/media_job.h"
#include "homeserver/service/media_rows.h"

enum { MEDIA_ID_BYTES_MAX = 255, MEDIA_NAME_BYTES_MAX = 255, MEDIA_TYPE_BYTES_MAX = 255 };

/* Those who wait for announced files. */
struct media_waits;
struct media_waits *media_waits_new(struct hs *hs);
void media_waits_free(struct media_waits **waits);

/* Letters, digits, `_` and `-` only, so that an id is a file name and nothing else. */
bool media_id_is_valid(struct slice media_id);
/* The name under which the file of another server is kept here; no client can ask for it as a file
 * of this server. */
struct slice media_remote_id(struct arena *arena, struct slice server, struct slice media_id);
bool media_id_is_remote(struct slice media_id);
/* A valid id that a file of this server's users may have. */
bool media_id_is_own(struct slice media_id);
/* Made here of another file; no client can ask for it by its name either. */
bool media_id_is_thumbnail(struct slice media_id);
/* An announcement without content that is too old counts as not found. */
struct err media_find(struct hs *hs, struct ctx *ctx, struct slice media_id,
                      struct media *media_out, bool *found_out) MUST_USE;
/* Whether a user has room for so many bytes more. M_USER_LIMIT_EXCEEDED, with a text for the user.
 */
struct err media_quota_check(struct hs *hs, struct ctx *ctx, uint64_t user, int64_t bytes) MUST_USE;
/* Announces a file: a new id that only this user may fill. M_LIMIT_EXCEEDED when the user has too
 * many announcements open. In the account's lane. */
struct err media_announce(struct hs *hs, struct ctx *ctx, uint64_t user,
                          struct media *media_out) MUST_USE;
/* Whether the user may fill this id. M_NOT_FOUND, M_FORBIDDEN, M_CANNOT_OVERWRITE_MEDIA. */
struct err media_check_fill(struct hs *hs, struct ctx *ctx, uint64_t user,
                            struct slice media_id) MUST_USE;

/* An upload under way; made in a stream hook, so without an arena. */
struct media_upload {
    struct store_blob_writer *writer;
    int64_t bytes;
    int64_t bytes_max;
    enum {
        MEDIA_QUOTA_HOLDS,
        MEDIA_QUOTA_WAIVED
    } quota; /* of the uploader; what is waived counts all the same */
};
struct err media_upload_begin(struct hs *hs, struct media_upload *upload) MUST_USE;
/* M_TOO_LARGE past the limit. */
struct err media_upload_append(struct media_upload *upload, struct slice bytes) MUST_USE;
void media_upload_abort(struct media_upload *upload);
/* Publishes the bytes: under draft->media_id when it is set (which must have been announced; in the
 * account's lane), under a new id otherwise. Ends the upload in any case. M_USER_LIMIT_EXCEEDED
 * when the user has no room for it. */
struct err media_upload_finish(struct hs *hs, struct ctx *ctx, struct media_upload *upload,
                               const struct media *draft, struct media *media_out) MUST_USE;

/* A name for a file that nobody uploads. */
struct slice media_new_id(struct ctx *ctx);
/* What a file turned out to be. */
struct err media_set_type(struct hs *hs, struct ctx *ctx, struct slice media_id,
                          struct slice content_type) MUST_USE;
/* Removes a file with its record and thumbnails. */
struct err media_delete(struct hs *hs, struct ctx *ctx, struct slice media_id) MUST_USE;
/* Publishes the bytes of another server's file under draft->media_id, a remote id or a new one. In
 * no lane. */
struct err media_upload_finish_remote(struct hs *hs, struct ctx *ctx, struct media_upload *upload,
                                      const struct media *draft) MUST_USE;

/* What a thumbnail is to be: MEDIA_JOB_CROP, MEDIA_JOB_ANIMATED. Width 0: the original. */
struct media_size {
    uint32_t width, height;
    uint32_t flags;
};
/* The size that is made when this one is asked for: the next one of a few, so that a picture has a
 * bounded number of thumbnails. Spec: client-server, "Thumbnails". */
struct media_size media_thumbnail_size(struct media_size wanted);
/* The parameters that a thumbnail is asked for with. M_INVALID_PARAM. */
struct err media_size_parse(struct ctx *ctx, const struct http_request *request,
                            struct media_size *size_out) MUST_USE;
/* The media whose bytes are the thumbnail: a file made of the original, or the original itself
 * when it is small enough, with the type that it really has. ERR_WAITS when it has to be made
 * outside the waiting pool. M_UNKNOWN for what is no picture, M_TOO_LARGE. */
struct err media_thumbnail_find(struct hs *hs, struct ctx *ctx, const struct media *original,
                                const struct media_size *wanted, struct media *media_out) MUST_USE;
/* Those of a file that goes. */
struct err media_thumbnails_delete(struct hs *hs, struct ctx *ctx, struct slice media_id) MUST_USE;

/* A preview of the page, as JSON in ctx's arena. ERR_WAITS where the page must be fetched outside
 * the waiting pool. M_INVALID_PARAM for what is no URL of the web, M_FORBIDDEN for a host that is
 * not allowed; 502 when the page cannot be had. Spec: client-server, "Content repository". */
struct err media_preview(struct hs *hs, struct ctx *ctx, struct slice url,
                         struct slice *json_out) MUST_USE;

/* How a download is to be answered; kept while its request waits. */
struct media_view {
    struct slice media_id;
    struct slice file_name;            /* overrides the file's own; empty = none */
    struct slice range, if_none_match; /* headers; dropped when the request has to wait */
    struct media_size thumbnail;       /* width 0: the file itself */
    bool is_multipart;                 /* as other servers get it; no range */
};
/* Answers with the file, or waits up to timeout_ms for its content. M_NOT_FOUND,
 * M_NOT_YET_UPLOADED, and for thumbnails M_UNKNOWN when the file is no image. */
struct err media_serve(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                       struct http_reply *reply, const struct media_view *view,
                       int64_t timeout_ms) MUST_USE;
/* Whether browsers may show this type in place.
 * Spec: "Serving inline content". */
bool media_type_is_inline(struct slice content_type);
/* A type that can stand in a header; anything else is just bytes. Borrows. */
struct slice media_clean_type(struct slice content_type);
/* A file name cut to MEDIA_NAME_BYTES_MAX between two characters; empty when it is no UTF-8.
 * Borrows.
 */
struct slice media_clean_name(struct slice name);
/* `inline` or `attachment`, with the name in the form that its characters need. */
struct slice media_disposition(struct arena *arena, struct slice content_type,
                               struct slice file_name);

struct media_part {
    int64_t offset, bytes;
};
enum media_range {
    MEDIA_RANGE_WHOLE,   /* no single range that can be read: answer with everything */
    MEDIA_RANGE_PART,    /* part_out lies within the file */
    MEDIA_RANGE_OUTSIDE, /* 416 */
};
/* What a Range header wants of a file of `bytes` bytes. */
enum media_range media_range_parse(struct slice header, int64_t bytes, struct media_part *part_out);
/* Whether an If-None-Match header names this entity tag (with its quotes). */
bool media_etag_matches(struct slice if_none_match, struct slice etag);
