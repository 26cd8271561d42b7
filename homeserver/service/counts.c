/* Notification counts, counted when somebody asks: a message costs nothing for those who are away.
 * What was counted is kept in memory, so that asking again costs only what came since.
 * Spec: client-server, "Receiving notifications", "Threaded read receipts". */
#include "homeserver/base/mem.h"
#include "homeserver/room/relates.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/prefs_priv.h"
#include "homeserver/service/room_priv.h"

#include <string.h>

enum {
    SCAN_EVENTS_MAX = 2000, /* no more than the newest so many are looked at */
    SCAN_PAGE = 200,
    THREADS_MAX = 256,
    THREAD_HOPS_MAX = 3,
};

struct tally {
    char *root_owned; /* NULL = the main timeline */
    size_t root_len;
    uint32_t notify, highlight;
};

struct count_cache {
    uint64_t ignored_version;
    uint64_t receipt_pos; /* newest own receipt that was taken into account */
    int64_t joined_number;
    int64_t counted;             /* up to this event */
    struct tally *tallies_owned; /* THREADS_MAX at most */
    size_t tally_cap;
    size_t tally_count; /* the first is the main timeline */
};

struct counting {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    uint64_t user;
    struct slice user_id;
    struct receipts receipts;
    struct count_cache *cache;
    const struct push_rules *rules;
    struct push_target target;
    struct power_levels levels;
    bool ready; /* rules and target are loaded */
};

static void free_cache(struct count_cache *cache)
{
    if (!cache) {
        return;
    }
    for (size_t i = 0; i < cache->tally_count; i++) {
        mem_free(cache->tallies_owned[i].root_owned);
    }
    mem_free(cache->tallies_owned);
    mem_free(cache);
}

void counts_free_all(struct hs_prefs *prefs)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(prefs->counts, &cursor, &key, &value)) {
        free_cache((struct count_cache *)(uintptr_t)value);
    }
}

static struct slice cache_key(struct ctx *ctx, uint64_t user, uint64_t room)
{
    return arena_concat(ctx->arena, store_id_u64(ctx->arena, user), store_id_u64(ctx->arena, room));
}

/* Takes the cache out, so that two jobs never work on one; the second counts anew. */
static struct count_cache *take_cache(struct hs_prefs *prefs, struct slice key)
{
    pthread_mutex_lock(&prefs->lock);
    struct count_cache *cache = map_get_ptr(prefs->counts, key);
    map_remove(prefs->counts, key);
    pthread_mutex_unlock(&prefs->lock);
    return cache;
}

static void put_cache(struct hs_prefs *prefs, struct slice key, struct count_cache *cache)
{
    pthread_mutex_lock(&prefs->lock);
    if (map_count(prefs->counts) >= COUNTS_MAX) {
        counts_free_all(prefs);
        map_free(&prefs->counts);
        prefs->counts = map_new();
    }
    free_cache(map_get_ptr(prefs->counts, key));
    map_set_ptr(prefs->counts, key, cache);
    pthread_mutex_unlock(&prefs->lock);
}

static struct tally *tally_of(struct count_cache *cache, struct slice root)
{
    for (size_t i = 0; i < cache->tally_count; i++) {
        struct tally *tally = &cache->tallies_owned[i];
        if (slice_eq((struct slice){tally->root_owned, tally->root_len}, root)) {
            return tally;
        }
    }
    if (cache->tally_count == THREADS_MAX) {
        return &cache->tallies_owned[0];
    }
    if (cache->tally_count == cache->tally_cap) {
        cache->tally_cap = cache->tally_cap ? cache->tally_cap * 4 : 1;
        cache->tallies_owned =
            mem_grow(cache->tallies_owned, cache->tally_cap * sizeof *cache->tallies_owned);
    }
    struct tally *tally = &cache->tallies_owned[cache->tally_count++];
    *tally = (struct tally){.root_len = root.len};
    if (root.len) {
        tally->root_owned = mem_alloc_raw(root.len);
        memcpy(tally->root_owned, root.ptr, root.len);
    }
    return tally;
}

