#include "homeserver/room/visibility.h"

static const struct slice words[] = {
    [HISTORY_SHARED] = LIT("shared"),
    [HISTORY_WORLD_READABLE] = LIT("world_readable"),
    [HISTORY_INVITED] = LIT("invited"),
    [HISTORY_JOINED] = LIT("joined"),
};

enum history_visibility visibility_parse(struct slice word)
{
    for (enum history_visibility v = HISTORY_SHARED; v <= HISTORY_JOINED; v++) {
        if (slice_eq(word, words[v])) {
            return v;
        }
    }
    return HISTORY_SHARED;
}

enum history_visibility visibility_of(const struct event *event)
{
    if (!event) {
        return HISTORY_SHARED;
    }
    return visibility_parse(json_get_string(event->content, LIT("history_visibility")));
}

static bool allows(enum history_visibility visibility, enum membership membership,
                   bool joined_later)
{
    if (membership == MEMBERSHIP_JOIN) {
        return true; /* rule 2 */
    }
    switch (visibility) {
    case HISTORY_WORLD_READABLE:
        return true; /* rule 1 */
    case HISTORY_SHARED:
        return joined_later; /* rule 3 */
    case HISTORY_INVITED:
        return membership == MEMBERSHIP_INVITE; /* rule 4 */
    case HISTORY_JOINED:
        return false; /* rule 5 */
    }
    return false;
}

bool visibility_allows_user(const struct visibility_input *input)
{
    const enum history_visibility visibilities[] = {input->visibility_before,
                                                    input->visibility_after};
    const enum membership memberships[] = {input->membership_before, input->membership_after};
    for (size_t i = 0; i < 4; i++) {
        if (allows(visibilities[i / 2], memberships[i % 2], input->joined_later)) {
            return true;
        }
    }
    return false;
}
