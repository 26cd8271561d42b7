#include "homeserver/base/mem.h"
#include "homeserver/service/ephemeral_priv.h"
#include "homeserver/service/users.h"

#include <string.h>

enum {
    DEVICE_GONE_MS = 90000,  /* no sync for so long: the device is offline */
    IDLE_MS = 5 * 60 * 1000, /* spec: unavailable after about five minutes */
    ACTIVE_MS = 60 * 1000,   /* currently_active for so long after an action */
    USERS_KEPT_MAX = 200000,
    REMOTE_KEPT_MS = 30 * 60 * 1000,
    REMOTE_NEWS_MS = 60 * 1000, /* activity that is so much newer is news */
    MANUAL = 0,                 /* in place of a device: PUT presence */
};

static void unlink_user(struct hs_ephemeral *ephemeral, struct presence_user *user)
{
    if (user->newer) {
        user->newer->older = user->older;
    } else if (ephemeral->newest == user) {
        ephemeral->newest = user->older;
    }
    if (user->older) {
        user->older->newer = user->newer;
    }
    user->newer = NULL;
    user->older = NULL;
}

static void publish(struct hs_ephemeral *ephemeral, struct presence_user *user)
{
    unlink_user(ephemeral, user);
    user->pos = ephemeral_publish(ephemeral->hs,
                                  (struct change){.kind = CHANGE_PRESENCE, .user = user->user});
    user->older = ephemeral->newest;
    if (ephemeral->newest) {
        ephemeral->newest->newer = user;
    }
    ephemeral->newest = user;
}

void presence_free_all(struct hs_ephemeral *ephemeral)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(ephemeral->presence, &cursor, &key, &value)) {
        struct presence_user *user = (struct presence_user *)(uintptr_t)value;
        mem_free(user->status_owned);
        mem_free(user);
    }
    map_free(&ephemeral->presence);
}

/* The best presence of all devices that still sync. */
static enum presence aggregate(struct presence_user *user, int64_t now_mono)
{
    enum presence best = PRESENCE_OFFLINE;
    size_t kept = 0;
    for (size_t i = 0; i < user->device_count; i++) {
        const struct presence_device *device = &user->devices[i];
        if (now_mono - device->seen_mono_ms > DEVICE_GONE_MS) {
            continue;
        }
        best = device->presence > best ? device->presence : best;
        user->devices[kept++] = *device;
    }
    user->device_count = kept;
    if (best == PRESENCE_ONLINE && now_mono - user->active_mono_ms > IDLE_MS) {
        best = PRESENCE_UNAVAILABLE;
    }
    return best;
}

/* Takes over what the devices say; publishes when others see a difference. */
static void refresh(struct hs_ephemeral *ephemeral, struct presence_user *user, int64_t now_mono)
{
    enum presence presence = aggregate(user, now_mono);
    bool active = presence == PRESENCE_ONLINE && now_mono - user->active_mono_ms <= ACTIVE_MS;
    bool changed = presence != user->presence;
    user->presence = presence;
    user->currently_active = active;
    if (changed) {
        publish(ephemeral, user);
    }
}

static void expire_remote(struct hs_ephemeral *ephemeral, struct presence_user *user,
                          int64_t now_mono)
{
    if (user->presence != PRESENCE_OFFLINE && user->until_mono_ms <= now_mono) {
        user->presence = PRESENCE_OFFLINE;
        user->currently_active = false;
        publish(ephemeral, user);
    }
}

void presence_decay(struct hs_ephemeral *ephemeral)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    int64_t now = now_mono_ms(ephemeral->hs->now);
    while (map_next(ephemeral->presence, &cursor, &key, &value)) {
        struct presence_user *user = (struct presence_user *)(uintptr_t)value;
        if (user->until_mono_ms) {
            expire_remote(ephemeral, user, now);
        } else if (user->presence != PRESENCE_OFFLINE) {
            refresh(ephemeral, user, now);
        }
    }
}

static struct presence_user *user_entry(struct hs_ephemeral *ephemeral, uint64_t number)
{
    struct presence_user *user = map_get_ptr(ephemeral->presence, map_key_u64(&number));
    if (!user && map_count(ephemeral->presence) < USERS_KEPT_MAX) {
        user = mem_alloc(sizeof *user);
        user->user = number;
        map_set_ptr(ephemeral->presence, map_key_u64(&number), user);
    }
    return user;
}

static void set_device(struct presence_user *user, uint64_t hash, enum presence presence,
                       int64_t now_mono)
{
    size_t at = 0;
    while (at < user->device_count && user->devices[at].hash != hash) {
        at++;
    }
    if (at == PRESENCE_DEVICES_MAX) {
        at = 0;
        for (size_t i = 1; i < user->device_count; i++) {
            at = user->devices[i].seen_mono_ms < user->devices[at].seen_mono_ms ? i : at;
        }
    } else if (at == user->device_count) {
        user->device_count++;
    }
    user->devices[at] = (struct presence_device){hash, presence, now_mono};
}

/* What was set by hand holds until a device says otherwise. */
static void drop_manual(struct presence_user *user)
{
    for (size_t i = 0; i < user->device_count; i++) {
        if (user->devices[i].hash == MANUAL) {
            user->devices[i] = user->devices[--user->device_count];
            return;
        }
    }
}

