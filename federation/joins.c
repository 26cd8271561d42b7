#include "federation/joins.h"

#include "federation/fed_priv.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/workers.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

enum { INVITE_WAIT_SECONDS = 10, JOIN_WAIT_SECONDS = 60 };

struct fed_joins {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct map *under_way; /* "i" room NUL user, or "j" room -> how many */
};

struct fed_joins *fed_joins_new(void)
{
    struct fed_joins *joins = mem_alloc(sizeof *joins);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&joins->mutex, NULL);
    pthread_cond_init(&joins->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    joins->under_way = map_new();
    return joins;
}

void fed_joins_free(struct fed_joins **joins)
{
    if (*joins) {
        map_free(&(*joins)->under_way);
        pthread_cond_destroy(&(*joins)->changed);
        pthread_mutex_destroy(&(*joins)->mutex);
        mem_free(*joins);
        *joins = NULL;
    }
}

/* A key on the stack; ids have at most 255 bytes. */
struct way {
    char bytes[600];
    size_t len;
};

static void way_add(struct way *way, struct slice s)
{
    for (size_t i = 0; i < s.len && way->len < sizeof way->bytes; i++) {
        way->bytes[way->len++] = s.ptr[i];
    }
}

static struct way invite_way(struct slice room_id, struct slice user_id)
{
    struct way way = {.len = 0};
    way_add(&way, LIT("i"));
    way_add(&way, room_id);
    way_add(&way, (struct slice){"", 1});
    way_add(&way, user_id);
    return way;
}

static struct way join_way(struct slice room_id)
{
    struct way way = {.len = 0};
    way_add(&way, LIT("j"));
    way_add(&way, room_id);
    return way;
}

static struct slice key_of(const struct way *way)
{
    return (struct slice){way->bytes, way->len};
}

static uint64_t count_of(const struct fed_joins *joins, const struct way *way)
{
    uint64_t count = 0;
    return map_get(joins->under_way, key_of(way), &count) ? count : 0;
}

static void add(struct fed_joins *joins, const struct way *way)
{
    map_set(joins->under_way, key_of(way), count_of(joins, way) + 1);
}

static void take(struct fed_joins *joins, const struct way *way)
{
    pthread_mutex_lock(&joins->mutex);
    uint64_t count = count_of(joins, way);
    if (count > 1) {
        map_set(joins->under_way, key_of(way), count - 1);
    } else {
        map_remove(joins->under_way, key_of(way));
    }
    pthread_cond_broadcast(&joins->changed);
    pthread_mutex_unlock(&joins->mutex);
}

/* With the mutex held. False when the time is over. */
static bool wait_for_none(struct fed_joins *joins, const struct way *way, int seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    while (count_of(joins, way)) {
        if (pthread_cond_timedwait(&joins->changed, &joins->mutex, &until) == ETIMEDOUT) {
            return false;
        }
    }
    return true;
}

void fed_invite_begin(struct fed *fed, struct slice room_id, struct slice user_id)
{
    struct way way = invite_way(room_id, user_id);
    pthread_mutex_lock(&fed->joins->mutex);
    add(fed->joins, &way);
    pthread_mutex_unlock(&fed->joins->mutex);
}

void fed_invite_end(struct fed *fed, struct slice room_id, struct slice user_id)
{
    struct way way = invite_way(room_id, user_id);
    take(fed->joins, &way);
}

struct err fed_invite_await(struct fed *fed, struct ctx *ctx, struct slice room_id,
                            struct slice user_id)
{
    struct way way = invite_way(room_id, user_id);
    struct err err = OK;
    pthread_mutex_lock(&fed->joins->mutex);
    if (count_of(fed->joins, &way) && !ctx->may_wait) {
        err = err_make(ERR_WAITS, "an invite is under way");
    } else {
        wait_for_none(fed->joins, &way, INVITE_WAIT_SECONDS);
    }
    pthread_mutex_unlock(&fed->joins->mutex);
    return err;
}

struct err fed_join_enter(struct fed *fed, struct slice room_id)
{
    struct way way = join_way(room_id);
    struct err err = OK;
    pthread_mutex_lock(&fed->joins->mutex);
    if (wait_for_none(fed->joins, &way, JOIN_WAIT_SECONDS)) {
        add(fed->joins, &way);
    } else {
        err = err_public(ERR_TIMEOUT, "Another join of this room takes very long; try again.");
    }
    pthread_mutex_unlock(&fed->joins->mutex);
    return err;
}

void fed_join_leave(struct fed *fed, struct slice room_id)
{
    struct way way = join_way(room_id);
    take(fed->joins, &way);
}
