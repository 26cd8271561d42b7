/* Memberships as values. Spec: client-server, "Room membership". */
#pragma once
#include "homeserver/room/event.h"

enum membership {
    MEMBERSHIP_NONE, /* no member event; the rules treat it as leave */
    MEMBERSHIP_JOIN,
    MEMBERSHIP_INVITE,
    MEMBERSHIP_LEAVE,
    MEMBERSHIP_BAN,
    MEMBERSHIP_KNOCK,
    MEMBERSHIP_OTHER, /* a word this server does not know */
};

/* OTHER for unknown words, NONE for an empty slice. */
enum membership membership_parse(struct slice word);
/* The word as in the spec; empty for NONE and OTHER. */
struct slice membership_word(enum membership membership);
/* Of an m.room.member event; NONE for NULL. */
enum membership membership_of(const struct event *member);
