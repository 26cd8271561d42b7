#include "homeserver/search/walk.h"

#include "homeserver/base/mem.h"
#include "homeserver/search/people.h"
#include "homeserver/service/users.h"

#include <pthread.h>

enum { NOTES_MAX = 10000, EVENTS_PER_STEP = 1000, USERS_PER_STEP = 500, DONE = -1 };

struct note {
    enum { NOTE_HISTORY, NOTE_ROOM, NOTE_PURGED, NOTE_ACCOUNT } kind;
    uint64_t number; /* of the room or user */
    struct history_note history;
};

struct search_walk {
    const struct search_feed *feed;
    pthread_mutex_t lock; /* of the notes and the progress; a leaf */
    struct note notes[NOTES_MAX];
    size_t note_count;
    bool again, wipes;
    bool people_again;
    bool is_walking;
    uint64_t rooms, done;

    /* the consumer's */
    bool is_loaded;
    bool is_tidied; /* rooms that were purged while this program did not run are out */
    int64_t room;   /* at hand; 0 = accounts, DONE = the walk is over */
    int64_t upto;   /* number of the event (or of the user) up to which it is done */
    bool has_begun_room;
    struct history_note
        *taken_owned; /* since the last flush, and not all of it may be in the file */
    size_t taken_count, taken_max;
    enum { PEOPLE_DONE, PEOPLE_ACCOUNTS, PEOPLE_ROOMS } people;
    int64_t people_upto; /* number of the user or room */
};

struct search_walk *search_walk_new(const struct search_feed *feed)
{
    struct search_walk *walk = mem_alloc(sizeof *walk);
    walk->feed = feed;
    pthread_mutex_init(&walk->lock, NULL);
    return walk;
}

void search_walk_free(struct search_walk **walk)
{
    if (*walk) {
        pthread_mutex_destroy(&(*walk)->lock);
        mem_free((*walk)->taken_owned);
        mem_free(*walk);
        *walk = NULL;
    }
}

/* --- notes --- */

static void add_note(struct search_walk *walk, const struct note *note)
{
    pthread_mutex_lock(&walk->lock);
    if (walk->note_count < NOTES_MAX) {
        walk->notes[walk->note_count++] = *note;
    } else {
        walk->again = true;
    }
    pthread_mutex_unlock(&walk->lock);
}

void search_walk_note_history(struct search_walk *walk, const struct history_note *note)
{
    add_note(walk, &(struct note){NOTE_HISTORY, note->room, *note});
}

void search_walk_note_room(struct search_walk *walk, uint64_t room)
{
    add_note(walk, &(struct note){.kind = NOTE_ROOM, .number = room});
}

void search_walk_note_purged(struct search_walk *walk, uint64_t room)
{
    add_note(walk, &(struct note){.kind = NOTE_PURGED, .number = room});
}

void search_walk_note_account(struct search_walk *walk, uint64_t user)
{
    add_note(walk, &(struct note){.kind = NOTE_ACCOUNT, .number = user});
}

void search_walk_again(struct search_walk *walk, enum search_again again)
{
    pthread_mutex_lock(&walk->lock);
    walk->again = true;
    walk->wipes = walk->wipes || again == SEARCH_AGAIN_EMPTY;
    pthread_mutex_unlock(&walk->lock);
}

void search_walk_people(struct search_walk *walk)
{
    pthread_mutex_lock(&walk->lock);
    walk->people_again = true;
    pthread_mutex_unlock(&walk->lock);
}

bool search_walk_progress(struct search_walk *walk, uint64_t *rooms_out, uint64_t *done_out)
{
    pthread_mutex_lock(&walk->lock);
    bool is_walking = walk->is_walking || walk->again;
    *rooms_out = walk->rooms;
    *done_out = walk->done;
    pthread_mutex_unlock(&walk->lock);
    return is_walking;
}

/* --- one room --- */

struct span {
    int64_t first, last;
    enum search_edits edits;
};

/* Events with first <= number <= last, some of them; `*done_out` is the last one taken, or `last`.
 */
