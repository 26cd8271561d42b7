/* Requests that wait for the content of an announced file. */
#include "homeserver/base/mem.h"
#include "homeserver/media/media_priv.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { NAME_BYTES_MAX = 1024 };

/* Two hold a wait: the list and the parked request. Whoever claims it first answers. */
struct wait {
    struct media_waits *waits;
    struct wait *next;
    struct http_parked *parked;
    char media_id[MEDIA_ID_BYTES_MAX];
    char file_name[NAME_BYTES_MAX];
    struct media_view view; /* borrows from the two above */
    bool is_listed;         /* under the lock */
    _Atomic bool claimed;
    _Atomic int refs;
};

struct media_waits {
    struct hs *hs;
    pthread_mutex_t lock; /* guards the list; nothing is called under it */
    struct wait *first;
};

struct media_waits *media_waits_new(struct hs *hs)
{
    struct media_waits *waits = mem_alloc(sizeof *waits);
    waits->hs = hs;
    pthread_mutex_init(&waits->lock, NULL);
    return waits;
}

void media_waits_free(struct media_waits **waits)
{
    if (*waits) {
        pthread_mutex_destroy(&(*waits)->lock);
        mem_free(*waits);
        *waits = NULL;
    }
}

static void release(struct wait *wait)
{
    if (atomic_fetch_sub(&wait->refs, 1) == 1) {
        mem_free(wait);
    }
}

static bool claim(struct wait *wait)
{
    return !atomic_exchange(&wait->claimed, true);
}

static struct err answer(void *arg, struct ctx *ctx, struct http_reply *reply)
{
    struct wait *wait = arg;
    struct err err = media_answer(wait->waits->hs, ctx, &wait->view, reply);
    if (err.code != ERR_WAITS || ctx->may_wait) { /* else it is asked once more */
        release(wait);
    }
    return err;
}

/* Takes the wait out of the list; the list's reference goes to the caller when it was in. */
static bool unlist(struct wait *wait)
{
    struct media_waits *waits = wait->waits;
    pthread_mutex_lock(&waits->lock);
    bool was_listed = wait->is_listed;
    struct wait **at = &waits->first;
    while (was_listed && *at != wait) {
        at = &(*at)->next;
    }
    if (was_listed) {
        *at = wait->next;
        wait->is_listed = false;
    }
    pthread_mutex_unlock(&waits->lock);
    return was_listed;
}

/* Time is over, the client has gone, or the server stops. */
static void on_expired(void *arg)
{
    struct wait *wait = arg;
    if (!claim(wait)) {
        return;
    }
    if (unlist(wait)) {
        release(wait);
    }
    http_unpark(wait->parked, answer, wait);
}

/* One listed wait for this id, out of the list with the list's reference; NULL when none is left.
 */
static struct wait *take_one(struct media_waits *waits, struct slice media_id)
{
    pthread_mutex_lock(&waits->lock);
    struct wait **at = &waits->first;
    while (*at && !slice_eq((*at)->view.media_id, media_id)) {
        at = &(*at)->next;
    }
    struct wait *wait = *at;
    if (wait) {
        *at = wait->next;
        wait->is_listed = false;
    }
    pthread_mutex_unlock(&waits->lock);
    return wait;
}

void media_waits_wake(struct media_waits *waits, struct slice media_id)
{
    for (struct wait *wait = take_one(waits, media_id); wait; wait = take_one(waits, media_id)) {
        if (claim(wait)) {
            http_unpark(wait->parked, answer, wait);
        }
        release(wait);
    }
}

static struct slice keep(char *to, size_t max, struct slice from)
{
    size_t len = from.len < max ? from.len : max;
    memcpy(to, from.ptr ? from.ptr : "", len);
    return (struct slice){to, len};
}

void media_waits_park(struct media_waits *waits, struct ctx *ctx,
                      const struct http_request *request, struct http_reply *reply,
                      const struct media_view *view, int64_t timeout_ms)
{
    struct wait *wait = mem_alloc(sizeof *wait);
    struct media media;
    bool found = false;
    wait->waits = waits;
    wait->view = *view;
    wait->view.media_id = keep(wait->media_id, sizeof wait->media_id, view->media_id);
    wait->view.file_name = keep(wait->file_name, sizeof wait->file_name, view->file_name);
    wait->view.range = (struct slice){0};
    wait->view.if_none_match = (struct slice){0};
    wait->is_listed = true;
    atomic_init(&wait->refs, 3); /* the list, the request, and this function until it is done */
    pthread_mutex_lock(&waits->lock);
    wait->parked = http_park(ctx, request, reply, timeout_ms, on_expired, wait);
    wait->next = waits->first;
    waits->first = wait;
    pthread_mutex_unlock(&waits->lock);
    /* The content may have come between the look and the list. */
    struct err err = media_find(waits->hs, ctx, wait->view.media_id, &media, &found);
    if (err.code != 0 || !found || media.is_ready) {
        media_waits_wake(waits, wait->view.media_id);
    }
    release(wait);
}
