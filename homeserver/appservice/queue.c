#include "homeserver/appservice/as_priv.h"
#include "homeserver/base/mem.h"

#include <string.h>

struct as_queue *as_queue_find(struct as *as, struct slice id)
{
    for (size_t i = 0; i < as->queue_count; i++) {
        if (slice_eq(as->queues[i]->id_owned, id)) {
            return as->queues[i];
        }
    }
    return NULL;
}

static struct as_queue *queue_new(struct as *as, struct slice id)
{
    struct as_queue *queue = mem_alloc(sizeof *queue + id.len);
    char *bytes = (char *)(queue + 1);
    memcpy(bytes, id.ptr, id.len);
    queue->as = as;
    queue->id_owned = (struct slice){bytes, id.len};
    queue->has_work = true; /* of the last run, perhaps */
    as->queues[as->queue_count++] = queue;
    return queue;
}

void as_queues_match(struct as *as, const struct appservice_table *table)
{
    for (size_t i = 0; i < as->queue_count; i++) {
        as->queues[i]->service = NULL;
    }
    for (size_t i = 0; i < table->count; i++) {
        const struct appservice *service = &table->items[i];
        struct as_queue *queue = as_queue_find(as, service->id);
        as->by_index[i] = NULL;
        if (!service->url.ptr || (!queue && as->queue_count == COUNT_OF(as->queues))) {
            continue;
        }
        queue = queue ? queue : queue_new(as, service->id);
        queue->service = service;
        as->by_index[i] = queue;
    }
    as->table = table;
}

void as_queue_wake(struct as_queue *queue)
{
    pthread_mutex_lock(&queue->as->lock);
    queue->has_work = true;
    pthread_mutex_unlock(&queue->as->lock);
}

int64_t as_pump(struct as *as)
{
    int64_t now = now_wall_ms(as->hs->now);
    int64_t next = 0;
    pthread_mutex_lock(&as->lock);
    for (size_t i = 0; i < as->queue_count && !as->is_stopping; i++) {
        struct as_queue *queue = as->queues[i];
        bool waits = queue->state == AS_WAITING && !queue->is_forced && queue->next_try_ms > now;
        if (!queue->service || !queue->has_work || queue->state == AS_SENDING) {
            continue;
        }
        if (waits) {
            next = next == 0 || queue->next_try_ms < next ? queue->next_try_ms : next;
        } else if (workers_submit(as->hs->waiters, 0, as_send_job, queue)) {
            queue->state = AS_SENDING;
            queue->is_forced = false;
            as->sending++;
        } else {
            next = now + AS_PAUSE_MS_MIN;
        }
    }
    pthread_mutex_unlock(&as->lock);
    return next;
}

/* --- what is not durable --- */

static void unlink_after(struct as_queue *queue, struct as_passing *before)
{
    struct as_passing *gone = before ? before->next : queue->first;
    struct as_passing **link = before ? &before->next : &queue->first;
    *link = gone->next;
    queue->last = queue->last == gone ? before : queue->last;
    queue->passing_count--;
    mem_free(gone);
}

void as_pass(struct as_queue *queue, struct slice key, struct slice json)
{
    struct as_passing *before = NULL;
    for (struct as_passing *one = queue->first; one; before = one, one = one->next) {
        if (slice_eq(one->key, key)) {
            unlink_after(queue, before);
            break;
        }
    }
    if (queue->passing_count == AS_EPHEMERAL_MAX) {
        unlink_after(queue, NULL);
    }
    struct as_passing *passing = mem_alloc(sizeof *passing + key.len + json.len);
    memcpy(passing->bytes, key.ptr, key.len);
    memcpy(passing->bytes + key.len, json.ptr, json.len);
    passing->key = (struct slice){passing->bytes, key.len};
    passing->json = (struct slice){passing->bytes + key.len, json.len};
    *(queue->last ? &queue->last->next : &queue->first) = passing;
    queue->last = passing;
    queue->passing_count++;
    queue->has_work = true;
}

void as_passing_drop(struct as_queue *queue)
{
    while (queue->first) {
        unlink_after(queue, NULL);
    }
}

struct slice as_passing_take(struct as_queue *queue, struct ctx *ctx, size_t *count_out)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, SIZE_MAX / 2);
    pthread_mutex_lock(&queue->as->lock);
    *count_out = queue->passing_count;
    for (const struct as_passing *one = queue->first; one; one = one->next) {
        if (out.len > 0) {
            buf_add_byte(&out, ',');
        }
        buf_add(&out, one->json);
    }
    as_passing_drop(queue);
    pthread_mutex_unlock(&queue->as->lock);
    return buf_slice(&out);
}

/* --- operators --- */

void as_look(struct as *as, struct slice id, struct as_look_at *look_out)
{
    static const struct slice names[] = {{"idle", 4}, {"sending", 7}, {"waiting", 7}};
    *look_out = (struct as_look_at){0};
    if (!as) {
        return;
    }
    pthread_mutex_lock(&as->lock);
    const struct as_queue *queue = as_queue_find(as, id);
    if (queue && queue->service) {
        look_out->state = names[queue->state];
        look_out->next_try_ms = queue->state == AS_WAITING ? queue->next_try_ms : 0;
        look_out->ephemeral = queue->passing_count;
    } else {
        look_out->state = LIT("off");
    }
    pthread_mutex_unlock(&as->lock);
}

size_t as_retry(struct as *as, struct slice id)
{
    size_t count = 0;
    pthread_mutex_lock(&as->lock);
    for (size_t i = 0; i < as->queue_count; i++) {
        struct as_queue *queue = as->queues[i];
        bool wanted = id.len == 0 || slice_eq(queue->id_owned, id);
        if (wanted && queue->state == AS_WAITING) {
            queue->is_forced = true;
            count++;
        }
    }
    pthread_mutex_unlock(&as->lock);
    hs_tail_poke(as->tail);
    return count;
}