static struct err take_events(struct search_walk *walk, struct ctx *ctx, struct room *room,
                              const struct span *span, int64_t *done_out)
{
    struct stored_events events;
    struct event_range range = {.from = span->first - 1,
                                .to = span->last + 1,
                                .limit = EVENTS_PER_STEP,
                                .order = EVENTS_FORWARD,
                                .form = EVENTS_SCANNED};
    TRY(hs_events_read(walk->feed->hs, ctx, room, range, &events));
    for (size_t i = 0; i < events.count; i++) {
        TRY(search_feed_text(walk->feed, ctx, room, &events.items[i], span->edits));
    }
    *done_out =
        events.count == EVENTS_PER_STEP ? events.items[events.count - 1].number : span->last;
    return OK;
}

/* found_out false: the room is gone, or cannot be loaded. */
static struct err get_room(struct search_walk *walk, struct ctx *ctx, uint64_t number,
                           struct room **room_out, bool *found_out)
{
    struct err err = hs_room_get(walk->feed->hs, ctx, number, room_out);
    *found_out = err.code == 0;
    return err.code == ERR_M_NOT_FOUND || err.code == ERR_CORRUPT ? OK : err;
}

/* --- taking notes up --- */

static void keep_taken(struct search_walk *walk, const struct history_note *note)
{
    if (walk->taken_count == walk->taken_max) {
        walk->taken_max = walk->taken_max ? walk->taken_max * 2 : 16;
        walk->taken_owned =
            mem_grow(walk->taken_owned, walk->taken_max * sizeof *walk->taken_owned);
    }
    walk->taken_owned[walk->taken_count++] = *note;
}

static struct err take_history(struct search_walk *walk, struct ctx *ctx,
                               const struct history_note *note)
{
    struct span left = {note->first, note->last, SEARCH_WITH_EDITS};
    struct room *room = NULL;
    bool takes = false;
    TRY(get_room(walk, ctx, note->room, &room, &takes));
    if (takes) {
        TRY(search_feed_takes_room(walk->feed, ctx, room, &takes));
    }
    while (takes && left.first <= left.last) {
        int64_t done = 0;
        TRY(take_events(walk, ctx, room, &left, &done));
        left.first = done + 1;
    }
    keep_taken(walk, note);
    return OK;
}

static struct err take_room(struct search_walk *walk, struct ctx *ctx, uint64_t number)
{
    struct room *room = NULL;
    bool found = false;
    bool takes = false;
    TRY(get_room(walk, ctx, number, &room, &found));
    if (!found) {
        return OK;
    }
    TRY(search_feed_takes_room(walk->feed, ctx, room, &takes));
    if (!takes) {
        TRY(search_index_drop_room(walk->feed->index, number));
    }
    return search_feed_room(walk->feed, ctx, room);
}

static struct err drop_room(struct search_walk *walk, uint64_t number)
{
    TRY(search_index_drop_room(walk->feed->index, number));
    return search_rooms_set_open(walk->feed->index, number, false);
}

/* Of a room that cannot be read nothing is looked for; it must not hold the others up. */
static bool is_passed_over(const struct search_walk *walk, struct err err)
{
    return err.code == ERR_M_NOT_FOUND ||
           (err.code == ERR_CORRUPT && !search_db_is_damaged(search_index_db(walk->feed->index)));
}

static struct err take_note(struct search_walk *walk, struct ctx *ctx, const struct note *note)
{
    switch (note->kind) {
    case NOTE_HISTORY:
        return take_history(walk, ctx, &note->history);
    case NOTE_ROOM:
        return take_room(walk, ctx, note->number);
    case NOTE_PURGED:
        return drop_room(walk, note->number);
    case NOTE_ACCOUNT:
        return search_feed_account(walk->feed, ctx, note->number);
    }
    return OK;
}

/* Those that were there when it began; one that failed stays the first. */
static struct err take_notes(struct search_walk *walk, struct ctx *ctx)
{
    size_t done = 0;
    struct err err = OK;
    pthread_mutex_lock(&walk->lock);
    size_t count = walk->note_count;
    for (; done < count && err.code == 0; done++) {
        struct note note = walk->notes[done];
        pthread_mutex_unlock(&walk->lock);
        err = take_note(walk, ctx, &note);
        err = is_passed_over(walk, err) ? OK : err;
        pthread_mutex_lock(&walk->lock);
    }
    done -= err.code && done ? 1 : 0;
    for (size_t i = done; i < walk->note_count; i++) {
        walk->notes[i - done] = walk->notes[i];
    }
    walk->note_count -= done;
    pthread_mutex_unlock(&walk->lock);
    return err;
}

