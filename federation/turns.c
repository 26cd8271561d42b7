#include "federation/turns.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <string.h>

enum {
    ORIGINS_MAX = 2048,          /* remembered; those at work come on top */
    ANSWERS_KEPT = 3,            /* of each */
    WAITING_MAX = 4,             /* of one origin */
    WAITING_BYTES_MAX = 64 << 20 /* of all together */
};

struct answer {
    char *txn_id_owned, *body_owned;
    size_t txn_id_len, body_len;
    uint64_t ticket;
};

struct origin {
    char *name_owned;
    size_t name_len;
    struct origin *older, *newer; /* by last use */
    bool busy;
    struct turn *first;
    size_t waiting;
    struct answer answers[ANSWERS_KEPT]; /* newest first */
};

struct turns {
    pthread_mutex_t mutex;
    struct map *by_name;
    struct origin *oldest, *newest;
    size_t count, waiting_bytes;
};

struct turns *turns_new(void)
{
    struct turns *turns = mem_alloc(sizeof *turns);
    pthread_mutex_init(&turns->mutex, NULL);
    turns->by_name = map_new();
    return turns;
}

static void clear_answer(struct answer *answer)
{
    mem_free(answer->txn_id_owned);
    mem_free(answer->body_owned);
    *answer = (struct answer){0};
}

static void unlink_origin(struct turns *turns, struct origin *origin)
{
    *(origin->older ? &origin->older->newer : &turns->oldest) = origin->newer;
    *(origin->newer ? &origin->newer->older : &turns->newest) = origin->older;
    origin->older = origin->newer = NULL;
}

static void link_newest(struct turns *turns, struct origin *origin)
{
    origin->older = turns->newest;
    *(turns->newest ? &turns->newest->newer : &turns->oldest) = origin;
    turns->newest = origin;
}

static void drop(struct turns *turns, struct origin *origin)
{
    unlink_origin(turns, origin);
    map_remove(turns->by_name, (struct slice){origin->name_owned, origin->name_len});
    for (size_t i = 0; i < ANSWERS_KEPT; i++) {
        clear_answer(&origin->answers[i]);
    }
    mem_free(origin->name_owned);
    mem_free(origin);
    turns->count--;
}

void turns_free(struct turns **pointer)
{
    struct turns *turns = *pointer;
    if (!turns) {
        return;
    }
    while (turns->oldest) {
        drop(turns, turns->oldest);
    }
    map_free(&turns->by_name);
    pthread_mutex_destroy(&turns->mutex);
    mem_free(turns);
    *pointer = NULL;
}

static char *copy_bytes(struct slice bytes)
{
    char *copy = mem_alloc_raw(bytes.len + 1);
    memcpy(copy, bytes.ptr, bytes.len);
    return copy;
}

static void drop_idle(struct turns *turns)
{
    struct origin *next = NULL;
    for (struct origin *origin = turns->oldest; origin && turns->count >= ORIGINS_MAX;
         origin = next) {
        next = origin->newer;
        if (!origin->busy) {
            drop(turns, origin);
        }
    }
}

static struct origin *get(struct turns *turns, struct slice name)
{
    struct origin *origin = map_get_ptr(turns->by_name, name);
    if (origin) {
        unlink_origin(turns, origin);
        link_newest(turns, origin);
        return origin;
    }
    drop_idle(turns);
    origin = mem_alloc(sizeof *origin);
    origin->name_owned = copy_bytes(name);
    origin->name_len = name.len;
    map_set_ptr(turns->by_name, name, origin);
    link_newest(turns, origin);
    turns->count++;
    return origin;
}

bool turns_enter(struct turns *turns, struct slice name)
{
    pthread_mutex_lock(&turns->mutex);
    struct origin *origin = get(turns, name);
    bool entered = !origin->busy;
    origin->busy = true;
    pthread_mutex_unlock(&turns->mutex);
    return entered;
}

/* Who comes next, taken out of the queue; NULL: nobody, and the origin is idle. */
static struct turn *take_next(struct turns *turns, struct slice name)
{
    pthread_mutex_lock(&turns->mutex);
    struct origin *origin = map_get_ptr(turns->by_name, name);
    struct turn *turn = origin ? origin->first : NULL;
    if (turn) {
        origin->first = turn->next;
        origin->waiting--;
        turns->waiting_bytes -= turn->bytes;
    } else if (origin) {
        origin->busy = false;
    }
    pthread_mutex_unlock(&turns->mutex);
    return turn;
}

void turns_leave(struct turns *turns, struct slice name)
{
    struct turn *turn = take_next(turns, name);
    while (turn && !turn->wake(turn)) {
        turn = take_next(turns, name);
    }
}

/* One that found the origin busy may come too late to wait: then its turn begins at once. */
bool turns_queue(struct turns *turns, struct slice name, struct turn *turn)
{
    pthread_mutex_lock(&turns->mutex);
    struct origin *origin = get(turns, name);
    bool fits =
        origin->waiting < WAITING_MAX && turns->waiting_bytes + turn->bytes <= WAITING_BYTES_MAX;
    bool now = !origin->busy;
    turn->next = NULL;
    if (now) {
        origin->busy = true;
    } else if (fits) {
        struct turn **at = &origin->first;
        while (*at) {
            at = &(*at)->next;
        }
        *at = turn;
        origin->waiting++;
        turns->waiting_bytes += turn->bytes;
    }
    pthread_mutex_unlock(&turns->mutex);
    if (now && !turn->wake(turn)) {
        turns_leave(turns, name);
    }
    return now || fits;
}

bool turns_withdraw(struct turns *turns, struct slice name, struct turn *turn)
{
    bool found = false;
    pthread_mutex_lock(&turns->mutex);
    struct origin *origin = map_get_ptr(turns->by_name, name);
    for (struct turn **at = origin ? &origin->first : NULL; at && *at; at = &(*at)->next) {
        if (*at == turn) {
            *at = turn->next;
            origin->waiting--;
            turns->waiting_bytes -= turn->bytes;
            found = true;
            break;
        }
    }
    pthread_mutex_unlock(&turns->mutex);
    return found;
}

bool turns_recall(struct turns *turns, struct slice name, struct slice txn_id, struct buf *out,
                  uint64_t *ticket_out)
{
    bool found = false;
    pthread_mutex_lock(&turns->mutex);
    const struct origin *origin = map_get_ptr(turns->by_name, name);
    for (size_t i = 0; origin && i < ANSWERS_KEPT && !found; i++) {
        const struct answer *answer = &origin->answers[i];
        found = answer->body_owned &&
                slice_eq((struct slice){answer->txn_id_owned, answer->txn_id_len}, txn_id);
        if (found) {
            buf_add(out, (struct slice){answer->body_owned, answer->body_len});
            *ticket_out = answer->ticket;
        }
    }
    pthread_mutex_unlock(&turns->mutex);
    return found;
}

void turns_remember(struct turns *turns, struct slice name, struct slice txn_id, struct slice body,
                    uint64_t ticket)
{
    struct answer answer = {.txn_id_owned = copy_bytes(txn_id),
                            .txn_id_len = txn_id.len,
                            .body_owned = copy_bytes(body),
                            .body_len = body.len,
                            .ticket = ticket};
    pthread_mutex_lock(&turns->mutex);
    struct origin *origin = get(turns, name);
    clear_answer(&origin->answers[ANSWERS_KEPT - 1]);
    memmove(&origin->answers[1], &origin->answers[0],
            (ANSWERS_KEPT - 1) * sizeof origin->answers[0]);
    origin->answers[0] = answer;
    pthread_mutex_unlock(&turns->mutex);
}
