#include "homeserver/search/search.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/search/walk.h"
#include "homeserver/service/news.h"
#include "homeserver/service/tail.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

enum {
    READERS_MAX = 4,
    WAITING_MAX = 8,
    LINGER_MS = 200,
    LOG_EVERY_MS = 30000,
    FLUSH_EVERY_MS = 500,
    QUIET_MS = 2000,
    CATCH_UP_S = 2
};
static const char tail_name[] = "search";

/* A connection to the file as it was opened the n-th time. */
struct reader {
    struct search_db *db;
    uint64_t opened;
};

struct search {
    struct hs *hs;
    struct arena *arena;
    struct slice path;
    struct search_feed feed;
    struct search_walk *walk;
    struct hs_news news;
    struct hs_tail *tail;
    int64_t logged_ms, flushed_ms; /* monotonic */
    bool is_warm;                  /* pages of the file are at hand since the last flush */
    pthread_mutex_t lock;          /* of what follows; a leaf */
    pthread_cond_t given_back;
    /* Readers who want what was published before they asked: how many asked, how many of those the
     * consumer knew of when it last rested, and up to whom everything was flushed since. A turn
     * that was under way when one asked may lack changes, so it takes two. */
    uint64_t asked, heard, served;
    pthread_cond_t has_served;
    struct reader readers[READERS_MAX];
    size_t reader_count; /* not in use */
    size_t readers_out;
    size_t waiting;          /* for a reader */
    size_t trailing;         /* for the consumer */
    _Atomic uint64_t opened; /* how often the file was opened */
};

/* --- readers --- */

static void give_back(void *owner, void *thing)
{
    struct search *search = owner;
    struct reader *reader = thing;
    pthread_mutex_lock(&search->lock);
    if (reader->opened == search->opened && !search_db_is_damaged(reader->db)) {
        search->readers[search->reader_count++] = *reader;
    } else {
        search_db_close(&reader->db);
    }
    search->readers_out--;
    pthread_cond_signal(&search->given_back);
    pthread_mutex_unlock(&search->lock);
}

/* One of those that are not in use; db NULL: another may be opened. Those who wait for one hold a
 * thread each, so there may be few. */
static struct err take_reader(struct search *search, struct reader *reader)
{
    workers_pause();
    pthread_mutex_lock(&search->lock);
    bool is_refused = search->readers_out == READERS_MAX && search->waiting == WAITING_MAX;
    search->waiting++;
    while (!is_refused && search->readers_out == READERS_MAX) {
        pthread_cond_wait(&search->given_back, &search->lock);
    }
    search->waiting--;
    search->readers_out += is_refused ? 0 : 1;
    while (!is_refused && search->reader_count > 0 && !reader->db) {
        *reader = search->readers[--search->reader_count];
        if (reader->opened != search->opened) {
            search_db_close(&reader->db);
        }
    }
    reader->opened = search->opened;
    pthread_mutex_unlock(&search->lock);
    workers_resume();
    return is_refused ? err_make(ERR_UNAVAILABLE, "too many searches at once") : OK;
}

struct err search_reader(struct search *search, struct ctx *ctx, struct search_db **db_out)
{
    struct reader *reader = arena_alloc(ctx->arena, sizeof *reader);
    TRY(take_reader(search, reader));
    if (!reader->db) {
        struct err err = search_db_open(search->path, SEARCH_DB_READS, &reader->db);
        if (err.code != 0) {
            pthread_mutex_lock(&search->lock);
            search->readers_out--;
            pthread_cond_signal(&search->given_back);
            pthread_mutex_unlock(&search->lock);
            return err;
        }
    }
    ctx_defer(ctx, give_back, search, reader);
    *db_out = reader->db;
    return OK;
}

/* --- notes --- */

static void on_history(void *arg, const struct history_note *note)
{
    struct search *search = arg;
    search_walk_note_history(search->walk, note);
    hs_tail_poke(search->tail);
}

static void on_purged(void *arg, uint64_t room)
{
    struct search *search = arg;
    search_walk_note_purged(search->walk, room);
    hs_tail_poke(search->tail);
}

