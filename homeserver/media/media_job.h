/* What the server and its helper process myelin-media say to each other. The helper reads pictures
 * and pages that anybody may have made, so it may be anybody's: what it answers is checked like
 * what comes from the network. One job at a time: a record of fixed size with the descriptor of
 * the input beside it; the answer is a record of fixed size, then its bytes. */
#pragma once
#include "homeserver/base/err.h"
#include "homeserver/base/pack.h"

enum { MEDIA_JOB_BYTES = 256, MEDIA_REPLY_BYTES = 64, MEDIA_CHARSET_BYTES_MAX = 64 };
/* The most that a helper answers. */
enum { MEDIA_REPLY_PAYLOAD_MAX = 16 << 20 };
/* The longest edge of a thumbnail. */
enum { MEDIA_EDGE_MAX = 4096 };

enum media_job_kind {
    MEDIA_JOB_THUMBNAIL = 1,
    MEDIA_JOB_PROBE, /* only what kind of picture it is */
    MEDIA_JOB_PAGE,  /* the title, description and picture of an HTML page */
};
enum media_job_flag {
    MEDIA_JOB_CROP = 1, /* fill the box and cut; without it: fit into the box */
    MEDIA_JOB_ANIMATED = 2,
};

struct media_job {
    enum media_job_kind kind;
    uint32_t flags; /* enum media_job_flag */
    uint32_t width, height;
    uint64_t pixels_max;  /* of the picture, all its frames together */
    struct slice charset; /* of a page, as its Content-Type says; may be empty */
};

/* Pictures that can be read: the others' readers are too large to trust. */
enum media_format {
    MEDIA_FORMAT_NONE,
    MEDIA_FORMAT_PNG,
    MEDIA_FORMAT_JPEG,
    MEDIA_FORMAT_GIF,
    MEDIA_FORMAT_WEBP,
};

enum media_result {
    MEDIA_RESULT_MADE = 1,  /* the bytes are what was asked for */
    MEDIA_RESULT_ORIGINAL,  /* the picture is small enough as it is */
    MEDIA_RESULT_NONE,      /* this is no picture */
    MEDIA_RESULT_TOO_LARGE, /* too many pixels */
};

struct media_reply {
    enum media_result result;
    enum media_format format; /* of the bytes when made, of the input otherwise */
    uint32_t width, height;
    struct slice bytes; /* a picture; of a page: pairs of packed bytes, a name and a value */
};

/* By the first bytes of a file; a few dozen suffice. */
enum media_format media_format_sniff(struct slice head);
struct slice media_format_type(enum media_format format);

/* Fills all of `out`. */
void media_job_encode(const struct media_job *job, char out[MEDIA_JOB_BYTES]);
/* Borrows. ERR_SYNTAX when out of bounds. */
struct err media_job_decode(struct slice record, struct media_job *job_out) MUST_USE;
/* The record before the bytes. */
void media_reply_encode(const struct media_reply *reply, char out[MEDIA_REPLY_BYTES]);
/* bytes_out: how many bytes follow. */
struct err media_reply_decode(struct slice record, struct media_reply *reply_out,
                              size_t *bytes_out) MUST_USE;
