#include "tools/myelin-conform/deeds.h"
#include "tools/myelin-conform/sugar.h"

static const struct deed_row rows[] = {
    {"creates %1", DEED_CREATE, "v"},
    {"creates %1 %2", DEED_CREATE, "vt"},
    {"joins %1 by %2", DEED_JOIN, "tt"},
    {"leaves %1 by %2", DEED_LEAVE, "tt"},
    {"knocks on %1 by %2", DEED_KNOCK, "tt"},
    {"invites %1 to %2 by %3", DEED_INVITE, "ttt"},
    {"knows %1 as %2", DEED_KNOW, "tt"},
    {"makes %1 %2 in %3", DEED_MAKE, "vtt"},
    {"makes %1 %2 in %3 aside", DEED_ASIDE, "vtt"},
    {"makes %1 %2 in %3 changed %4", DEED_CHANGED, "vttt"},
    {"makes %1 %2 in %3 signed by %4", DEED_FORGED, "vttw"},
    {"sends %1 in %2", DEED_SEND, "tt"},
    {"sends %1 in %2 as %3", DEED_SEND, "ttv"},
    {"says %1 in %2 by %3", DEED_SAY, "ttt"},
    {"says %1 in %2 by %3 as %4", DEED_SAY, "tttv"},
    {"answers %1 %2 %3", DEED_ANSWER, "www"},
    {"answers %1 %2 %3 ...", DEED_ANSWER, "wwwt"},
    {"receives %1 %2", DEED_RECEIVE, "ww"},
    {"verifies %1", DEED_VERIFY, "v"},
    {"verifies %1 in %2", DEED_VERIFY_PDU, "vt"},
};

struct deed_hit deeds_find(struct slice words)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct slice holes[SUGAR_HOLES] = {{0}};
        if (sugar_words_fit(slice_of(rows[i].words), words, holes)) {
            struct deed_hit hit = {.row = &rows[i]};
            for (size_t a = 0; a < DEED_ARGS_MAX; a++) {
                hit.args[a] = holes[a + 1];
            }
            return hit;
        }
    }
    return (struct deed_hit){0};
}
