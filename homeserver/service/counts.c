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
    SCAN_PAGE = 64,
    SKIP_PAGE = 32,
    UNREAD_MAX = 2000, /* events kept for one user and room: a count goes no higher */
    UNREAD_KEPT_MAX = 4000000,
    THREADS_MAX = 256,
    THREAD_HOPS_MAX = 3,
};

/* An event that notifies. */
struct unread {
    int64_t number;
    uint32_t thread; /* index of its root */
    uint16_t highlight;
    uint16_t call; /* an invite to a call */
};

struct thread_root {
    char *id_owned; /* NULL = the main timeline */
    size_t len;
};

/* What is unread, event by event: receipts only ever take away from it. */
struct count_cache {
    uint64_t ignored_version;
    uint64_t receipt_pos;      /* newest own receipt that was taken into account */
    uint64_t room_receipt_pos; /* newest receipt of anybody when own ones were read */
    int64_t receipts_upto;     /* the newest event that own receipts name */
    uint64_t name_root;        /* the state in which display_name_owned is the user's name */
    int64_t name_redaction;
    char *display_name_owned;
    size_t display_name_len;
    int64_t joined_number;
    int64_t counted;             /* up to this event */
    struct unread *unread_owned; /* by number; UNREAD_MAX at most */
    size_t unread_count, unread_cap;
    struct thread_root *roots_owned; /* the first is the main timeline; THREADS_MAX at most */
    size_t root_count, root_cap;
};

struct counting {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    uint64_t user;
    struct slice user_id;
    int64_t joined_number;
    int64_t last; /* the newest event to count */
    struct receipts receipts;
    struct count_cache *cache;
    const struct push_rules *rules;
    struct push_target target;
    const struct power_levels *levels;
    struct facts_word localpart, name;
    bool ready;      /* rules and target are loaded */
    bool is_default; /* the rules; and the user ignores nobody */
};

static void free_cache(struct count_cache *cache)
{
    if (!cache) {
        return;
    }
    for (size_t i = 0; i < cache->root_count; i++) {
        mem_free(cache->roots_owned[i].id_owned);
    }
    mem_free(cache->roots_owned);
    mem_free(cache->unread_owned);
    mem_free(cache->display_name_owned);
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
    prefs->unread_kept = 0;
}

static struct slice cache_key(struct ctx *ctx, uint64_t user, uint64_t room)
{
    return arena_concat(ctx->arena, store_id_u64(ctx->arena, user), store_id_u64(ctx->arena, room));
}

/* Takes the cache out, so that two jobs never work on one. The second waits for the first: to count
 * anew takes longer, and finds something else when the rules have changed. */
static struct count_cache *take_cache(struct hs_prefs *prefs, struct slice key)
{
    uint64_t out = 0;
    pthread_mutex_lock(&prefs->lock);
    while (map_get(prefs->counting, key, &out)) {
        pthread_cond_wait(&prefs->back, &prefs->lock);
    }
    map_set(prefs->counting, key, 1);
    struct count_cache *cache = map_get_ptr(prefs->counts, key);
    map_remove(prefs->counts, key);
    prefs->unread_kept -= cache ? cache->unread_count : 0;
    pthread_mutex_unlock(&prefs->lock);
    return cache;
}

/* NULL: there is none. Lock held. */
static void keep_cache(struct hs_prefs *prefs, struct slice key, struct count_cache *cache)
{
    if (!cache) {
        return;
    }
    if (map_count(prefs->counts) >= COUNTS_MAX || prefs->unread_kept >= UNREAD_KEPT_MAX) {
        counts_free_all(prefs);
        map_free(&prefs->counts);
        prefs->counts = map_new();
    }
    prefs->unread_kept += cache->unread_count;
    map_set_ptr(prefs->counts, key, cache);
}

static void put_cache(struct hs_prefs *prefs, struct slice key, struct count_cache *cache)
{
    pthread_mutex_lock(&prefs->lock);
    keep_cache(prefs, key, cache);
    map_remove(prefs->counting, key);
    pthread_cond_broadcast(&prefs->back);
    pthread_mutex_unlock(&prefs->lock);
}

/* Forgets threads in which nothing is unread. */
static void compact_roots(struct count_cache *cache)
{
    uint32_t moved[THREADS_MAX] = {0};
    size_t kept = 1;
    for (size_t i = 0; i < cache->unread_count; i++) {
        moved[cache->unread_owned[i].thread] = 1;
    }
    for (size_t i = 1; i < cache->root_count; i++) {
        if (!moved[i]) {
            mem_free(cache->roots_owned[i].id_owned);
            continue;
        }
        moved[i] = (uint32_t)kept;
        cache->roots_owned[kept++] = cache->roots_owned[i];
    }
    moved[0] = 0;
    cache->root_count = kept;
    for (size_t i = 0; i < cache->unread_count; i++) {
        cache->unread_owned[i].thread = moved[cache->unread_owned[i].thread];
    }
}