/* --- all history --- */

static const struct store_object room_numbers = {STORE_ROOM_IDS, {"numbers", 7}};

static struct err save(struct search_walk *walk)
{
    struct search_index *index = walk->feed->index;
    TRY(search_index_set_mark(index, SEARCH_MARK_TEXTS, walk->feed->takes_texts));
    TRY(search_index_set_mark(index, SEARCH_MARK_SWEPT_ROOM, walk->room));
    return search_index_set_mark(index, SEARCH_MARK_SWEPT_TO, walk->upto);
}

/* The first room at or above this number; 0 = none. */
static struct err next_room(struct search_walk *walk, struct ctx *ctx, uint64_t from,
                            uint64_t *room_out)
{
    struct store_rows rows;
    struct store_range range = {.from = store_id_u64(ctx->arena, from), .limit = 1};
    TRY(store_read_range(walk->feed->hs->store, ctx, room_numbers, range, &rows));
    struct unpack key = unpack_of(rows.count ? rows.rows[0].key : LIT(""));
    *room_out = rows.count ? unpack_be64(&key) : 0;
    return OK;
}

static struct err go_to_room(struct search_walk *walk, struct ctx *ctx, uint64_t from)
{
    uint64_t room = 0;
    TRY(next_room(walk, ctx, from, &room));
    walk->room = room ? (int64_t)room : DONE;
    walk->upto = INT64_MIN + 2;
    walk->has_begun_room = false;
    if (walk->room == DONE) {
        log_info(walk->feed->hs->log, "search_index_whole");
    }
    return save(walk);
}

/* Some accounts above a number; more_out: there are others. */
static struct err take_accounts(struct search_walk *walk, struct ctx *ctx, int64_t *upto,
                                bool *more_out)
{
    struct user_page page;
    TRY(hs_users_page(walk->feed->hs, ctx, (uint64_t)*upto + 1, USERS_PER_STEP, &page));
    for (size_t i = 0; i < page.count; i++) {
        if (page.items[i].is_local) {
            TRY(search_feed_account(walk->feed, ctx, page.items[i].number));
        }
        *upto = (int64_t)page.items[i].number;
    }
    *more_out = page.next != 0;
    return OK;
}

static struct err walk_accounts(struct search_walk *walk, struct ctx *ctx)
{
    bool more = false;
    TRY(take_accounts(walk, ctx, &walk->upto, &more));
    return more ? save(walk) : go_to_room(walk, ctx, 1);
}

static struct err walk_room(struct search_walk *walk, struct ctx *ctx)
{
    struct room *room = NULL;
    uint64_t number = (uint64_t)walk->room;
    bool found = false;
    bool takes = false;
    TRY(get_room(walk, ctx, number, &room, &found));
    if (!found) {
        return go_to_room(walk, ctx, number + 1);
    }
    if (!walk->has_begun_room) {
        TRY(search_feed_room(walk->feed, ctx, room));
        walk->has_begun_room = true;
    }
    TRY(search_feed_takes_room(walk->feed, ctx, room, &takes));
    int64_t last = hs_room_head(room).number;
    if (takes && walk->upto < last) {
        const struct span part = {walk->upto + 1, last, SEARCH_WITHOUT_EDITS};
        TRY(take_events(walk, ctx, room, &part, &walk->upto));
        if (walk->upto < last) {
            return save(walk);
        }
    }
    return go_to_room(walk, ctx, number + 1);
}

/* --- people again --- */

static struct err walk_members(struct search_walk *walk, struct ctx *ctx)
{
    uint64_t room = 0;
    TRY(next_room(walk, ctx, (uint64_t)walk->people_upto + 1, &room));
    if (room == 0) {
        walk->people = PEOPLE_DONE;
        return OK;
    }
    struct err err = take_room(walk, ctx, room);
    TRY(is_passed_over(walk, err) ? OK : err);
    walk->people_upto = (int64_t)room;
    return OK;
}

