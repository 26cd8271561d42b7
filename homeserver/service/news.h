/* What changes without a place in the stream of changes, told to whoever keeps an index of it
 * (search). Called on the thread of the change after it was written; the receiver only takes a
 * note. Does nothing while nobody listens (hs->news). */
#pragma once
#include "homeserver/service/hs.h"

struct hs_news {
    void *arg;
    /* Events of the past were placed in a room, all numbers in [first, last]. */
    void (*history)(void *arg, uint64_t room, int64_t first, int64_t last);
    void (*purged)(void *arg, uint64_t room);
    /* An account of this server was made or ended, or its profile changed. */
    void (*account)(void *arg, uint64_t user);
};

void hs_news_history(struct hs *hs, uint64_t room, int64_t first, int64_t last);
void hs_news_purged(struct hs *hs, uint64_t room);
void hs_news_account(struct hs *hs, uint64_t user);
