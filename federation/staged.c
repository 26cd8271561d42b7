#include "federation/staged.h"

#include "federation/fed_priv.h"
#include "federation/receipt.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

enum {
    ROOM_EVENTS_MAX = 500,
    ORIGIN_EVENTS_MAX = 2000,
    EVENTS_MAX = 20000,
    FEW_EVENTS = 20,   /* of one origin in a room: there is a place for them */
    FULL_FOR_FEW = 4,  /* until there are so many times as much */
    PASS_ORIGINS = 16, /* counted by name in one pass */
    RUNNING_MAX = 8,
    PASS_EVENTS = 100,
    FILL_MS = 60 * 1000,
    PASS_FILL_MS = 30 * 1000, /* of one origin; what is begun goes on */
    TICK_MS = 1000,
};
#define STAGED_KEY_EVENT 's'

static const int64_t retry_after_ms[] = {30000, 120000, 600000, 3600000};

enum standing { STANDING_IDLE, STANDING_QUEUED, STANDING_RUNNING };

struct waiting_room {
    struct waiting_room *next; /* in the queue */
    struct staged *staged;
    uint64_t number;
    struct map *attempts; /* event id -> how often it was tried */
    uint64_t next_sequence;
    uint64_t origin;      /* hash of the newest event's */
    uint64_t running_for; /* that of the running job */
    enum standing standing;
    bool again;          /* something happened while a job was running */
    bool may_retry;      /* the time for another attempt has come */
    size_t failures;     /* passes without progress */
    int64_t retry_at_ms; /* mono; 0 = none */
    struct staged_wait *waits;
};

struct staged {
    struct fed *fed;
    staged_fill_fn fill;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct map *rooms;   /* number -> struct waiting_room * */
    struct map *origins; /* name, or struct in_room -> events that wait */
    struct waiting_room *first, *last;
    uint64_t running[RUNNING_MAX]; /* origins; 0 = free */
    size_t running_count, count;
    bool stopping, has_clock;
    pthread_t clock;
};

struct staged *staged_new(struct fed *fed, staged_fill_fn fill)
{
    struct staged *staged = mem_alloc(sizeof *staged);
    pthread_condattr_t attr;
    staged->fed = fed;
    staged->fill = fill;
    staged->rooms = map_new();
    staged->origins = map_new();
    pthread_mutex_init(&staged->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&staged->changed, &attr);
    pthread_condattr_destroy(&attr);
    return staged;
}

static void free_room(struct waiting_room *room)
{
    map_free(&room->attempts);
    mem_free(room);
}

void staged_free(struct staged **pointer)
{
    struct staged *staged = *pointer;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    if (!staged) {
        return;
    }
    while (map_next(staged->rooms, &cursor, &key, &value)) {
        free_room((struct waiting_room *)(uintptr_t)value);
    }
    map_free(&staged->rooms);
    map_free(&staged->origins);
    pthread_cond_destroy(&staged->changed);
    pthread_mutex_destroy(&staged->mutex);
    mem_free(staged);
    *pointer = NULL;
}

/* --- the queue of rooms; all with the mutex held --- */
static struct waiting_room *get_room(struct staged *staged, uint64_t number)
{
    struct waiting_room *room = map_get_ptr(staged->rooms, map_key_u64(&number));
    if (!room) {
        room = mem_alloc(sizeof *room);
        room->staged = staged;
        room->number = number;
        room->attempts = map_new();
        room->next_sequence = 1;
        map_set_ptr(staged->rooms, map_key_u64(&number), room);
    }
    return room;
}

static bool runs_for(const struct staged *staged, uint64_t origin)
{
    bool found = false;
    for (size_t i = 0; i < RUNNING_MAX && !found; i++) {
        found = staged->running[i] != 0 && staged->running[i] == origin;
    }
    return found;
}

static void set_running(struct staged *staged, uint64_t from, uint64_t to)
{
    size_t i = 0;
    while (staged->running[i] != from) {
        i++;
    }
    staged->running[i] = to;
}

static void run_room(void *arg);

