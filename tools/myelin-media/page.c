#include "tools/myelin-media/helper.h"

void page_init(void)
{
}

void page_run(struct arena *arena, const struct media_job *job, struct slice input,
              struct media_reply *reply_out)
{
    (void)arena;
    (void)job;
    (void)input;
    *reply_out = (struct media_reply){.result = MEDIA_RESULT_NONE};
}
