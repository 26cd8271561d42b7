#include "homeserver/room/membership.h"

static const struct slice words[] = {
    [MEMBERSHIP_NONE] = {0},
    [MEMBERSHIP_JOIN] = LIT("join"),
    [MEMBERSHIP_INVITE] = LIT("invite"),
    [MEMBERSHIP_LEAVE] = LIT("leave"),
    [MEMBERSHIP_BAN] = LIT("ban"),
    [MEMBERSHIP_KNOCK] = LIT("knock"),
    [MEMBERSHIP_OTHER] = {0},
};

enum membership membership_parse(struct slice word)
{
    if (!word.len) {
        return MEMBERSHIP_NONE;
    }
    for (enum membership m = MEMBERSHIP_JOIN; m <= MEMBERSHIP_KNOCK; m++) {
        if (slice_eq(word, words[m])) {
            return m;
        }
    }
    return MEMBERSHIP_OTHER;
}

struct slice membership_word(enum membership membership)
{
    return words[membership];
}

enum membership membership_of(const struct event *member)
{
    if (!member) {
        return MEMBERSHIP_NONE;
    }
    return membership_parse(json_get_string(member->content, LIT("membership")));
}