/* Starts jobs for rooms whose turn it is, as far as there is room for them. */
static void schedule(struct staged *staged)
{
    struct waiting_room **at = &staged->first;
    struct waiting_room *before = NULL;
    while (*at && staged->running_count < RUNNING_MAX && !staged->stopping) {
        struct waiting_room *room = *at;
        if (runs_for(staged, room->origin)) {
            before = room;
            at = &room->next;
            continue;
        }
        if (!workers_submit(staged->fed->hs->waiters, 0, run_room, room)) {
            return; /* the next tick tries again */
        }
        *at = room->next;
        staged->last = staged->last == room ? before : staged->last;
        room->next = NULL;
        room->standing = STANDING_RUNNING;
        room->running_for = room->origin;
        set_running(staged, 0, room->origin);
        staged->running_count++;
    }
}

static void enqueue(struct staged *staged, struct waiting_room *room)
{
    if (room->standing != STANDING_IDLE) {
        room->again = true;
        return;
    }
    room->standing = STANDING_QUEUED;
    *(staged->last ? &staged->last->next : &staged->first) = room;
    staged->last = room;
}

/* --- adding --- */
/* An origin's events in one room: be64 number, name. No name of a server is like it. */
struct in_room {
    char bytes[8 + LIMIT_SERVER_NAME];
    size_t len;
};

static struct in_room in_room_of(uint64_t number, struct slice origin)
{
    struct in_room key = {.len = 8};
    for (size_t i = 0; i < 8; i++) {
        key.bytes[i] = (char)(unsigned char)(number >> (56 - 8 * i));
    }
    for (size_t i = 0; i < origin.len && key.len < sizeof key.bytes; i++) {
        key.bytes[key.len++] = origin.ptr[i];
    }
    return key;
}

static void change_count(struct map *counts, struct slice key, int64_t change)
{
    uint64_t count = 0;
    map_get(counts, key, &count);
    count = (uint64_t)((int64_t)count + change);
    if (count) {
        map_set(counts, key, count);
    } else {
        map_remove(counts, key);
    }
}

static void count_origin(struct staged *staged, uint64_t room, struct slice origin, int64_t change)
{
    struct in_room key = in_room_of(room, origin);
    staged->count = (size_t)((int64_t)staged->count + change);
    change_count(staged->origins, origin, change);
    change_count(staged->origins, (struct slice){key.bytes, key.len}, change);
}

/* Who fills the room, or all there is, leaves place for those who have little that waits. */
static bool is_full(const struct staged *staged, const struct waiting_room *room,
                    struct slice origin)
{
    struct in_room key = in_room_of(room->number, origin);
    uint64_t of_origin = 0;
    uint64_t here = 0;
    map_get(staged->origins, origin, &of_origin);
    map_get(staged->origins, (struct slice){key.bytes, key.len}, &here);
    size_t times = here < FEW_EVENTS ? FULL_FOR_FEW : 1;
    return map_count(room->attempts) >= ROOM_EVENTS_MAX * times || of_origin >= ORIGIN_EVENTS_MAX ||
           staged->count >= EVENTS_MAX * times;
}

enum claim { CLAIM_MADE, CLAIM_THERE, CLAIM_FULL };

/* Takes a place for the event. */
static enum claim claim_place(struct staged *staged, struct slice origin, struct slice event_id,
                              struct waiting_room *room, uint64_t *sequence_out)
{
    uint64_t value = 0;
    if (map_get(room->attempts, event_id, &value)) {
        return CLAIM_THERE;
    }
    if (is_full(staged, room, origin)) {
        return CLAIM_FULL;
    }
    map_set(room->attempts, event_id, 0);
    count_origin(staged, room->number, origin, 1);
    *sequence_out = room->next_sequence++;
    return CLAIM_MADE;
}

static void drop_place(struct staged *staged, struct waiting_room *room, struct slice origin,
                       struct slice event_id)
{
    if (map_remove(room->attempts, event_id)) {
        count_origin(staged, room->number, origin, -1);
    }
}

static struct store_object object_of(struct ctx *ctx, uint64_t room)
{
    return (struct store_object){STORE_ROOM_WAITING, store_id_u64(ctx->arena, room)};
}

