/* What a played server does, in words: "remote makes $pdu {...} in $room". */
#pragma once
#include "tools/myelin-conform/play.h"

struct deed_row {
    const char *words; /* %1..%4 take an argument, `...` the rest as the fourth */
    enum deed deed;
    const char *types; /* of the arguments: v variable, w word, t term */
};

struct deed_hit {
    const struct deed_row *row;
    struct slice args[DEED_ARGS_MAX];
};

/* `row` NULL when the words behind the actor fit no row. */
struct deed_hit deeds_find(struct slice words);