static void on_account(void *arg, uint64_t user)
{
    struct search *search = arg;
    search_walk_note_account(search->walk, user);
    hs_tail_poke(search->tail);
}

/* --- the consumer --- */

static struct err handle_event(struct search *search, struct ctx *ctx, const struct change *change)
{
    struct room *room = NULL;
    struct stored_event event;
    bool found = false;
    bool room_changed = false;
    TRY(hs_room_get(search->hs, ctx, change->room, &room));
    TRY(hs_event_scan_once(search->hs, ctx, room, change->number, &event, &found));
    if (!found || (event.flags & EVENT_HIDDEN)) {
        return OK;
    }
    TRY(search_feed_event(&search->feed, ctx, room, &event, &room_changed));
    if (room_changed) {
        search_walk_note_room(search->walk, change->room);
    }
    return OK;
}

static struct err handle(void *arg, struct ctx *ctx, const struct change *change)
{
    struct search *search = arg;
    if (change->kind == CHANGE_EVENT) {
        return handle_event(search, ctx, change);
    }
    search_walk_note_room(search->walk, change->room);
    return OK;
}

/* After a crash, or when the consumer fell behind: changes of members and accounts may be missing.
 */
static struct err on_lost(void *arg, struct ctx *ctx)
{
    struct search *search = arg;
    (void)ctx;
    search_walk_people(search->walk);
    return OK;
}

/* Another file in the place of the damaged one. */
static struct err open_again(struct search *search)
{
    struct search_index *index = NULL;
    bool is_new = false;
    log_error(search->hs->log, "search_index_damaged", .note = search->path);
    search_index_set_aside(search->path);
    TRY(search_index_open(search->path, search->hs->log, &index, &is_new));
    search_index_close(&search->feed.index);
    search->feed.index = index;
    search->opened++;
    search_walk_again(search->walk, SEARCH_AGAIN_EMPTY);
    return OK;
}

static struct err flush(void *arg, struct ctx *ctx)
{
    struct search *search = arg;
    if (search_db_is_damaged(search_index_db(search->feed.index))) {
        return open_again(search);
    }
    int64_t position = (int64_t)hs_tail_position(search->tail);
    search->flushed_ms = now_mono_ms(search->hs->now);
    search->is_warm = true;
    struct err err = search_index_set_mark(search->feed.index, SEARCH_MARK_POSITION, position);
    struct err flushed = search_index_flush(search->feed.index);
    err = err.code ? err : flushed;
    if (err.code != 0) { /* what was handled since the last flush is not there */
        search_walk_again(search->walk, SEARCH_AGAIN_OVER);
        return err;
    }
    return search_walk_flushed(search->walk, ctx);
}

static void tell(struct search *search)
{
    struct search_progress progress;
    int64_t now = now_mono_ms(search->hs->now);
    search_get_progress(search, &progress);
    stats_gauge_set(search->hs->stats, STAT_search_rooms_waiting,
                    (int64_t)(progress.rooms - progress.rooms_done));
    stats_gauge_set(search->hs->stats, STAT_search_file_bytes, progress.bytes);
    if (progress.is_walking && now - search->logged_ms >= LOG_EVERY_MS) {
        char note[64];
        snprintf(note, sizeof note, "%llu of %llu rooms", (unsigned long long)progress.rooms_done,
                 (unsigned long long)progress.rooms);
        log_info(search->hs->log, "search_indexing", .note = slice_of(note),
                 .bytes = progress.bytes);
        search->logged_ms = now;
    }
}

/* Whether somebody waits; ready_out: those who are served when what is there now is flushed. */
static bool hear(struct search *search, uint64_t *ready_out)
{
    pthread_mutex_lock(&search->lock);
    bool is_waited_for = search->asked > search->served;
    *ready_out = search->heard;
    search->heard = search->asked;
    pthread_mutex_unlock(&search->lock);
    return is_waited_for;
}

/* Whether others still wait. Also after a failure: they get what there is. */
static bool serve(struct search *search, uint64_t ready)
{
    pthread_mutex_lock(&search->lock);
    search->served = ready;
    bool is_waited_for = search->asked > search->served;
    pthread_cond_broadcast(&search->has_served);
    pthread_mutex_unlock(&search->lock);
    return is_waited_for;
}

