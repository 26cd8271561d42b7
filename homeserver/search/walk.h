/* What the index catches up with step by step, on the thread of its consumer: all history when the
 * file is new, and notes of what changed beside the stream. */
#pragma once
#include "homeserver/search/feed.h"
#include "homeserver/service/news.h"

struct search_walk;

/* Keeps the pointer. */
struct search_walk *search_walk_new(const struct search_feed *feed);
void search_walk_free(struct search_walk **walk);

/* Notes, from any thread. When too many wait, the walk begins anew. */
void search_walk_note_history(struct search_walk *walk, const struct history_note *note);
void search_walk_note_room(struct search_walk *walk, uint64_t room);
void search_walk_note_purged(struct search_walk *walk, uint64_t room);
void search_walk_note_account(struct search_walk *walk, uint64_t user);
/* Everything again, from the first account and room; `wipe`: from an empty index. */
enum search_again { SEARCH_AGAIN_OVER, SEARCH_AGAIN_EMPTY };
void search_walk_again(struct search_walk *walk, enum search_again again);

/* Accounts and members alone, beside the other walk: something about them may have been missed. */
void search_walk_people(struct search_walk *walk);

/* Does some of it; more_out: there is more to do. */
struct err search_walk_step(struct search_walk *walk, struct ctx *ctx, bool *more_out) MUST_USE;
/* Whether notes were taken up whose rows are still there. */
bool search_walk_has_taken(const struct search_walk *walk);
/* What was taken up is in the file: those rows go. */
struct err search_walk_flushed(struct search_walk *walk, struct ctx *ctx) MUST_USE;
/* Rooms of the walk through all history, and how many are done; false: it is done. Any thread. */
bool search_walk_progress(struct search_walk *walk, uint64_t *rooms_out, uint64_t *done_out);
