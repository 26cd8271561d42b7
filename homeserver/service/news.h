/* What changes without a place in the stream of changes, told to whoever keeps an index of it
 * (search). Called on the thread of the change after it was written; the receiver only takes a
 * note. Does nothing while nobody listens (hs->news). */
#pragma once
#include "homeserver/service/hs.h"

/* Events of the past that were placed in a room, all numbers in [first, last]. They have no place
 * in the stream, so a row (STORE_SERVER, "history_news") keeps each note over a crash, from before
 * the first of them is written until the receiver has done with it. */
struct history_note {
    uint64_t room;
    int64_t first, last;
    int64_t stamp; /* tells it from another note of the same place */
};
struct history_notes {
    struct history_note *items;
    size_t count;
};

struct hs_news {
    void *arg;
    void (*history)(void *arg, const struct history_note *note);
    void (*purged)(void *arg, uint64_t room);
    /* An account of this server was made or ended, or its profile changed. */
    void (*account)(void *arg, uint64_t user);
};

/* Before events are placed: writes the note's row, and stamps the note. */
struct err hs_news_history_begin(struct hs *hs, struct ctx *ctx,
                                 struct history_note *note) MUST_USE;
/* After they were. */
void hs_news_history(struct hs *hs, const struct history_note *note);
/* Those that nobody has done with: at start, for the receiver. */
struct err hs_news_history_left(struct hs *hs, struct ctx *ctx,
                                struct history_notes *notes_out) MUST_USE;
/* The receiver has done with these for good. */
struct err hs_news_history_done(struct hs *hs, struct ctx *ctx,
                                const struct history_notes *notes) MUST_USE;
void hs_news_purged(struct hs *hs, uint64_t room);
void hs_news_account(struct hs *hs, uint64_t user);