/* Index of a thread; of the main timeline when there are too many threads. */
static uint32_t thread_index(struct count_cache *cache, struct slice root)
{
    for (size_t i = 0; i < cache->root_count; i++) {
        struct thread_root *known = &cache->roots_owned[i];
        if (slice_eq((struct slice){known->id_owned, known->len}, root)) {
            return (uint32_t)i;
        }
    }
    if (cache->root_count == THREADS_MAX) {
        compact_roots(cache);
        if (cache->root_count == THREADS_MAX) {
            return 0;
        }
    }
    if (cache->root_count == cache->root_cap) {
        cache->root_cap = cache->root_cap ? cache->root_cap * 4 : 1;
        cache->roots_owned =
            mem_grow(cache->roots_owned, cache->root_cap * sizeof *cache->roots_owned);
    }
    struct thread_root *added = &cache->roots_owned[cache->root_count++];
    *added = (struct thread_root){.len = root.len};
    if (root.len) {
        added->id_owned = mem_alloc_raw(root.len);
        memcpy(added->id_owned, root.ptr, root.len);
    }
    return (uint32_t)(cache->root_count - 1);
}

static void add_unread(struct count_cache *cache, struct unread unread)
{
    if (cache->unread_count == UNREAD_MAX) {
        cache->unread_count--;
        memmove(cache->unread_owned, cache->unread_owned + 1, cache->unread_count * sizeof unread);
    }
    if (cache->unread_count == cache->unread_cap) {
        cache->unread_cap = cache->unread_cap ? cache->unread_cap * 2 : 4;
        cache->unread_owned = mem_grow(cache->unread_owned, cache->unread_cap * sizeof unread);
    }
    cache->unread_owned[cache->unread_count++] = unread;
}

