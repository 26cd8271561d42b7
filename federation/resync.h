/* Fetching the whole state of one partial room from those in it. */
#pragma once
#include "federation/fed.h"

struct resync {
    struct fed *fed;
    struct ctx *ctx; /* may wait */
    uint64_t number;
    struct slice first;   /* server to ask first; may be empty */
    struct slice room_id; /* filled */
    struct room *room;    /* filled */
};
/* OK also when nobody of this server is in the room any more: then there is nothing to do. */
struct err resync_run(struct resync *resync) MUST_USE;
