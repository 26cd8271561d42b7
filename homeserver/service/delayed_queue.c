#include "homeserver/service/delayed_queue.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/pause.h"

#include <pthread.h>
#include <string.h>

enum { WAKE_MS = 1000 };

struct entry {
    struct slice delay_id; /* into text */
    struct room_line *room;
    int64_t due_mono_ms;
    size_t heap_index;  /* where it stands in the heap while `state` is WAITING */
    struct entry *next; /* in its room's line */
    enum { ENTRY_WAITING, ENTRY_IN_LINE, ENTRY_TAKEN } state;
    char text[];
};

/* Those of a room that are due. */
struct room_line {
    struct entry *first, *last;
    size_t refs;            /* entries of the room, whoever sends it, the list of ready ones */
    struct room_line *next; /* among those that are ready */
    bool is_ready;          /* has something due; waits to be sent */
    bool is_sending;
    size_t id_len;
    char id[];
};

struct hs_delayed {
    struct delayed_queue_config config;
    struct workers *workers;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* an entry is free again, the first to be due is another, or the end */
    struct map *entries;    /* delay id -> entry */
    struct map *rooms;      /* room id -> line */
    struct room_line *ready_first, *ready_last;
    struct entry **heap_owned;
    size_t heap_count, heap_cap;
    bool is_stopping;
};

/* --- the heap, under the mutex --- */

static void heap_set(struct hs_delayed *q, size_t index, struct entry *entry)
{
    q->heap_owned[index] = entry;
    entry->heap_index = index;
}

static void heap_up(struct hs_delayed *q, size_t index)
{
    struct entry *entry = q->heap_owned[index];
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (q->heap_owned[parent]->due_mono_ms <= entry->due_mono_ms) {
            break;
        }
        heap_set(q, index, q->heap_owned[parent]);
        index = parent;
    }
    heap_set(q, index, entry);
}

static void heap_down(struct hs_delayed *q, size_t index)
{
    struct entry *entry = q->heap_owned[index];
    for (;;) {
        size_t child = index * 2 + 1;
        if (child >= q->heap_count) {
            break;
        }
        if (child + 1 < q->heap_count &&
            q->heap_owned[child + 1]->due_mono_ms < q->heap_owned[child]->due_mono_ms) {
            child++;
        }
        if (entry->due_mono_ms <= q->heap_owned[child]->due_mono_ms) {
            break;
        }
        heap_set(q, index, q->heap_owned[child]);
        index = child;
    }
    heap_set(q, index, entry);
}

static void heap_add(struct hs_delayed *q, struct entry *entry)
{
    if (q->heap_count == q->heap_cap) {
        q->heap_cap = q->heap_cap ? q->heap_cap * 2 : 64;
        q->heap_owned = mem_grow(q->heap_owned, q->heap_cap * sizeof(struct entry *));
    }
    entry->state = ENTRY_WAITING;
    heap_set(q, q->heap_count++, entry);
    heap_up(q, entry->heap_index);
}

static void heap_remove(struct hs_delayed *q, struct entry *entry)
{
    size_t index = entry->heap_index;
    struct entry *last = q->heap_owned[--q->heap_count];
    if (last != entry) {
        heap_set(q, index, last);
        heap_down(q, index);
        heap_up(q, last->heap_index);
    }
}

/* --- lines, under the mutex --- */

static struct room_line *line_of(struct hs_delayed *q, struct slice room_id)
{
    struct room_line *line = map_get_ptr(q->rooms, room_id);
    if (!line) {
        line = mem_alloc(sizeof *line + room_id.len);
        line->id_len = room_id.len;
        memcpy(line->id, room_id.ptr, room_id.len);
        map_set_ptr(q->rooms, room_id, line);
    }
    line->refs++;
    return line;
}

static void line_release(struct hs_delayed *q, struct room_line *line)
{
    if (--line->refs == 0) {
        map_remove(q->rooms, (struct slice){line->id, line->id_len});
        mem_free(line);
    }
}

static void make_ready(struct hs_delayed *q, struct room_line *line)
{
    line->is_ready = true;
    line->refs++;
    line->next = NULL;
    if (q->ready_last) {
        q->ready_last->next = line;
    } else {
        q->ready_first = line;
    }
    q->ready_last = line;
}

/* The caller has the list's reference now. */
static struct room_line *pop_ready(struct hs_delayed *q)
{
    struct room_line *line = q->ready_first;
    if (line) {
        q->ready_first = line->next;
        q->ready_last = q->ready_first ? q->ready_last : NULL;
        line->is_ready = false;
    }
    return line;
}