/* Relations are followed for a few hops. */
struct err counts_thread_of(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct stored_event *event, struct thread_place *place_out)
{
    struct stored_event at = *event;
    *place_out = (struct thread_place){.anchor = event->event.id.s};
    for (int hop = 0; hop <= THREAD_HOPS_MAX; hop++) {
        struct event_id root = relates_thread_root(at.event.content);
        struct relation relation = relates_parse(at.event.content);
        bool found = false;
        if (root.s.len) {
            place_out->root = root.s;
            return OK;
        }
        if (relation.rel_type.len == 0 || relation.event_id.s.len == 0) {
            return OK;
        }
        place_out->anchor = relation.event_id.s;
        TRY(hs_event_find(hs, ctx, room, relation.event_id.s, &at, &found));
        if (!found) {
            return OK;
        }
    }
    return OK;
}

/* The newest event read in a thread: unthreaded receipts count everywhere. */
static int64_t read_upto(const struct counting *c, struct slice root)
{
    int64_t newest = 0;
    for (size_t i = 0; i < c->receipts.count; i++) {
        const struct receipt *receipt = &c->receipts.items[i];
        struct slice thread = root.len ? root : LIT("main");
        bool applies = !receipt->thread.ptr || slice_eq(receipt->thread, thread);
        if (applies && receipt->number > newest) {
            newest = receipt->number;
        }
    }
    return newest;
}

static struct err get_ready(struct counting *c)
{
    struct stored_event create;
    struct stored_event levels;
    struct room_member member;
    bool has_create = false;
    bool has_levels = false;
    bool found = false;
    if (c->ready) {
        return OK;
    }
    uint64_t root = hs_room_head(c->room).root;
    TRY(hs_push_rules_get(c->hs, c->ctx, c->user, &c->rules));
    TRY(hs_state_event(c->hs, c->ctx, c->room, root, LIT("m.room.create"), LIT(""), &create,
                       &has_create));
    TRY(hs_state_event(c->hs, c->ctx, c->room, root, LIT("m.room.power_levels"), LIT(""), &levels,
                       &has_levels));
    TRY(hs_room_member(c->hs, c->ctx, c->room, c->user, &member, &found));
    struct event *kept = arena_array(c->ctx->arena, 2, sizeof *kept);
    kept[0] = create.event;
    kept[1] = levels.event;
    c->levels =
        power_load(c->room->rules, has_create ? &kept[0] : NULL, has_levels ? &kept[1] : NULL);
    c->target =
        (struct push_target){.user = ids_trust_user(c->user_id),
                             .display_name = found ? member.display_name : (struct slice){0},
                             .member_count = hs_room_head(c->room).joined_count,
                             .levels = &c->levels};
    c->ready = true;
    return OK;
}

static struct err count_event(struct counting *c, const struct stored_event *event)
{
    struct thread_place place;
    bool ignored = false;
    if (event->flags & EVENT_REDACTED) {
        return OK;
    }
    TRY(counts_thread_of(c->hs, c->ctx, c->room, event, &place));
    struct tally *tally = tally_of(c->cache, place.root);
    if (event->sender == c->user) {
        /* Who speaks has read. */
        tally->notify = 0;
        tally->highlight = 0;
        return OK;
    }
    if (event->number <= read_upto(c, place.root)) {
        return OK;
    }
    TRY(hs_is_ignored(c->hs, c->ctx, c->user, event->event.sender.s, &ignored));
    if (ignored) {
        return OK;
    }
    TRY(get_ready(c));
    struct push_verdict verdict = push_rules_evaluate(c->rules, &event->event, &c->target);
    tally->notify += verdict.notify ? 1 : 0;
    tally->highlight += verdict.notify && verdict.highlight ? 1 : 0;
    return OK;
}