static struct slice key_of(struct ctx *ctx, uint64_t sequence)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, 16);
    buf_add_byte(&key, STAGED_KEY_EVENT);
    pack_be64(&key, sequence);
    return buf_slice(&key);
}

static struct err put_row(struct staged *staged, struct ctx *ctx, uint64_t room, uint64_t sequence,
                          const struct staged_event *event)
{
    struct buf row;
    struct store_update *update = store_update_new(ctx, object_of(ctx, room));
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_bytes(&row, event->origin);
    pack_bytes(&row, event->event->id.s);
    buf_add(&row, event->event->json);
    store_put(update, key_of(ctx, sequence), buf_slice(&row));
    return store_write(staged->fed->hs->store, ctx, &update, 1);
}

struct err staged_add(struct staged *staged, struct ctx *ctx, const struct staged_event *event)
{
    uint64_t number = hs_room_info(event->room).number;
    uint64_t sequence = 0;
    pthread_mutex_lock(&staged->mutex);
    struct waiting_room *room = get_room(staged, number);
    enum claim claim = claim_place(staged, event->origin, event->event->id.s, room, &sequence);
    pthread_mutex_unlock(&staged->mutex);
    if (claim != CLAIM_MADE) {
        return claim == CLAIM_THERE ? OK : err_make(ERR_LIMIT, "too many events wait");
    }
    struct err err = put_row(staged, ctx, number, sequence, event);
    pthread_mutex_lock(&staged->mutex);
    if (err.code != 0) {
        drop_place(staged, room, event->origin, event->event->id.s);
    } else {
        room->origin = slice_hash(event->origin) | 1;
        enqueue(staged, room);
        schedule(staged);
    }
    pthread_mutex_unlock(&staged->mutex);
    return err;
}

void staged_kick(struct staged *staged, uint64_t number)
{
    pthread_mutex_lock(&staged->mutex);
    struct waiting_room *room = map_get_ptr(staged->rooms, map_key_u64(&number));
    if (room && map_count(room->attempts)) {
        enqueue(staged, room);
        schedule(staged);
    }
    pthread_mutex_unlock(&staged->mutex);
}

/* --- waiting for the first attempt --- */
bool staged_await(struct staged *staged, uint64_t number, struct staged_wait *wait)
{
    pthread_mutex_lock(&staged->mutex);
    struct waiting_room *room = map_get_ptr(staged->rooms, map_key_u64(&number));
    bool is_busy = room && room->standing != STANDING_IDLE && !staged->stopping;
    if (is_busy) {
        wait->passes = room->standing == STANDING_RUNNING && room->again ? 2 : 1;
        wait->next = room->waits;
        room->waits = wait;
    }
    pthread_mutex_unlock(&staged->mutex);
    return is_busy;
}

bool staged_withdraw(struct staged *staged, uint64_t number, struct staged_wait *wait)
{
    bool found = false;
    pthread_mutex_lock(&staged->mutex);
    struct waiting_room *room = map_get_ptr(staged->rooms, map_key_u64(&number));
    for (struct staged_wait **at = room ? &room->waits : NULL; at && *at; at = &(*at)->next) {
        if (*at == wait) {
            *at = wait->next;
            found = true;
            break;
        }
    }
    pthread_mutex_unlock(&staged->mutex);
    return found;
}

/* A pass has ended: those who waited for it. With the mutex held. */
static struct staged_wait *take_waits(struct waiting_room *room)
{
    struct staged_wait *taken = NULL;
    struct staged_wait **at = &room->waits;
    while (*at) {
        struct staged_wait *wait = *at;
        if (--wait->passes > 0 && map_count(room->attempts)) {
            at = &wait->next;
            continue;
        }
        *at = wait->next;
        wait->next = taken;
        taken = wait;
    }
    return taken;
}

static void wake_all(struct staged_wait *waits)
{
    while (waits) {
        struct staged_wait *next = waits->next; /* the one woken goes away */
        waits->wake(waits);
        waits = next;
    }
}

/* --- a pass over a room --- */
struct spent {
    uint64_t origin; /* hash */
    int64_t ms;
};
struct pass {
    struct staged *staged;
    struct waiting_room *waiting;
    bool may_retry;
    bool progressed, failed;
    bool put_off; /* the next pass goes on */
    struct spent spent[PASS_ORIGINS];
};