static struct err walk_people(struct search_walk *walk, struct ctx *ctx)
{
    bool more = false;
    pthread_mutex_lock(&walk->lock);
    if (walk->people_again) {
        walk->people_again = false;
        walk->people = PEOPLE_ACCOUNTS;
        walk->people_upto = 0;
    }
    pthread_mutex_unlock(&walk->lock);
    switch (walk->people) {
    case PEOPLE_DONE:
        return OK;
    case PEOPLE_ACCOUNTS:
        TRY(take_accounts(walk, ctx, &walk->people_upto, &more));
        if (!more) {
            walk->people = PEOPLE_ROOMS;
            walk->people_upto = 0;
        }
        return OK;
    case PEOPLE_ROOMS:
        return walk_members(walk, ctx);
    }
    return OK;
}

/* --- steps --- */

static struct err begin_again(struct search_walk *walk)
{
    pthread_mutex_lock(&walk->lock);
    bool again = walk->again;
    bool wipes = walk->wipes;
    pthread_mutex_unlock(&walk->lock);
    if (!again) {
        return OK;
    }
    if (wipes) {
        TRY(search_index_wipe(walk->feed->index));
    }
    walk->room = 0;
    walk->upto = 0;
    TRY(save(walk));
    pthread_mutex_lock(&walk->lock);
    walk->again = walk->wipes = false;
    pthread_mutex_unlock(&walk->lock);
    log_info(walk->feed->hs->log, "search_index_begun");
    return OK;
}

static struct err load(struct search_walk *walk)
{
    if (!walk->is_loaded) {
        TRY(search_index_get_mark(walk->feed->index, SEARCH_MARK_SWEPT_ROOM, &walk->room));
        TRY(search_index_get_mark(walk->feed->index, SEARCH_MARK_SWEPT_TO, &walk->upto));
        walk->is_loaded = true;
    }
    return OK;
}

/* Rows of rooms that are no longer there go. */
static struct err tidy(struct search_walk *walk, struct ctx *ctx)
{
    uint64_t room = 0;
    bool more = !walk->is_tidied;
    if (more) {
        TRY(search_index_next_room(walk->feed->index, 0, &room, &more));
    }
    while (more) {
        uint64_t there = 0;
        TRY(next_room(walk, ctx, room, &there));
        if (there != room) {
            TRY(drop_room(walk, room));
        }
        TRY(search_index_next_room(walk->feed->index, room, &room, &more));
    }
    walk->is_tidied = true;
    return OK;
}

/* Counts the rooms now and then, for who looks at the progress. */
static struct err count_rooms(struct search_walk *walk, struct ctx *ctx)
{
    struct store_rows rows;
    struct store_range last = {.limit = 1, .order = STORE_REVERSE};
    TRY(store_read_range(walk->feed->hs->store, ctx, room_numbers, last, &rows));
    struct unpack key = unpack_of(rows.count ? rows.rows[0].key : LIT(""));
    pthread_mutex_lock(&walk->lock);
    walk->is_walking = walk->room != DONE;
    walk->rooms = rows.count ? unpack_be64(&key) : 0;
    walk->done = walk->room == DONE ? walk->rooms : walk->room > 0 ? (uint64_t)walk->room - 1 : 0;
    pthread_mutex_unlock(&walk->lock);
    return OK;
}

struct err search_walk_step(struct search_walk *walk, struct ctx *ctx, bool *more_out)
{
    *more_out = true;
    TRY(begin_again(walk));
    TRY(load(walk));
    TRY(tidy(walk, ctx));
    TRY(take_notes(walk, ctx));
    TRY(walk_people(walk, ctx));
    if (walk->room == 0) {
        TRY(walk_accounts(walk, ctx));
    } else if (walk->room != DONE) {
        struct err err = walk_room(walk, ctx);
        if (is_passed_over(walk, err)) {
            log_warn(walk->feed->hs->log, "search_room_unreadable", .err = slice_of(err.text));
            err = go_to_room(walk, ctx, (uint64_t)walk->room + 1);
        }
        TRY(err);
    }
    *more_out = walk->room != DONE || walk->people != PEOPLE_DONE;
    return *more_out || walk->is_walking ? count_rooms(walk, ctx) : OK;
}

bool search_walk_has_taken(const struct search_walk *walk)
{
    return walk->taken_count > 0;
}

struct err search_walk_flushed(struct search_walk *walk, struct ctx *ctx)
{
    const struct history_notes taken = {walk->taken_owned, walk->taken_count};
    TRY(hs_news_history_done(walk->feed->hs, ctx, &taken));
    walk->taken_count = 0;
    return OK;
}