/* When nothing was written for a while, the pages at hand go back. When to look again (wall; 0 = no
 * need). */
static int64_t cool_down(struct search *search, const struct ctx *ctx)
{
    if (!search->is_warm) {
        return 0;
    }
    if (now_mono_ms(ctx->now) - search->flushed_ms < QUIET_MS) {
        return now_wall_ms(ctx->now) + QUIET_MS;
    }
    search_db_release(search_index_db(search->feed.index));
    pthread_mutex_lock(&search->lock);
    for (size_t i = 0; i < search->reader_count; i++) {
        search_db_release(search->readers[i].db);
    }
    pthread_mutex_unlock(&search->lock);
    search->is_warm = false;
    return 0;
}

static struct err rest(void *arg, struct ctx *ctx, int64_t *next_wall_ms)
{
    struct search *search = arg;
    bool more = false;
    uint64_t ready = 0;
    bool hurries = hear(search, &ready);
    struct err err = search_walk_step(search->walk, ctx, &more);
    bool is_due = now_mono_ms(ctx->now) - search->flushed_ms >= FLUSH_EVERY_MS;
    bool is_dirty =
        search_index_is_dirty(search->feed.index) || search_walk_has_taken(search->walk);
    if (err.code != 0 || (is_dirty && (is_due || hurries))) {
        struct err flushed = flush(search, ctx);
        err = err.code ? err : flushed;
        is_dirty = false;
    }
    bool is_waited_for = serve(search, ready);
    tell(search);
    *next_wall_ms = more || is_waited_for ? now_wall_ms(ctx->now)
                    : is_dirty            ? now_wall_ms(ctx->now) + FLUSH_EVERY_MS
                                          : cool_down(search, ctx);
    return err;
}

/* --- life --- */

/* Whether the file holds what the store believes it holds: otherwise it is read in anew. */
static struct err compare(struct search *search, struct ctx *ctx, bool is_new)
{
    struct search_index *index = search->feed.index;
    int64_t position = 0;
    int64_t texts = 0;
    uint64_t marked = 0;
    bool is_marked = false;
    TRY(search_index_get_mark(index, SEARCH_MARK_POSITION, &position));
    TRY(search_index_get_mark(index, SEARCH_MARK_TEXTS, &texts));
    TRY(hs_tail_mark(search->hs, ctx, tail_name, &marked, &is_marked));
    bool is_older = !is_marked || (uint64_t)position < marked;
    bool is_newer = (uint64_t)position > positions_newest(search->hs->positions);
    bool is_other = (texts != 0) != search->feed.takes_texts;
    if (is_new || is_newer || is_other) {
        search_walk_again(search->walk, SEARCH_AGAIN_EMPTY);
    } else if (is_older) {
        search_walk_again(search->walk, SEARCH_AGAIN_OVER);
    }
    return OK;
}

/* Of history that was placed shortly before a crash. */
static struct err take_up_notes(struct search *search, struct ctx *ctx)
{
    struct history_notes left;
    TRY(hs_news_history_left(search->hs, ctx, &left));
    for (size_t i = 0; i < left.count; i++) {
        search_walk_note_history(search->walk, &left.items[i]);
    }
    return OK;
}

static struct hs_tail *new_tail(struct search *search)
{
    const struct hs_tail_port port = {
        .name = tail_name,
        .kinds = TAIL_KIND(CHANGE_EVENT) | TAIL_KIND(CHANGE_STATE_ONLY),
        .linger_ms = LINGER_MS,
        .start = TAIL_FROM_NOW, /* what was before is walked through, room by room */
        .arg = search,
        .handle = handle,
        .rest = rest,
        .flush = flush,
        .lost = on_lost,
    };
    return hs_tail_new(search->hs, &port);
}

