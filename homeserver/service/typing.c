#include "homeserver/base/json_out.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/ephemeral_priv.h"
#include "homeserver/service/users.h"

enum { ROOMS_KEPT_MAX = 10000, ROOMS_DROPPED_AT_ONCE = 1000 };

void typing_free_all(struct hs_ephemeral *ephemeral)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(ephemeral->typing, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&ephemeral->typing);
}

static void publish(struct hs_ephemeral *ephemeral, struct typing_room *entry)
{
    entry->pos = ephemeral_publish(ephemeral->hs,
                                   (struct change){.kind = CHANGE_TYPING, .room = entry->room});
}

/* Drops those whose time is over; whether there were any. */
static bool drop_stale(struct typing_room *entry, int64_t now_mono)
{
    size_t kept = 0;
    for (size_t i = 0; i < entry->count; i++) {
        if (entry->typists[i].until_mono_ms > now_mono) {
            entry->typists[kept++] = entry->typists[i];
        }
    }
    bool changed = kept != entry->count;
    entry->count = kept;
    return changed;
}

void typing_expire(struct hs_ephemeral *ephemeral)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    int64_t now = now_mono_ms(ephemeral->hs->now);
    while (map_next(ephemeral->typing, &cursor, &key, &value)) {
        struct typing_room *entry = (struct typing_room *)(uintptr_t)value;
        if (entry->count && drop_stale(entry, now)) {
            publish(ephemeral, entry);
        }
    }
}

/* Makes room for others by dropping rooms in which nobody types. */
static void drop_quiet(struct hs_ephemeral *ephemeral)
{
    struct typing_room *quiet[ROOMS_DROPPED_AT_ONCE];
    size_t count = 0;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (count < COUNT_OF(quiet) && map_next(ephemeral->typing, &cursor, &key, &value)) {
        struct typing_room *entry = (struct typing_room *)(uintptr_t)value;
        if (entry->count == 0) {
            quiet[count++] = entry;
        }
    }
    for (size_t i = 0; i < count; i++) {
        map_remove(ephemeral->typing, map_key_u64(&quiet[i]->room));
        mem_free(quiet[i]);
    }
}

static struct typing_room *room_entry(struct hs_ephemeral *ephemeral, uint64_t room)
{
    struct typing_room *entry = map_get_ptr(ephemeral->typing, map_key_u64(&room));
    if (!entry && map_count(ephemeral->typing) >= ROOMS_KEPT_MAX) {
        drop_quiet(ephemeral);
    }
    if (!entry && map_count(ephemeral->typing) < ROOMS_KEPT_MAX) {
        entry = mem_alloc(sizeof *entry);
        entry->room = room;
        map_set_ptr(ephemeral->typing, map_key_u64(&room), entry);
    }
    return entry;
}

/* Sets, renews or removes one typist; whether the list that others see changed. */
static bool set_typist(struct typing_room *entry, uint64_t user, int64_t until_mono_ms)
{
    size_t at = 0;
    while (at < entry->count && entry->typists[at].user != user) {
        at++;
    }
    if (until_mono_ms == 0) {
        if (at == entry->count) {
            return false;
        }
        entry->typists[at] = entry->typists[--entry->count];
        return true;
    }
    if (at == TYPISTS_MAX) {
        return false;
    }
    bool is_new = at == entry->count;
    entry->typists[at] = (struct typist){user, until_mono_ms};
    entry->count += is_new ? 1 : 0;
    return is_new;
}

void hs_typing_set(struct hs *hs, uint64_t room, uint64_t user, int64_t timeout_ms)
{
    struct hs_ephemeral *ephemeral = hs->ephemeral;
    int64_t until = timeout_ms > 0 ? now_mono_ms(hs->now) + timeout_ms : 0;
    pthread_mutex_lock(&ephemeral->lock);
    struct typing_room *entry = room_entry(ephemeral, room);
    if (entry && set_typist(entry, user, until)) {
        publish(ephemeral, entry);
    }
    pthread_mutex_unlock(&ephemeral->lock);
}

void hs_typing_stop(struct hs *hs, uint64_t room, uint64_t user)
{
    struct hs_ephemeral *ephemeral = hs->ephemeral;
    pthread_mutex_lock(&ephemeral->lock);
    struct typing_room *entry = map_get_ptr(ephemeral->typing, map_key_u64(&room));
    if (entry && set_typist(entry, user, 0)) {
        publish(ephemeral, entry);
    }
    pthread_mutex_unlock(&ephemeral->lock);
}

size_t hs_typing_get(struct hs *hs, struct ctx *ctx, uint64_t room, struct slice **user_ids_out,
                     uint64_t *pos_out)
{
    struct hs_ephemeral *ephemeral = hs->ephemeral;
    uint64_t users[TYPISTS_MAX];
    size_t count = 0;
    *pos_out = 0;
    pthread_mutex_lock(&ephemeral->lock);
    const struct typing_room *entry = map_get_ptr(ephemeral->typing, map_key_u64(&room));
    for (size_t i = 0; entry && i < entry->count; i++) {
        users[count++] = entry->typists[i].user;
    }
    *pos_out = entry ? entry->pos : 0;
    pthread_mutex_unlock(&ephemeral->lock);
    *user_ids_out = arena_array(ctx->arena, count, sizeof **user_ids_out);
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        struct err err = hs_user_id_of(hs, ctx, users[i], &(*user_ids_out)[known]);
        known += err.code == 0 ? 1 : 0;
    }
    return known;
}

void hs_typing_write(const struct slice *user_ids, size_t count, struct json_out *out)
{
    json_out_key_object(out, LIT("content"));
    json_out_key_array(out, LIT("user_ids"));
    for (size_t i = 0; i < count; i++) {
        json_out_string(out, user_ids[i]);
    }
    json_out_array_end(out);
    json_out_object_end(out);
}
