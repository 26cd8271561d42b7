/* The page that says which sentences of the specification the plays check. */
#pragma once
#include "tools/myelin-conform/play.h"

/* Markdown: totals, then per play its scenes with the sentences, then the endpoints asked. */
void coverage_write(struct buf *out, struct arena *arena, const struct play *plays,
                    size_t play_count);