static void line_append(struct hs_delayed *q, struct entry *entry)
{
    struct room_line *line = entry->room;
    entry->state = ENTRY_IN_LINE;
    entry->next = NULL;
    if (line->last) {
        line->last->next = entry;
    } else {
        line->first = entry;
    }
    line->last = entry;
    if (!line->is_ready && !line->is_sending) {
        make_ready(q, line);
    }
}

static struct entry *line_pop(struct room_line *line)
{
    struct entry *entry = line->first;
    if (entry) {
        line->first = entry->next;
        line->last = line->first ? line->last : NULL;
        entry->state = ENTRY_TAKEN;
    }
    return entry;
}

static void line_remove(struct entry *entry)
{
    struct room_line *line = entry->room;
    struct entry *before = NULL;
    for (struct entry *at = line->first; at != entry; at = at->next) {
        before = at;
    }
    if (before) {
        before->next = entry->next;
    } else {
        line->first = entry->next;
    }
    line->last = line->last == entry ? before : line->last;
}

static void drop(struct hs_delayed *q, struct entry *entry)
{
    map_remove(q->entries, entry->delay_id);
    line_release(q, entry->room);
    mem_free(entry);
}

/* --- sending --- */

/* One of the line; its entry is taken meanwhile. */
static void send_one(struct hs_delayed *q, struct entry *entry)
{
    pthread_mutex_unlock(&q->mutex);
    int64_t again_ms = q->config.due(q->config.arg, entry->delay_id);
    pthread_mutex_lock(&q->mutex);
    if (again_ms == 0) {
        drop(q, entry);
    } else {
        entry->due_mono_ms = now_mono_ms(q->config.now) + again_ms;
        heap_add(q, entry);
    }
    pthread_cond_broadcast(&q->changed);
}

struct line_job {
    struct hs_delayed *queue;
    struct room_line *line;
};

static void send_line(void *arg)
{
    struct line_job *job = arg;
    struct hs_delayed *q = job->queue;
    struct room_line *line = job->line;
    struct entry *entry = NULL;
    mem_free(job);
    pthread_mutex_lock(&q->mutex);
    while (!q->is_stopping && (entry = line_pop(line)) != NULL) {
        send_one(q, entry);
    }
    line->is_sending = false;
    line_release(q, line);
    pthread_mutex_unlock(&q->mutex);
}

/* Moves what is due into the lines; the time until the next is due, or -1. Lines that could not be
 * handed to the pool are tried again at the next turn. */
static int64_t collect_due(struct hs_delayed *q)
{
    int64_t now_ms = now_mono_ms(q->config.now);
    while (q->heap_count > 0 && q->heap_owned[0]->due_mono_ms <= now_ms) {
        struct entry *entry = q->heap_owned[0];
        heap_remove(q, entry);
        line_append(q, entry);
    }
    return q->heap_count > 0 ? q->heap_owned[0]->due_mono_ms - now_ms : -1;
}

static bool hand_out(struct hs_delayed *q)
{
    struct room_line *line = NULL;
    while ((line = pop_ready(q)) != NULL) {
        struct line_job *job = mem_alloc(sizeof *job);
        *job = (struct line_job){q, line};
        line->is_sending = true;
        if (!workers_submit(q->workers, 0, send_line, job)) {
            line->is_sending = false;
            make_ready(q, line);
            line_release(q, line);
            mem_free(job);
            return false;
        }
    }
    return true;
}

static void wait_for(struct hs_delayed *q, int64_t wait_ms)
{
    pause_on(&q->changed, &q->mutex, wait_ms);
}

static void *watch(void *arg)
{
    struct hs_delayed *q = arg;
    pthread_mutex_lock(&q->mutex);
    while (!q->is_stopping) {
        int64_t wait_ms = collect_due(q);
        wait_ms = hand_out(q) ? wait_ms : WAKE_MS;
        if (wait_ms < 0) {
            pthread_cond_wait(&q->changed, &q->mutex);
        } else {
            wait_for(q, wait_ms < WAKE_MS ? wait_ms : WAKE_MS);
        }
    }
    pthread_mutex_unlock(&q->mutex);
    return NULL;
}

/* --- life --- */

struct hs_delayed *delayed_queue_new(const struct delayed_queue_config *config)
{
    struct hs_delayed *q = mem_alloc(sizeof *q);
    pthread_condattr_t attributes;
    q->config = *config;
    q->entries = map_new();
    q->rooms = map_new();
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return q;
}