static struct err scan(struct counting *c, int64_t last)
{
    int64_t oldest = last - SCAN_EVENTS_MAX;
    if (c->cache->counted < oldest) {
        c->cache->counted = oldest;
    }
    while (c->cache->counted < last) {
        struct stored_events events;
        struct event_range range = {
            .from = c->cache->counted, .to = last + 1, .limit = SCAN_PAGE, .order = EVENTS_FORWARD};
        TRY(hs_events_read(c->hs, c->ctx, c->room, range, &events));
        for (size_t i = 0; i < events.count; i++) {
            TRY(count_event(c, &events.items[i]));
        }
        c->cache->counted = events.count < SCAN_PAGE ? last : events.items[events.count - 1].number;
    }
    return OK;
}

static void write_counts(const struct counting *c, struct unread_counts *counts)
{
    *counts = (struct unread_counts){0};
    counts->threads = arena_array(c->ctx->arena, c->cache->tally_count, sizeof *counts->threads);
    for (size_t i = 0; i < c->cache->tally_count; i++) {
        const struct tally *tally = &c->cache->tallies_owned[i];
        counts->notify_all += tally->notify;
        counts->highlight_all += tally->highlight;
        if (tally->root_len == 0) {
            counts->main.notify = tally->notify;
            counts->main.highlight = tally->highlight;
        } else if (tally->notify || tally->highlight) {
            struct slice root = {tally->root_owned, tally->root_len};
            counts->threads[counts->thread_count++] = (struct thread_count){
                arena_copy(c->ctx->arena, root), tally->notify, tally->highlight};
        }
    }
}

static uint64_t newest_receipt(const struct receipts *receipts)
{
    uint64_t newest = 0;
    for (size_t i = 0; i < receipts->count; i++) {
        newest = receipts->items[i].pos > newest ? receipts->items[i].pos : newest;
    }
    return newest;
}

/* What was counted stays counted when rules change: they decide about events that come later.
 * A cache that still holds, or an empty one that starts where nothing before can be unread. */
static struct count_cache *usable_cache(struct counting *c, struct count_cache *cache,
                                        const struct user_room *entry, int64_t last)
{
    uint64_t version = prefs_ignored_version(c->hs, c->user);
    uint64_t receipt_pos = newest_receipt(&c->receipts);
    if (cache && cache->ignored_version == version && cache->receipt_pos == receipt_pos &&
        cache->joined_number == entry->joined_number && cache->counted <= last) {
        return cache;
    }
    free_cache(cache);
    cache = mem_alloc(sizeof *cache);
    cache->ignored_version = version;
    cache->receipt_pos = receipt_pos;
    cache->joined_number = entry->joined_number;
    cache->counted = entry->joined_number;
    for (size_t i = 0; i < c->receipts.count; i++) {
        const struct receipt *receipt = &c->receipts.items[i];
        if (!receipt->thread.ptr && receipt->number > cache->counted) {
            cache->counted = receipt->number;
        }
    }
    tally_of(cache, (struct slice){0});
    return cache;
}

struct err hs_unread_counts(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                            uint64_t upto, struct unread_counts *counts_out)
{
    struct counting counting = {.hs = hs, .ctx = ctx, .room = room, .user = user};
    struct user_room entry;
    struct room_member member;
    int64_t last = 0;
    uint64_t root = 0;
    bool found = false;
    *counts_out = (struct unread_counts){0};
    TRY(hs_user_room(hs, ctx, user, room->number, &entry, &found));
    if (!found || entry.membership != MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(hs_room_member(hs, ctx, room, user, &member, &found));
    counting.user_id = member.user_id;
    TRY(hs_room_at(hs, ctx, room, upto, &last, &root));
    TRY(hs_receipts_of_user(hs, ctx, room, user, &counting.receipts));
    struct slice key = cache_key(ctx, user, room->number);
    counting.cache = usable_cache(&counting, take_cache(hs->prefs, key), &entry, last);
    struct err err = scan(&counting, last);
    if (err.code != 0) {
        free_cache(counting.cache);
        return err;
    }
    write_counts(&counting, counts_out);
    put_cache(hs->prefs, key, counting.cache);
    return OK;
}
