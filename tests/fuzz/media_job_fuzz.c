/* Records between the server and its helper: what is read stays within the bounds, and is read the
 * same when it is written again. */
#include "homeserver/media/media_job.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice record = {(const char *)data, size};
    char again[MEDIA_JOB_BYTES];
    struct media_job job;
    struct media_job second;
    struct media_reply reply;
    size_t bytes = 0;
    if (media_job_decode(record, &job).code == 0) {
        media_job_encode(&job, again);
        ASSERT(media_job_decode((struct slice){again, sizeof again}, &second).code == 0);
        ASSERT(second.width == job.width && second.pixels_max == job.pixels_max);
        ASSERT(slice_eq(second.charset, job.charset));
    }
    if (media_reply_decode(record, &reply, &bytes).code == 0) {
        ASSERT(bytes <= MEDIA_REPLY_PAYLOAD_MAX);
        ASSERT(bytes == 0 || reply.result == MEDIA_RESULT_MADE);
    }
    media_format_sniff(record);
    return 0;
}