static void init_locks(struct search *search)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&search->lock, NULL);
    pthread_cond_init(&search->given_back, NULL);
    pthread_cond_init(&search->has_served, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

struct err search_new(struct hs *hs, struct slice folder, struct search **search_out)
{
    struct search *search = mem_alloc(sizeof *search);
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    bool is_new = false;
    search->hs = hs;
    search->arena = arena_new();
    search->path = arena_printf(search->arena, "%.*s/search.db", (int)folder.len, folder.ptr);
    search->feed = (struct search_feed){.hs = hs, .takes_texts = hs->conf->search_enabled};
    init_locks(search);
    struct err err = search_index_open(search->path, hs->log, &search->feed.index, &is_new);
    if (err.code == 0) {
        search->walk = search_walk_new(&search->feed);
        err = compare(search, &ctx, is_new);
    }
    err = err.code ? err : take_up_notes(search, &ctx);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    if (err.code != 0) {
        search_free(&search);
        return err;
    }
    search->tail = new_tail(search);
    search->news = (struct hs_news){search, on_history, on_purged, on_account};
    hs->news = &search->news;
    *search_out = search;
    return OK;
}

struct err search_start(struct search *search)
{
    return hs_tail_start(search->tail);
}

void search_stop(struct search *search)
{
    if (search) {
        hs_tail_stop(search->tail);
    }
}

void search_abandon(struct search *search)
{
    hs_tail_abandon(search->tail);
}

void search_free(struct search **search)
{
    struct search *s = *search;
    if (!s) {
        return;
    }
    s->hs->news = NULL;
    hs_tail_free(&s->tail);
    for (size_t i = 0; i < s->reader_count; i++) {
        search_db_close(&s->readers[i].db);
    }
    search_walk_free(&s->walk);
    search_index_close(&s->feed.index);
    pthread_cond_destroy(&s->given_back);
    pthread_cond_destroy(&s->has_served);
    pthread_mutex_destroy(&s->lock);
    arena_free(&s->arena);
    mem_free(s);
    *search = NULL;
}

void search_rebuild(struct search *search)
{
    search_walk_again(search->walk, SEARCH_AGAIN_EMPTY);
    hs_tail_poke(search->tail);
}

/* With what is not written back to it yet. */
static int64_t bytes_of(struct slice path)
{
    static const char *const suffixes[] = {"", "-wal"};
    struct arena *arena = arena_new();
    int64_t bytes = 0;
    for (size_t i = 0; i < COUNT_OF(suffixes); i++) {
        struct stat file;
        struct slice name = arena_printf(arena, "%.*s%s", (int)path.len, path.ptr, suffixes[i]);
        bytes += stat(name.ptr, &file) == 0 ? (int64_t)file.st_size : 0;
    }
    arena_free(&arena);
    return bytes;
}

int64_t search_file_bytes(struct slice folder)
{
    struct arena *arena = arena_new();
    int64_t bytes = bytes_of(arena_printf(arena, "%.*s/search.db", (int)folder.len, folder.ptr));
    arena_free(&arena);
    return bytes;
}

void search_remove(struct slice folder)
{
    struct arena *arena = arena_new();
    search_index_remove(arena_printf(arena, "%.*s/search.db", (int)folder.len, folder.ptr));
    arena_free(&arena);
}

uint64_t search_memory_bytes(void)
{
    return search_db_memory_bytes();
}

void search_get_progress(struct search *search, struct search_progress *progress_out)
{
    *progress_out = (struct search_progress){.bytes = bytes_of(search->path)};
    progress_out->is_walking =
        search_walk_progress(search->walk, &progress_out->rooms, &progress_out->rooms_done);
}

void search_catch_up(struct search *search)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += CATCH_UP_S;
    workers_pause();
    pthread_mutex_lock(&search->lock);
    uint64_t ticket = ++search->asked;
    pthread_mutex_unlock(&search->lock);
    hs_tail_poke(search->tail);
    pthread_mutex_lock(&search->lock);
    bool is_crowded = search->trailing == WAITING_MAX;
    search->trailing += is_crowded ? 0 : 1;
    while (!is_crowded && search->served < ticket &&
           pthread_cond_timedwait(&search->has_served, &search->lock, &until) == 0) {
    }
    search->trailing -= is_crowded ? 0 : 1;
    pthread_mutex_unlock(&search->lock);
    workers_resume();
}

void search_settle(struct search *search)
{
    hs_tail_settle(search->tail);
    search_catch_up(search);
}
