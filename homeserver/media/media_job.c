#include "homeserver/media/media_job.h"

#include <string.h>

enum { JOB_VERSION = 1, FLAGS_ALL = MEDIA_JOB_CROP | MEDIA_JOB_ANIMATED };

static const struct slice types[] = {
    [MEDIA_FORMAT_NONE] = LIT("application/octet-stream"),
    [MEDIA_FORMAT_PNG] = LIT("image/png"),
    [MEDIA_FORMAT_JPEG] = LIT("image/jpeg"),
    [MEDIA_FORMAT_GIF] = LIT("image/gif"),
    [MEDIA_FORMAT_WEBP] = LIT("image/webp"),
};

enum media_format media_format_sniff(struct slice head)
{
    if (slice_has_prefix(head, LIT("\x89PNG\r\n\x1a\n"))) {
        return MEDIA_FORMAT_PNG;
    }
    if (slice_has_prefix(head, LIT("\xFF\xD8\xFF"))) {
        return MEDIA_FORMAT_JPEG;
    }
    if (slice_has_prefix(head, LIT("GIF87a")) || slice_has_prefix(head, LIT("GIF89a"))) {
        return MEDIA_FORMAT_GIF;
    }
    bool is_webp = slice_has_prefix(head, LIT("RIFF")) &&
                   slice_has_prefix(slice_from(head, 8), LIT("WEBPVP8"));
    return is_webp ? MEDIA_FORMAT_WEBP : MEDIA_FORMAT_NONE;
}

struct slice media_format_type(enum media_format format)
{
    return types[format];
}

/* Copies what was packed into a record of fixed size, zeros behind it. */
static void fill_record(const struct buf *from, char *out, size_t size)
{
    struct slice packed = buf_slice(from);
    ASSERT(packed.len <= size);
    memset(out, 0, size);
    memcpy(out, packed.ptr, packed.len);
}

void media_job_encode(const struct media_job *job, char out[MEDIA_JOB_BYTES])
{
    struct buf packed;
    buf_init(&packed, MEDIA_JOB_BYTES);
    pack_u64(&packed, JOB_VERSION);
    pack_u64(&packed, job->kind);
    pack_u64(&packed, job->flags);
    pack_u64(&packed, job->width);
    pack_u64(&packed, job->height);
    pack_u64(&packed, job->pixels_max);
    pack_bytes(&packed, slice_sub(job->charset, 0, MEDIA_CHARSET_BYTES_MAX));
    fill_record(&packed, out, MEDIA_JOB_BYTES);
    buf_deinit(&packed);
}

struct err media_job_decode(struct slice record, struct media_job *job_out)
{
    struct unpack in = unpack_of(record);
    uint64_t version = unpack_u64(&in);
    uint64_t kind = unpack_u64(&in);
    uint64_t flags = unpack_u64(&in);
    uint64_t width = unpack_u64(&in);
    uint64_t height = unpack_u64(&in);
    *job_out = (struct media_job){.pixels_max = unpack_u64(&in)};
    job_out->charset = unpack_bytes(&in);
    bool has_size =
        width >= 1 && width <= MEDIA_EDGE_MAX && height >= 1 && height <= MEDIA_EDGE_MAX;
    if (in.bad || version != JOB_VERSION || kind < MEDIA_JOB_THUMBNAIL || kind > MEDIA_JOB_PAGE ||
        (flags & ~(uint64_t)FLAGS_ALL) || (kind == MEDIA_JOB_THUMBNAIL && !has_size) ||
        job_out->charset.len > MEDIA_CHARSET_BYTES_MAX) {
        return err_make(ERR_SYNTAX, "a job of another form");
    }
    job_out->kind = (enum media_job_kind)kind;
    job_out->flags = (uint32_t)flags;
    job_out->width = (uint32_t)width;
    job_out->height = (uint32_t)height;
    return OK;
}

void media_reply_encode(const struct media_reply *reply, char out[MEDIA_REPLY_BYTES])
{
    struct buf packed;
    buf_init(&packed, MEDIA_REPLY_BYTES);
    pack_u64(&packed, reply->result);
    pack_u64(&packed, reply->format);
    pack_u64(&packed, reply->width);
    pack_u64(&packed, reply->height);
    pack_u64(&packed, reply->bytes.len);
    fill_record(&packed, out, MEDIA_REPLY_BYTES);
    buf_deinit(&packed);
}

struct err media_reply_decode(struct slice record, struct media_reply *reply_out, size_t *bytes_out)
{
    struct unpack in = unpack_of(record);
    uint64_t result = unpack_u64(&in);
    uint64_t format = unpack_u64(&in);
    uint64_t width = unpack_u64(&in);
    uint64_t height = unpack_u64(&in);
    uint64_t bytes = unpack_u64(&in);
    bool has_bytes = result == MEDIA_RESULT_MADE;
    if (in.bad || result < MEDIA_RESULT_MADE || result > MEDIA_RESULT_TOO_LARGE ||
        format > MEDIA_FORMAT_WEBP || width > UINT32_MAX || height > UINT32_MAX ||
        bytes > (has_bytes ? MEDIA_REPLY_PAYLOAD_MAX : 0)) {
        return err_make(ERR_SYNTAX, "a helper's answer of another form");
    }
    *reply_out = (struct media_reply){.result = (enum media_result)result,
                                      .format = (enum media_format)format,
                                      .width = (uint32_t)width,
                                      .height = (uint32_t)height};
    *bytes_out = (size_t)bytes;
    return OK;
}
