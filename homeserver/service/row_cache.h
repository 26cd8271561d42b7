/* Event rows in memory, as the store has them and as they are used: what many readers want at about
 * the same time - the newest events of a room, its state - is read from the store once, scanned
 * once and put into the client format once. Bounded by bytes; the row that came first goes first.
 * A reader that misses takes the version, reads the store, and offers the row with that version: a
 * row that a writer has replaced meanwhile is not taken in. A writer drops a row after writing and
 * before anybody can hear of the change.
 * Who holds a row keeps its memory, also when it is dropped from the cache meanwhile.
 * Thread safe; the locks are leaves. */
#pragma once
#include "homeserver/base/ctx.h"
#include "homeserver/service/rooms.h"

struct row_cache;
struct cached_row;
struct event_facts; /* service/event_facts.h */

struct row_cache *row_cache_new(size_t bytes_max);
void row_cache_free(struct row_cache **cache);
/* The row, held until row_cache_release; NULL when it is not here (which says nothing of the
 * store). */
struct cached_row *row_cache_hold(struct row_cache *cache, uint64_t room, int64_t number);
void row_cache_release(struct cached_row *row);
/* Gives it back when the job ends. */
void row_cache_release_later(struct ctx *ctx, struct cached_row *row);
uint64_t row_cache_version(struct row_cache *cache);
/* Takes a row in that was read after `version` was taken, unless any row was dropped since. */
void row_cache_offer(struct row_cache *cache, uint64_t room, int64_t number, struct slice row,
                     uint64_t version);
void row_cache_drop(struct row_cache *cache, uint64_t room, int64_t number);
void row_cache_drop_room(struct row_cache *cache, uint64_t room);
/* What counts for the bound. */
size_t row_cache_bytes(struct row_cache *cache);

/* --- a held row --- */
int64_t cached_row_number(const struct cached_row *row);
struct slice cached_row_bytes(const struct cached_row *row);
/* The event of the row, scanned, with its client form; NULL as long as nobody has given it. */
const struct stored_event *cached_row_event(const struct cached_row *row);
/* Gives the event that was scanned from the row's bytes: it is copied. The first one stays. */
const struct stored_event *cached_row_give_event(struct row_cache *cache, struct cached_row *row,
                                                 struct arena *arena,
                                                 const struct stored_event *event);
/* The same with what counting wants to know of the event; `facts` is taken. */
const struct event_facts *cached_row_facts(const struct cached_row *row);
const struct event_facts *cached_row_give_facts(struct row_cache *cache, struct cached_row *row,
                                                struct event_facts *facts, size_t bytes);