struct row {
    struct slice key, origin, event_id, json;
};

static bool read_row(const struct store_row *from, struct row *row_out)
{
    struct unpack in = unpack_of(from->value);
    row_out->key = from->key;
    row_out->origin = unpack_bytes(&in);
    row_out->event_id = unpack_bytes(&in);
    row_out->json = in.rest;
    return !in.bad;
}

static struct err delete_row(struct pass *pass, struct ctx *ctx, const struct row *row)
{
    struct store_update *update = store_update_new(ctx, object_of(ctx, pass->waiting->number));
    store_delete(update, row->key);
    TRY(store_write(pass->staged->fed->hs->store, ctx, &update, 1));
    pthread_mutex_lock(&pass->staged->mutex);
    drop_place(pass->staged, pass->waiting, row->origin, row->event_id);
    pthread_mutex_unlock(&pass->staged->mutex);
    pass->progressed = true;
    return OK;
}

static uint64_t attempts_of(struct pass *pass, struct slice event_id, uint64_t add)
{
    uint64_t attempts = 0;
    pthread_mutex_lock(&pass->staged->mutex);
    map_get(pass->waiting->attempts, event_id, &attempts);
    if (add) {
        map_set(pass->waiting->attempts, event_id, attempts + add);
    }
    pthread_mutex_unlock(&pass->staged->mutex);
    return attempts;
}

/* The time that was spent on an origin's events. Beyond a number, origins share. */
static int64_t *spent_on(struct pass *pass, struct slice origin)
{
    uint64_t hash = slice_hash(origin) | 1;
    size_t at = 0;
    while (at + 1 < PASS_ORIGINS && pass->spent[at].origin && pass->spent[at].origin != hash) {
        at++;
    }
    pass->spent[at].origin = hash;
    return &pass->spent[at].ms;
}

/* Fetches what the event lacks. An origin that takes its time does not take that of others: the
 * rest of its events waits for the next pass, or goes without when it was tried before. */
static struct err fill_in(struct pass *pass, struct ctx *ctx, const struct row *row,
                          const struct staged_event *event, struct staged_outcome *outcome_io)
{
    struct fed *fed = pass->staged->fed;
    int64_t *spent_ms = spent_on(pass, row->origin);
    int64_t began_ms = now_mono_ms(ctx->now);
    if (*spent_ms >= PASS_FILL_MS) {
        return OK;
    }
    struct err err = pass->staged->fill(fed, ctx, event, outcome_io);
    *spent_ms += now_mono_ms(ctx->now) - began_ms;
    return err;
}

/* One event: into the room, as it is or after a fetch of what it lacks. */
static struct err settle_event(struct pass *pass, struct ctx *ctx, const struct row *row,
                               struct received *received)
{
    struct fed *fed = pass->staged->fed;
    struct receipt receipt = {.fed = fed, .hs = fed->hs, .ctx = ctx, .origin = row->origin};
    TRY(receipt_take(&receipt, received));
    uint64_t attempts = attempts_of(pass, row->event_id, 0);
    if (!received->waits || (attempts && !pass->may_retry)) {
        return OK;
    }
    if (!attempts && *spent_on(pass, row->origin) >= PASS_FILL_MS) {
        pass->put_off = true;
        return OK;
    }
    struct staged_event event = {.room = received->room,
                                 .origin = row->origin,
                                 .event = &received->event,
                                 .is_new = attempts == 0};
    struct staged_outcome outcome = {.report = received->report};
    attempts_of(pass, row->event_id, 1);
    struct err err = fill_in(pass, ctx, row, &event, &outcome);
    received->report = outcome.report;
    if (err.code != 0 && err.code != ERR_CANCELLED) {
        log_info(ctx->log, "event_not_completed", .origin = row->origin, .event = row->event_id,
                 .err = slice_of(err.text));
        err = OK;
    }
    TRY(err);
    receipt_settle(&receipt, received);
    if (received->waits && (outcome.is_final || attempts >= COUNT_OF(retry_after_ms))) {
        receipt_refuse(&receipt, received, RECEIPT_MISSING,
                       err_public(ERR_M_NOT_FOUND, "Nobody has what the event cites."));
        received->waits = false;
    }
    pass->failed = pass->failed || received->waits;
    return OK;
}