void delayed_queue_free(struct hs_delayed **queue)
{
    struct hs_delayed *q = *queue;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    if (!q) {
        return;
    }
    while (map_next(q->entries, &cursor, &key, &value)) {
        mem_free(map_get_ptr(q->entries, key));
    }
    cursor = 0;
    while (map_next(q->rooms, &cursor, &key, &value)) {
        mem_free(map_get_ptr(q->rooms, key));
    }
    map_free(&q->entries);
    map_free(&q->rooms);
    mem_free(q->heap_owned);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->mutex);
    mem_free(q);
    *queue = NULL;
}

void delayed_queue_start(struct hs_delayed *q, struct workers *workers)
{
    q->workers = workers;
    q->has_thread = pthread_create(&q->thread, NULL, watch, q) == 0;
    ASSERT(q->has_thread);
}

void delayed_queue_stop(struct hs_delayed *q)
{
    if (!q || !q->has_thread) {
        return;
    }
    pthread_mutex_lock(&q->mutex);
    q->is_stopping = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
    pthread_join(q->thread, NULL);
    q->has_thread = false;
}

void delayed_queue_run(struct hs_delayed *q)
{
    struct room_line *line = NULL;
    struct entry *entry = NULL;
    pthread_mutex_lock(&q->mutex);
    (void)collect_due(q);
    while ((line = pop_ready(q)) != NULL) {
        while ((entry = line_pop(line)) != NULL) {
            send_one(q, entry);
        }
        line_release(q, line);
    }
    pthread_mutex_unlock(&q->mutex);
}

/* --- entries --- */

void delayed_queue_add(struct hs_delayed *q, struct slice delay_id, struct slice room_id,
                       int64_t after_ms)
{
    pthread_mutex_lock(&q->mutex);
    if (!map_get_ptr(q->entries, delay_id)) {
        struct entry *entry = mem_alloc(sizeof *entry + delay_id.len);
        memcpy(entry->text, delay_id.ptr, delay_id.len);
        entry->delay_id = (struct slice){entry->text, delay_id.len};
        entry->room = line_of(q, room_id);
        entry->due_mono_ms = now_mono_ms(q->config.now) + after_ms;
        map_set_ptr(q->entries, entry->delay_id, entry);
        heap_add(q, entry);
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
}

/* Sleeps while the entry is in another hand. No other lock is taken under the mutex, so the worker
 * pauses before. */
static void await_entry(struct hs_delayed *q, struct slice delay_id)
{
    struct entry *entry = NULL;
    workers_pause();
    pthread_mutex_lock(&q->mutex);
    while ((entry = map_get_ptr(q->entries, delay_id)) != NULL && entry->state == ENTRY_TAKEN) {
        pthread_cond_wait(&q->changed, &q->mutex);
    }
    pthread_mutex_unlock(&q->mutex);
    workers_resume();
}

/* False when it is in another hand. */
static bool try_take(struct hs_delayed *q, struct slice delay_id)
{
    pthread_mutex_lock(&q->mutex);
    struct entry *entry = map_get_ptr(q->entries, delay_id);
    bool is_free = !entry || entry->state != ENTRY_TAKEN;
    if (entry && is_free) {
        if (entry->state == ENTRY_WAITING) {
            heap_remove(q, entry);
        } else {
            line_remove(entry);
        }
        entry->state = ENTRY_TAKEN;
    }
    pthread_mutex_unlock(&q->mutex);
    return is_free;
}

void delayed_queue_take(struct hs_delayed *q, struct slice delay_id)
{
    while (!try_take(q, delay_id)) {
        await_entry(q, delay_id);
    }
}

void delayed_queue_give_back(struct hs_delayed *q, struct slice delay_id)
{
    pthread_mutex_lock(&q->mutex);
    struct entry *entry = map_get_ptr(q->entries, delay_id);
    if (entry) {
        heap_add(q, entry);
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
}

void delayed_queue_put_off(struct hs_delayed *q, struct slice delay_id, int64_t after_ms)
{
    pthread_mutex_lock(&q->mutex);
    struct entry *entry = map_get_ptr(q->entries, delay_id);
    if (entry) {
        entry->due_mono_ms = now_mono_ms(q->config.now) + after_ms;
        heap_add(q, entry);
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
}

void delayed_queue_end(struct hs_delayed *q, struct slice delay_id)
{
    pthread_mutex_lock(&q->mutex);
    struct entry *entry = map_get_ptr(q->entries, delay_id);
    if (entry) {
        drop(q, entry);
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->mutex);
}