/* Takes away what is read: in each thread everything up to a number. */
static void drop_read(struct count_cache *cache, const int64_t *read_upto)
{
    size_t kept = 0;
    for (size_t i = 0; i < cache->unread_count; i++) {
        if (cache->unread_owned[i].number > read_upto[cache->unread_owned[i].thread]) {
            cache->unread_owned[kept++] = cache->unread_owned[i];
        }
    }
    cache->unread_count = kept;
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

static void drop_read_by_receipts(struct counting *c)
{
    int64_t *upto = arena_array(c->ctx->arena, c->cache->root_count, sizeof *upto);
    for (size_t i = 0; i < c->cache->root_count; i++) {
        const struct thread_root *root = &c->cache->roots_owned[i];
        upto[i] = read_upto(c, (struct slice){root->id_owned, root->len});
    }
    drop_read(c->cache, upto);
}

/* Who speaks in a thread has read it. */
static void drop_thread(struct counting *c, uint32_t thread)
{
    if (c->cache->unread_count == 0) {
        return;
    }
    int64_t *upto = arena_array(c->ctx->arena, c->cache->root_count, sizeof *upto);
    for (size_t i = 0; i < c->cache->root_count; i++) {
        upto[i] = i == thread ? INT64_MAX : INT64_MIN;
    }
    drop_read(c->cache, upto);
}

/* What was redacted since it was counted counts no more. */
static struct err drop_redacted(struct counting *c, const struct stored_event *redaction)
{
    struct stored_event target;
    bool found = false;
    if (!redaction->event.redacts.s.len) {
        return OK;
    }
    TRY(hs_event_find(c->hs, c->ctx, c->room, redaction->event.redacts.s, &target, &found));
    if (!found || !(target.flags & EVENT_REDACTED)) {
        return OK;
    }
    size_t kept = 0;
    for (size_t i = 0; i < c->cache->unread_count; i++) {
        if (c->cache->unread_owned[i].number != target.number) {
            c->cache->unread_owned[kept++] = c->cache->unread_owned[i];
        }
    }
    c->cache->unread_count = kept;
    return OK;
}

/* The user's name in the room; it stays what it is while the room's state does. */
static struct err find_name(struct counting *c, const struct room_head *head)
{
    struct count_cache *cache = c->cache;
    struct room_member member;
    bool found = false;
    if (head->root && cache->name_root == head->root && cache->name_redaction == head->redaction) {
        return OK;
    }
    TRY(hs_room_member(c->hs, c->ctx, c->room, c->user, &member, &found));
    struct slice name = found ? member.display_name : (struct slice){0};
    mem_free(cache->display_name_owned);
    cache->display_name_owned = mem_alloc_raw(name.len + 1);
    cache->display_name_len = name.len;
    if (name.len) {
        memcpy(cache->display_name_owned, name.ptr, name.len);
    }
    cache->name_root = head->root;
    cache->name_redaction = head->redaction;
    return OK;
}

static struct err get_ready(struct counting *c)
{
    bool ignores = false;
    if (c->ready) {
        return OK;
    }
    struct room_head head = hs_room_head(c->room);
    TRY(hs_push_rules_get(c->hs, c->ctx, c->user, &c->rules));
    TRY(room_levels_get(c->hs, c->ctx, c->room, &head, &c->levels));
    TRY(find_name(c, &head));
    c->target = (struct push_target){
        .user = ids_trust_user(c->user_id),
        .display_name = {c->cache->display_name_owned, c->cache->display_name_len},
        .member_count = head.joined_count,
        .levels = c->levels};
    TRY(prefs_ignores_anybody(c->hs, c->ctx, c->user, &ignores));
    c->is_default = push_rules_is_default(c->rules) && !ignores;
    c->localpart = event_facts_word_of(ids_user_localpart(c->target.user));
    c->name = event_facts_word_of(c->target.display_name);
    c->ready = true;
    return OK;
}

/* An answer is an event of the user's own, which reads what was before it. */
static uint16_t is_call(const struct stored_event *event)
{
    return slice_eq(event->event.type, LIT("m.call.invite")) ? 1 : 0;
}

static struct err judge(struct counting *c, const struct stored_event *event, uint32_t thread)
{
    bool ignored = false;
    TRY(hs_is_ignored(c->hs, c->ctx, c->user, event->event.sender.s, &ignored));
    if (ignored) {
        return OK;
    }
    TRY(get_ready(c));
    struct push_verdict verdict = push_rules_evaluate(c->rules, &event->event, &c->target);
    if (verdict.notify) {
        add_unread(c->cache, (struct unread){.number = event->number,
                                             .thread = thread,
                                             .highlight = verdict.highlight ? 1 : 0,
                                             .call = is_call(event)});
    }
    return OK;
}

static struct err count_event(struct counting *c, const struct stored_event *event)
{
    struct thread_place place;
    if (event->flags & EVENT_REDACTED) {
        return OK;
    }
    if (slice_eq(event->event.type, LIT("m.room.redaction"))) {
        TRY(drop_redacted(c, event));
    }
    TRY(counts_thread_of(c->hs, c->ctx, c->room, event, &place));
    uint32_t thread = thread_index(c->cache, place.root);
    if (event->sender == c->user) {
        drop_thread(c, thread);
        return OK;
    }
    return event->number > read_upto(c, place.root) ? judge(c, event, thread) : OK;
}

/* What the facts say; *asks_out: the event must be judged for this user. */
static struct err judge_by_facts(struct counting *c, const struct known_event *known,
                                 uint32_t thread, bool *asks_out)
{
    const struct event_facts *facts = known->facts;
    TRY(get_ready(c));
    *asks_out = !c->is_default || facts->outlook.verdict == PUSH_OUTLOOK_ASK;
    if (!*asks_out && facts->outlook.unless_named) {
        *asks_out = event_facts_may_name(facts, c->localpart) ||
                    (c->target.display_name.len && event_facts_may_name(facts, c->name));
    }
    if (!*asks_out && facts->outlook.verdict == PUSH_OUTLOOK_NOTIFIES) {
        add_unread(c->cache, (struct unread){.number = known->event->number,
                                             .thread = thread,
                                             .highlight = facts->outlook.highlight ? 1 : 0,
                                             .call = is_call(known->event)});
    }
    return OK;
}

static struct err count_known(struct counting *c, const struct known_event *known)
{
    const struct stored_event *event = known->event;
    struct stored_event parsed = *event;
    bool asks = true;
    if (event->flags &
        (EVENT_REDACTED | EVENT_OUTLIER | EVENT_REJECTED | EVENT_SOFT_FAILED | EVENT_HISTORY)) {
        return OK;
    }
    bool plain =
        known->facts->place != EVENT_HANGS && !slice_eq(event->event.type, LIT("m.room.redaction"));
    if (plain) {
        uint32_t thread = thread_index(c->cache, known->facts->thread);
        if (event->sender == c->user) {
            drop_thread(c, thread);
            return OK;
        }
        if (event->number <= read_upto(c, known->facts->thread)) {
            return OK;
        }
        TRY(judge_by_facts(c, known, thread, &asks));
    }
    if (asks) {
        TRY(hs_event_parse_content(c->ctx, &parsed));
        TRY(count_event(c, &parsed));
    }
    return OK;
}

/* Counts on as long as events are in memory, where what concerns all users is known. */
static struct err scan_known(struct counting *c)
{
    while (c->cache->counted < c->last) {
        struct known_event known;
        TRY(room_event_known(c->hs, c->ctx, c->room, c->cache->counted + 1, &known));
        if (!known.row) {
            break;
        }
        struct err err = count_known(c, &known);
        row_cache_release(known.row);
        TRY(err);
        c->cache->counted++;
    }
    return OK;
}

/* Whether the row can be anything but a plain event of the main timeline. */
static bool may_relate(const struct stored_event *event)
{
    static const char relates[] = "\"m.relates_to\"", redaction[] = "\"m.room.redaction\"";
    struct slice json = event->event.json;
    return memmem(json.ptr, json.len, relates, sizeof relates - 1) ||
           memmem(json.ptr, json.len, redaction, sizeof redaction - 1);
}

static bool is_own_plain(const struct counting *c, const struct stored_event *event)
{
    return event->sender == c->user && !(event->flags & EVENT_REDACTED) && !may_relate(event);
}

/* Counts a page of events that are not in memory, which has an arena of its own. */
static struct err count_page(struct counting *c, struct event_range range)
{
    struct stored_events events;
    TRY(hs_events_read(c->hs, c->ctx, c->room, range, &events));
    for (size_t i = 0; i < events.count; i++) {
        struct stored_event *event = &events.items[i];
        if (is_own_plain(c, event)) {
            drop_thread(c, thread_index(c->cache, (struct slice){0}));
            continue;
        }
        TRY(hs_event_finish(c->ctx, c->room, event));
        TRY(hs_event_parse_content(c->ctx, event));
        TRY(count_event(c, event));
    }
    c->cache->counted =
        events.count < range.limit ? c->last : events.items[events.count - 1].number;
    return OK;
}

static struct err count_stored(struct counting *c)
{
    struct event_range range = {.from = c->cache->counted,
                                .to = c->last + 1,
                                .limit = SCAN_PAGE,
                                .order = EVENTS_FORWARD,
                                .form = EVENTS_SKIMMED};
    TRY(get_ready(c));
    struct ctx *whole = c->ctx;
    struct ctx page = {.arena = arena_new(), .now = whole->now, .log = whole->log};
    c->ctx = &page;
    struct err err = count_page(c, range);
    c->ctx = whole;
    if (err.code != 0) {
        err.text = arena_cstr(whole->arena, slice_of(err.text));
    }
    ctx_finish(&page);
    arena_free(&page.arena);
    return err;
}

/* Who spoke lately has read what came before: unless a thread has replies since, counting begins
 * there. */
static struct err skip_to_own(struct counting *c)
{
    struct store_rows threads;
    struct stored_events events;
    struct store_range replies = {.from = key_i64(c->ctx, DERIVED_KEY_THREADS, c->cache->counted),
                                  .to =
                                      key_bytes(c->ctx, DERIVED_KEY_THREADS + 1, (struct slice){0}),
                                  .limit = 1};
    struct event_range newest = {.from = c->last + 1,
                                 .to = c->cache->counted,
                                 .limit = SKIP_PAGE,
                                 .order = EVENTS_REVERSE,
                                 .form = EVENTS_SKIMMED};
    TRY(hs_events_read(c->hs, c->ctx, c->room, newest, &events));
    size_t own = 0;
    while (own < events.count && !is_own_plain(c, &events.items[own])) {
        own++;
    }
    if (own == events.count) {
        return OK;
    }
    TRY(store_read_range(c->hs->store, c->ctx, room_derived_object(c->ctx, c->room->number),
                         replies, &threads));
    c->cache->counted = threads.count ? c->cache->counted : events.items[own].number;
    return OK;
}

static struct err scan(struct counting *c)
{
    int64_t oldest = c->last - SCAN_EVENTS_MAX;
    if (c->cache->counted < oldest) {
        c->cache->counted = oldest;
    }
    if (c->last - c->cache->counted > SCAN_PAGE && c->cache->unread_count == 0) {
        TRY(skip_to_own(c));
    }
    while (c->cache->counted < c->last) {
        TRY(scan_known(c));
        if (c->cache->counted < c->last) {
            TRY(count_stored(c));
        }
    }
    return OK;
}

static void write_counts(const struct counting *c, struct unread_counts *counts)
{
    const struct count_cache *cache = c->cache;
    struct thread_count *all = arena_array(c->ctx->arena, cache->root_count, sizeof *all);
    *counts = (struct unread_counts){.notify_all = (uint32_t)cache->unread_count, .threads = all};
    for (size_t i = 0; i < cache->unread_count; i++) {
        struct thread_count *count = &all[cache->unread_owned[i].thread];
        count->notify++;
        count->highlight += cache->unread_owned[i].highlight;
        counts->highlight_all += cache->unread_owned[i].highlight;
        counts->calls_all += cache->unread_owned[i].call;
    }
    counts->main = all[0];
    for (size_t i = 1; i < cache->root_count; i++) {
        const struct thread_root *root = &cache->roots_owned[i];
        if (all[i].notify) {
            struct thread_count count = all[i];
            count.thread = arena_copy(c->ctx->arena, (struct slice){root->id_owned, root->len});
            all[counts->thread_count++] = count;
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

/* An empty cache that starts where nothing before can be unread. */
static struct count_cache *new_cache(const struct counting *c)
{
    struct count_cache *cache = mem_alloc(sizeof *cache);
    cache->ignored_version = prefs_ignored_version(c->hs, c->user);
    cache->receipt_pos = newest_receipt(&c->receipts);
    cache->joined_number = c->joined_number;
    cache->counted = c->joined_number;
    for (size_t i = 0; i < c->receipts.count; i++) {
        const struct receipt *receipt = &c->receipts.items[i];
        if (!receipt->thread.ptr && receipt->number > cache->counted) {
            cache->counted = receipt->number;
        }
    }
    thread_index(cache, (struct slice){0});
    return cache;
}

/* What was counted stays counted when rules change: they decide about events that come later. */
static bool still_holds(const struct counting *c, const struct count_cache *cache)
{
    return cache && cache->ignored_version == prefs_ignored_version(c->hs, c->user) &&
           cache->joined_number == c->joined_number && cache->counted <= c->last;
}

/* Own receipts are read when anybody's came; those known say nothing of what is to be counted when
 * all that they name is counted already. */
static struct err take_receipts(struct counting *c)
{
    uint64_t room_pos = hs_room_head(c->room).receipt_pos;
    struct count_cache *cache = c->cache;
    if (cache && cache->room_receipt_pos == room_pos && cache->receipts_upto <= cache->counted) {
        return OK;
    }
    if (room_pos) {
        TRY(hs_receipts_of_user(c->hs, c->ctx, c->room, c->user, &c->receipts));
    }
    uint64_t receipt_pos = newest_receipt(&c->receipts);
    c->cache = cache ? cache : new_cache(c);
    if (c->cache->receipt_pos != receipt_pos) {
        drop_read_by_receipts(c);
        c->cache->receipt_pos = receipt_pos;
    }
    c->cache->room_receipt_pos = room_pos;
    for (size_t i = 0; i < c->receipts.count; i++) {
        int64_t number = c->receipts.items[i].number;
        c->cache->receipts_upto =
            number > c->cache->receipts_upto ? number : c->cache->receipts_upto;
    }
    return OK;
}

static struct err count_cached(struct counting *c)
{
    if (!still_holds(c, c->cache)) {
        free_cache(c->cache);
        c->cache = NULL;
    }
    TRY(take_receipts(c));
    return scan(c);
}

struct err hs_unread_counts_of(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct counts_request *request,
                               struct unread_counts *counts_out)
{
    struct counting counting = {.hs = hs,
                                .ctx = ctx,
                                .room = room,
                                .user = request->user,
                                .user_id = request->user_id,
                                .joined_number = request->joined_number};
    uint64_t root = 0;
    *counts_out = (struct unread_counts){0};
    TRY(hs_room_at(hs, ctx, room, request->upto, &counting.last, &root));
    struct slice key = cache_key(ctx, request->user, room->number);
    counting.cache = take_cache(hs->prefs, key);
    struct err err = count_cached(&counting);
    if (err.code != 0) {
        free_cache(counting.cache);
        counting.cache = NULL;
    } else {
        write_counts(&counting, counts_out);
    }
    put_cache(hs->prefs, key, counting.cache);
    return err;
}

struct err hs_unread_counts(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                            uint64_t upto, struct unread_counts *counts_out)
{
    struct counts_request request = {.user = user, .upto = upto};
    struct user_room entry;
    struct room_member member;
    bool found = false;
    *counts_out = (struct unread_counts){0};
    TRY(hs_user_room(hs, ctx, user, room->number, &entry, &found));
    if (!found || entry.membership != MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(hs_room_member(hs, ctx, room, user, &member, &found));
    request.user_id = member.user_id;
    request.joined_number = entry.joined_number;
    return hs_unread_counts_of(hs, ctx, room, &request, counts_out);
}