static struct err see_to(struct pass *pass, struct ctx *ctx, const struct row *row)
{
    struct hs *hs = pass->staged->fed->hs;
    struct received received = {.event_id = row->event_id};
    struct err err = hs_room_get(hs, ctx, pass->waiting->number, &received.room);
    if (err.code == ERR_M_NOT_FOUND) {
        return delete_row(pass, ctx, row); /* purged */
    }
    TRY(err);
    if (!hs_room_is_resident(received.room)) {
        return delete_row(pass, ctx, row);
    }
    TRY(event_parse_stored(ctx->arena, hs_room_info(received.room).rules, row->json,
                           ids_trust_event(row->event_id), &received.event));
    TRY(settle_event(pass, ctx, row, &received));
    return received.waits ? OK : delete_row(pass, ctx, row);
}

static bool is_stopping(struct staged *staged)
{
    pthread_mutex_lock(&staged->mutex);
    bool stopping = staged->stopping;
    pthread_mutex_unlock(&staged->mutex);
    return stopping;
}

/* Each event is a job of its own: what it needed is given back after it. */
static struct err see_to_row(struct pass *pass, const struct store_row *stored)
{
    struct hs *hs = pass->staged->fed->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log, .may_wait = true};
    struct row row = {.key = stored->key};
    ctx.deadline_mono_ms = now_mono_ms(hs->now) + FILL_MS;
    struct err err =
        read_row(stored, &row) ? see_to(pass, &ctx, &row) : delete_row(pass, &ctx, &row);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return err;
}

static struct err make_pass(struct pass *pass, struct ctx *ctx)
{
    struct hs *hs = pass->staged->fed->hs;
    struct store_rows rows;
    struct store_range range = {.limit = PASS_EVENTS};
    do {
        TRY(store_read_range(hs->store, ctx, object_of(ctx, pass->waiting->number), range, &rows));
        for (size_t i = 0; i < rows.count; i++) {
            if (is_stopping(pass->staged)) {
                return err_make(ERR_CANCELLED, "stopping");
            }
            TRY(see_to_row(pass, &rows.rows[i]));
            range.from = arena_concat(ctx->arena, rows.rows[i].key, LIT("\0"));
        }
    } while (rows.count == PASS_EVENTS);
    return OK;
}

/* What comes next for the room; with the mutex held. */
static void plan(struct staged *staged, struct pass *pass)
{
    struct waiting_room *room = pass->waiting;
    int64_t now = now_mono_ms(staged->fed->hs->now);
    if (!map_count(room->attempts)) {
        room->failures = 0;
        room->retry_at_ms = 0;
    } else if (pass->failed) {
        size_t step = room->failures < COUNT_OF(retry_after_ms) - 1 ? room->failures
                                                                    : COUNT_OF(retry_after_ms) - 1;
        room->failures++;
        room->retry_at_ms = now + retry_after_ms[step];
    }
    room->standing = STANDING_IDLE;
    /* An event that got in may be what an earlier one waits for. */
    bool again = room->again || pass->put_off || (pass->progressed && map_count(room->attempts));
    room->again = false;
    if (again && !staged->stopping) {
        enqueue(staged, room);
    } else if (!map_count(room->attempts)) {
        uint64_t number = room->number;
        map_remove(staged->rooms, map_key_u64(&number));
        free_room(room);
    }
}

static void run_room(void *arg)
{
    struct waiting_room *room = arg;
    struct staged *staged = room->staged;
    struct hs *hs = staged->fed->hs;
    struct pass pass = {.staged = staged, .waiting = room};
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log, .may_wait = true};
    pthread_mutex_lock(&staged->mutex);
    uint64_t running_for = room->running_for;
    pass.may_retry = room->may_retry;
    room->may_retry = false;
    room->again = false;
    pthread_mutex_unlock(&staged->mutex);
    struct err err = make_pass(&pass, &ctx);
    if (err.code != 0 && err.code != ERR_CANCELLED) {
        log_error(hs->log, "staged_events_failed", .err = slice_of(err.text));
        pass.failed = true;
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    pthread_mutex_lock(&staged->mutex);
    struct staged_wait *waits = take_waits(room);
    plan(staged, &pass);
    set_running(staged, running_for, 0);
    staged->running_count--;
    schedule(staged);
    pthread_mutex_unlock(&staged->mutex);
    wake_all(waits);
}

