#include "homeserver/base/mem.h"
#include "homeserver/service/ephemeral_priv.h"

#include <time.h>

static void *expire_loop(void *arg)
{
    struct hs_ephemeral *ephemeral = arg;
    pthread_mutex_lock(&ephemeral->lock);
    while (!ephemeral->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&ephemeral->wake, &ephemeral->lock, &until);
        if (!ephemeral->stopping) {
            typing_expire(ephemeral);
            presence_decay(ephemeral);
        }
    }
    pthread_mutex_unlock(&ephemeral->lock);
    return NULL;
}

struct hs_ephemeral *hs_ephemeral_new(struct hs *hs)
{
    struct hs_ephemeral *ephemeral = mem_alloc(sizeof *ephemeral);
    ephemeral->hs = hs;
    ephemeral->typing = map_new();
    ephemeral->presence = map_new();
    pthread_mutex_init(&ephemeral->lock, NULL);
    pthread_cond_init(&ephemeral->wake, NULL);
    int failed = pthread_create(&ephemeral->thread, NULL, expire_loop, ephemeral);
    ASSERT(failed == 0);
    return ephemeral;
}

void hs_ephemeral_free(struct hs_ephemeral **ephemeral)
{
    struct hs_ephemeral *e = *ephemeral;
    if (!e) {
        return;
    }
    pthread_mutex_lock(&e->lock);
    e->stopping = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    typing_free_all(e);
    presence_free_all(e);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
    mem_free(e);
    *ephemeral = NULL;
}

uint64_t ephemeral_publish(struct hs *hs, struct change change)
{
    change.pos = positions_reserve(hs->positions);
    positions_complete(hs->positions, &change, 0);
    return change.pos;
}
