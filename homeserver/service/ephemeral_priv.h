/* What typing and presence keep in memory. One thread lets stale entries expire. */
#pragma once
#include "homeserver/base/map.h"
#include "homeserver/service/ephemeral.h"

#include <pthread.h>

enum { TYPISTS_MAX = 64, PRESENCE_DEVICES_MAX = 16, STATUS_BYTES_MAX = 1024 };

struct typist {
    uint64_t user;
    int64_t until_mono_ms;
};

struct typing_room {
    uint64_t room;
    uint64_t pos; /* of the last change */
    struct typist typists[TYPISTS_MAX];
    size_t count;
};

struct presence_device {
    uint64_t hash; /* of the device id */
    enum presence presence;
    int64_t seen_mono_ms;
};

struct presence_user {
    uint64_t user;
    uint64_t pos;
    enum presence presence; /* shown */
    bool currently_active;
    int64_t active_mono_ms; /* last active, 0 = never here */
    int64_t until_mono_ms;  /* of a remote user: what was said holds until then; 0 = local */
    char *status_owned;     /* NUL-terminated; NULL = none */
    struct presence_device devices[PRESENCE_DEVICES_MAX];
    size_t device_count;
    struct presence_user *newer, *older; /* by position */
};

struct hs_ephemeral {
    struct hs *hs;
    pthread_mutex_t lock; /* rank 40: everything below */
    pthread_cond_t wake;
    pthread_t thread;
    bool stopping;
    struct map *typing;   /* room -> struct typing_room * */
    struct map *presence; /* user -> struct presence_user * */
    struct presence_user *newest;
};

/* Called every second by the thread, under the lock. */
void typing_expire(struct hs_ephemeral *ephemeral);
void presence_decay(struct hs_ephemeral *ephemeral);
void typing_free_all(struct hs_ephemeral *ephemeral);
void presence_free_all(struct hs_ephemeral *ephemeral);
/* A position for a change that is not stored, published at once. */
uint64_t ephemeral_publish(struct hs *hs, struct change change);