/* --- the clock, start and stop --- */
void staged_tick(struct staged *staged)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    pthread_mutex_lock(&staged->mutex);
    int64_t now = now_mono_ms(staged->fed->hs->now);
    while (map_next(staged->rooms, &cursor, &key, &value)) {
        struct waiting_room *room = (struct waiting_room *)(uintptr_t)value;
        if (room->retry_at_ms && room->retry_at_ms <= now && room->standing == STANDING_IDLE) {
            room->retry_at_ms = 0;
            room->may_retry = true;
            enqueue(staged, room);
        }
    }
    schedule(staged);
    pthread_mutex_unlock(&staged->mutex);
}

static void *run_clock(void *arg)
{
    struct staged *staged = arg;
    struct timespec until;
    pthread_mutex_lock(&staged->mutex);
    while (!staged->stopping) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += TICK_MS / 1000;
        int waited = pthread_cond_timedwait(&staged->changed, &staged->mutex, &until);
        if (waited == ETIMEDOUT && map_count(staged->rooms)) {
            pthread_mutex_unlock(&staged->mutex);
            staged_tick(staged);
            pthread_mutex_lock(&staged->mutex);
        }
    }
    pthread_mutex_unlock(&staged->mutex);
    return NULL;
}

struct load {
    struct staged *staged;
    struct ctx *ctx;
};

static struct err load_room(void *arg, struct slice id)
{
    struct load *load = arg;
    struct staged *staged = load->staged;
    struct unpack in = unpack_of(id);
    struct store_rows rows;
    uint64_t number = unpack_be64(&in);
    TRY(store_read_range(staged->fed->hs->store, load->ctx, object_of(load->ctx, number),
                         (struct store_range){0}, &rows));
    pthread_mutex_lock(&staged->mutex);
    struct waiting_room *room = get_room(staged, number);
    for (size_t i = 0; i < rows.count; i++) {
        struct row row;
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, 1));
        room->next_sequence = unpack_be64(&key) + 1;
        if (read_row(&rows.rows[i], &row)) {
            map_set(room->attempts, row.event_id, 0);
            count_origin(staged, number, row.origin, 1);
            room->origin = slice_hash(row.origin) | 1;
        }
    }
    enqueue(staged, room);
    pthread_mutex_unlock(&staged->mutex);
    return OK;
}

struct err staged_start(struct staged *staged)
{
    struct hs *hs = staged->fed->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    struct load load = {.staged = staged, .ctx = &ctx};
    struct err err = store_each_object(hs->store, &ctx, STORE_ROOM_WAITING, load_room, &load);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    TRY(err);
    staged->has_clock = pthread_create(&staged->clock, NULL, run_clock, staged) == 0;
    pthread_mutex_lock(&staged->mutex);
    schedule(staged);
    pthread_mutex_unlock(&staged->mutex);
    return staged->has_clock ? OK : err_make(ERR_INTERNAL, "no thread for the clock");
}

void staged_stop(struct staged *staged)
{
    pthread_mutex_lock(&staged->mutex);
    staged->stopping = true;
    pthread_cond_broadcast(&staged->changed);
    pthread_mutex_unlock(&staged->mutex);
    if (staged->has_clock) {
        pthread_join(staged->clock, NULL);
        staged->has_clock = false;
    }
}

bool staged_is_busy(struct staged *staged)
{
    pthread_mutex_lock(&staged->mutex);
    bool busy = staged->running_count || staged->first;
    pthread_mutex_unlock(&staged->mutex);
    return busy;
}

size_t staged_count(struct staged *staged)
{
    pthread_mutex_lock(&staged->mutex);
    size_t count = staged->count;
    pthread_mutex_unlock(&staged->mutex);
    return count;
}