static bool set_status(struct presence_user *user, struct slice status)
{
    struct slice old = slice_of(user->status_owned);
    struct slice kept = slice_sub(status, 0, STATUS_BYTES_MAX);
    while (kept.len < status.len && !slice_is_utf8(kept)) {
        kept.len--;
    }
    if (slice_eq(old, kept) && (user->status_owned != NULL) == (status.ptr != NULL)) {
        return false;
    }
    mem_free(user->status_owned);
    user->status_owned = NULL;
    if (status.ptr) {
        user->status_owned = mem_alloc(kept.len + 1);
        memcpy(user->status_owned, kept.ptr, kept.len);
    }
    return true;
}

void hs_presence_set(struct hs *hs, uint64_t number, enum presence presence,
                     struct slice status_msg)
{
    struct hs_ephemeral *ephemeral = hs->ephemeral;
    int64_t now = now_mono_ms(hs->now);
    if (!hs->conf->presence_enabled) {
        return;
    }
    pthread_mutex_lock(&ephemeral->lock);
    struct presence_user *user = user_entry(ephemeral, number);
    if (user) {
        uint64_t before = user->pos;
        bool status_changed = set_status(user, status_msg);
        for (size_t i = 0; i < user->device_count; i++) {
            user->devices[i].presence = presence;
        }
        set_device(user, MANUAL, presence, now);
        user->active_mono_ms = presence == PRESENCE_ONLINE ? now : user->active_mono_ms;
        refresh(ephemeral, user, now);
        if (status_changed && user->pos == before) {
            publish(ephemeral, user);
        }
    }
    pthread_mutex_unlock(&ephemeral->lock);
}

/* Whether others see a difference. */
static bool take_remote(struct presence_user *user, const struct remote_presence *given,
                        int64_t now_mono)
{
    int64_t active = now_mono - given->last_active_ago_ms;
    bool changed = set_status(user, given->status_msg);
    changed = changed || user->presence != given->presence || user->pos == 0 ||
              user->currently_active != given->currently_active ||
              active - user->active_mono_ms >= REMOTE_NEWS_MS;
    user->presence = given->presence;
    user->currently_active = given->currently_active && given->presence == PRESENCE_ONLINE;
    user->active_mono_ms = active ? active : -1;
    user->until_mono_ms = now_mono + REMOTE_KEPT_MS;
    return changed;
}

void hs_presence_set_remote(struct hs *hs, const struct remote_presence *presence)
{
    struct hs_ephemeral *ephemeral = hs->ephemeral;
    if (!hs->conf->presence_enabled) {
        return;
    }
    pthread_mutex_lock(&ephemeral->lock);
    struct presence_user *user = user_entry(ephemeral, presence->user);
    if (user && take_remote(user, presence, now_mono_ms(hs->now))) {
        publish(ephemeral, user);
    }
    pthread_mutex_unlock(&ephemeral->lock);
}

void hs_presence_touch(struct hs *hs, uint64_t number, struct slice device_id,
                       enum presence presence)
{
    struct hs_ephemeral *ephemeral = hs->ephemeral;
    int64_t now = now_mono_ms(hs->now);
    if (!hs->conf->presence_enabled || presence == PRESENCE_OFFLINE) {
        return;
    }
    pthread_mutex_lock(&ephemeral->lock);
    struct presence_user *user = user_entry(ephemeral, number);
    if (user) {
        drop_manual(user);
        set_device(user, slice_hash(device_id) | 1, presence, now);
        user->active_mono_ms = presence == PRESENCE_ONLINE ? now : user->active_mono_ms;
        refresh(ephemeral, user, now);
    }
    pthread_mutex_unlock(&ephemeral->lock);
}

/* Under the lock; the user id is filled in afterwards. */
static struct presence_state state_of(struct ctx *ctx, const struct presence_user *user,
                                      int64_t now_mono)
{
    struct presence_state state = {.user = user->user,
                                   .presence = user->presence,
                                   .last_active_ago_ms = -1,
                                   .currently_active = user->currently_active,
                                   .pos = user->pos};
    if (user->active_mono_ms) {
        state.last_active_ago_ms = now_mono - user->active_mono_ms;
    }
    if (user->status_owned) {
        state.status_msg = arena_copy(ctx->arena, slice_of(user->status_owned));
    }
    return state;
}

bool hs_presence_get(struct hs *hs, struct ctx *ctx, uint64_t number, struct presence_state *out)
{
    struct hs_ephemeral *ephemeral = hs->ephemeral;
    pthread_mutex_lock(&ephemeral->lock);
    const struct presence_user *user = map_get_ptr(ephemeral->presence, map_key_u64(&number));
    if (user) {
        *out = state_of(ctx, user, now_mono_ms(hs->now));
    }
    pthread_mutex_unlock(&ephemeral->lock);
    return user && hs_user_id_of(hs, ctx, number, &out->user_id).code == 0;
}

size_t hs_presence_since(struct hs *hs, struct ctx *ctx, uint64_t since, uint64_t upto,
                         struct presence_state **out)
{
    struct hs_ephemeral *ephemeral = hs->ephemeral;
    int64_t now = now_mono_ms(hs->now);
    size_t count = 0;
    pthread_mutex_lock(&ephemeral->lock);
    for (const struct presence_user *u = ephemeral->newest; u && u->pos > since; u = u->older) {
        count++;
    }
    struct presence_state *states = arena_array(ctx->arena, count, sizeof *states);
    size_t at = count;
    for (const struct presence_user *u = ephemeral->newest; u && u->pos > since; u = u->older) {
        states[--at] = state_of(ctx, u, now);
    }
    pthread_mutex_unlock(&ephemeral->lock);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (states[i].pos <= upto &&
            hs_user_id_of(hs, ctx, states[i].user, &states[i].user_id).code == 0) {
            states[kept++] = states[i];
        }
    }
    *out = states;
    return kept;
}
