#include "homeserver/service/news.h"

void hs_news_history(struct hs *hs, uint64_t room, int64_t first, int64_t last)
{
    if (hs->news) {
        hs->news->history(hs->news->arg, room, first, last);
    }
}

void hs_news_purged(struct hs *hs, uint64_t room)
{
    if (hs->news) {
        hs->news->purged(hs->news->arg, room);
    }
}

void hs_news_account(struct hs *hs, uint64_t user)
{
    if (hs->news) {
        hs->news->account(hs->news->arg, user);
    }
}
