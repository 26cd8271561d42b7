#include "homeserver/sync/sliding_list.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Never changed once others can see it, but for `refs` and `upto`. */
struct list {
    uint64_t user;
    struct sliding_entry *items_owned;
    size_t count;
    uint64_t version;
    uint64_t upto; /* under the lock */
    unsigned wants;
    size_t refs; /* under the lock */
    struct list *newer, *older;
    bool kept; /* the newest of its user: in the table */
};

struct sliding_lists {
    struct sync *sync;
    struct sliding_facts *facts;
    pthread_mutex_t lock; /* protects all below; leaf */
    struct map *by_user;  /* number -> struct list */
    struct list *newest, *oldest;
    size_t entries;
    uint64_t version;
};

unsigned sync_sliding_wants(const struct sliding_request *request)
{
    unsigned wants = 0;
    for (size_t i = 0; i < request->list_count; i++) {
        const struct sliding_filters *filters = &request->lists[i].filters;
        bool kinds = filters->room_types.given || filters->not_room_types.given ||
                     filters->is_encrypted != SLIDING_EITHER;
        wants |= kinds ? SLIDING_WANT_KINDS : 0;
        wants |= filters->tags.given || filters->not_tags.given ? SLIDING_WANT_TAGS : 0;
    }
    return wants;
}

/* --- the table, under the lock --- */

static void free_list(struct list *list)
{
    mem_free(list->items_owned);
    mem_free(list);
}

static void remove_kept(struct sliding_lists *lists, struct list *list)
{
    *(list->newer ? &list->newer->older : &lists->newest) = list->older;
    *(list->older ? &list->older->newer : &lists->oldest) = list->newer;
    list->newer = list->older = NULL;
    map_remove(lists->by_user, map_key_u64(&list->user));
    lists->entries -= list->count;
    list->kept = false;
    if (list->refs == 0) {
        free_list(list);
    }
}

static void link_newest(struct sliding_lists *lists, struct list *list)
{
    list->older = lists->newest;
    *(lists->newest ? &lists->newest->newer : &lists->oldest) = list;
    lists->newest = list;
}

static void release(void *owner, void *thing)
{
    struct sliding_lists *lists = owner;
    struct list *list = thing;
    pthread_mutex_lock(&lists->lock);
    list->refs--;
    if (list->refs == 0 && !list->kept) {
        free_list(list);
    }
    pthread_mutex_unlock(&lists->lock);
}

/* The user's newest list, held until the job ends, and up to where it is good; or NULL. */
static struct list *get_kept(struct sliding_lists *lists, struct ctx *ctx, uint64_t user,
                             uint64_t *upto_out)
{
    pthread_mutex_lock(&lists->lock);
    struct list *list = map_get_ptr(lists->by_user, map_key_u64(&user));
    if (list) {
        list->refs++;
        *upto_out = list->upto;
    }
    pthread_mutex_unlock(&lists->lock);
    if (list) {
        ctx_defer(ctx, release, lists, list);
    }
    return list;
}

/* Keeps a list that is newer than the one there; the job holds it in any case. */
static void keep(struct sliding_lists *lists, struct ctx *ctx, struct list *list)
{
    pthread_mutex_lock(&lists->lock);
    struct list *other = map_get_ptr(lists->by_user, map_key_u64(&list->user));
    list->refs = 1;
    if (other == NULL || other->upto <= list->upto) {
        if (other) {
            remove_kept(lists, other);
        }
        list->kept = true;
        map_set_ptr(lists->by_user, map_key_u64(&list->user), list);
        link_newest(lists, list);
        lists->entries += list->count;
    }
    while (lists->entries > SLIDING_ENTRIES_MAX && lists->oldest != list && lists->oldest) {
        remove_kept(lists, lists->oldest);
    }
    pthread_mutex_unlock(&lists->lock);
    ctx_defer(ctx, release, lists, list);
}

static void extend(struct sliding_lists *lists, struct list *list, uint64_t upto)
{
    pthread_mutex_lock(&lists->lock);
    list->upto = upto > list->upto ? upto : list->upto;
    pthread_mutex_unlock(&lists->lock);
}

static uint64_t next_version(struct sliding_lists *lists)
{
    pthread_mutex_lock(&lists->lock);
    uint64_t version = ++lists->version;
    pthread_mutex_unlock(&lists->lock);
    return version;
}

struct sliding_lists *sync_sliding_lists_new(struct sync *sync, struct sliding_facts *facts)
{
    struct sliding_lists *lists = mem_alloc(sizeof *lists);
    lists->sync = sync;
    lists->facts = facts;
    pthread_mutex_init(&lists->lock, NULL);
    lists->by_user = map_new();
    return lists;
}

void sync_sliding_lists_free(struct sliding_lists **lists)
{
    if (*lists == NULL) {
        return;
    }
    while ((*lists)->newest) {
        remove_kept(*lists, (*lists)->newest);
    }
    map_free(&(*lists)->by_user);
    pthread_mutex_destroy(&(*lists)->lock);
    mem_free(*lists);
    *lists = NULL;
}

/* --- making one --- */

struct making {
    struct sliding_lists *lists;
    struct sync_job *job;
    unsigned wants;
    uint64_t *direct; /* rooms of m.direct, ascending */
    size_t direct_count;
    uint64_t *tagged; /* rooms that may have tags, ascending */
    size_t tagged_count;
    bool tags_changed;
    struct sliding_entry *items; /* in the arena */
    size_t count;
};

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void add_direct(struct making *m, const struct json *rooms, size_t *cap)
{
    for (uint32_t i = 0; rooms->type == JSON_ARRAY && i < rooms->count; i++) {
        bool found = false;
        uint64_t number = 0;
        if (rooms->items[i].type != JSON_STRING ||
            hs_room_find(m->job->hs, m->job->ctx, rooms->items[i].text, &number, &found).code ||
            !found) {
            continue;
        }
        if (m->direct_count == *cap) {
            size_t grown = *cap ? *cap * 2 : 16;
            m->direct = arena_grow(m->job->ctx->arena, m->direct, *cap * sizeof *m->direct,
                                   grown * sizeof *m->direct);
            *cap = grown;
        }
        m->direct[m->direct_count++] = number;
    }
}

/* Spec: client-server, "Direct Messaging": what the user says is one. */
static struct err read_direct(struct making *m)
{
    struct sync_job *job = m->job;
    struct slice content;
    struct json direct;
    bool found = false;
    size_t cap = 0;
    TRY(hs_account_data_get(job->hs, job->ctx, job->viewer.user, 0, LIT("m.direct"), &content,
                            &found));
    if (!found || json_parse(job->ctx->arena, content, &direct).code != 0) {
        return OK;
    }
    for (uint32_t i = 0; direct.type == JSON_OBJECT && i < direct.count; i++) {
        add_direct(m, &direct.members[i].value, &cap);
    }
    if (m->direct_count > 0) {
        qsort(m->direct, m->direct_count, sizeof *m->direct, by_value);
    }
    return OK;
}

static bool is_among(const uint64_t *sorted, size_t count, uint64_t room)
{
    return count > 0 && bsearch(&room, sorted, count, sizeof room, by_value) != NULL;
}

/* The rooms among the data whose tags are set there; those of `old` keep them. */
static void note_tags(struct making *m, const struct account_data *data, const struct list *old)
{
    size_t cap = data->count + (old ? old->count : 0) + 1;
    if (!(m->wants & SLIDING_WANT_TAGS)) {
        return;
    }
    m->tagged = arena_array(m->job->ctx->arena, cap, sizeof *m->tagged);
    for (size_t i = 0; i < data->count; i++) {
        if (data->items[i].room && slice_eq(data->items[i].type, LIT("m.tag"))) {
            m->tagged[m->tagged_count++] = data->items[i].room;
            m->tags_changed = true;
        }
    }
    for (size_t i = 0; old && i < old->count; i++) {
        if (old->items_owned[i].flags & SLIDING_TAGGED) {
            m->tagged[m->tagged_count++] = old->items_owned[i].room;
        }
    }
    if (m->tagged_count > 0) {
        qsort(m->tagged, m->tagged_count, sizeof *m->tagged, by_value);
    }
}

/* Spec: client-server, "Ignoring Users", "Invite permission". */
static struct err is_hidden(struct making *m, const struct user_room *entry, bool *hidden_out)
{
    struct sync_room room = {.entry = *entry};
    struct slice stripped;
    TRY(hs_room_get(m->job->hs, m->job->ctx, entry->room, &room.room));
    TRY(sync_find_stripped(m->job, &room, &stripped));
    return sync_hides_invite(m->job, stripped, hidden_out);
}

/* Whether somebody else made the user leave. */
static struct err was_kicked(struct making *m, const struct user_room *entry, bool *kicked_out)
{
    struct sync_job *job = m->job;
    struct room *room = NULL;
    struct stored_event event;
    bool found = false;
    *kicked_out = false;
    TRY(hs_room_get(job->hs, job->ctx, entry->room, &room));
    TRY(hs_event_scan(job->hs, job->ctx, room, entry->number, &event, &found));
    *kicked_out = found && event.sender != job->viewer.user;
    return OK;
}

/* Spec: MSC4186, "Lists": which rooms the server's list holds. */
static struct err is_listed(struct making *m, const struct user_room *entry, bool *listed_out)
{
    bool was_in = entry->joined_number > 0;
    bool hidden = false;
    *listed_out = false;
    switch (entry->membership) {
    case MEMBERSHIP_JOIN:
        *listed_out = true;
        return OK;
    case MEMBERSHIP_INVITE:
        TRY(is_hidden(m, entry, &hidden));
        *listed_out = !hidden;
        return OK;
    case MEMBERSHIP_KNOCK:
        *listed_out = true;
        return OK;
    case MEMBERSHIP_BAN:
        *listed_out = was_in && !entry->forgotten;
        return OK;
    case MEMBERSHIP_LEAVE:
        return was_in && !entry->forgotten ? was_kicked(m, entry, listed_out) : OK;
    case MEMBERSHIP_NONE:
    case MEMBERSHIP_OTHER:
        return OK;
    }
    return OK;
}

/* Of a room that the user is invited to what the invite tells. */
static struct err read_kind(struct making *m, const struct user_room *room,
                            struct sliding_kind *kind_out)
{
    struct json list;
    struct arena *arena = m->job->ctx->arena;
    if (room->invite_state.len == 0) {
        return sync_sliding_kind(m->lists->facts, m->job->ctx, room->room, kind_out);
    }
    *kind_out = (struct sliding_kind){0};
    if (json_parse(arena, room->invite_state, &list).code != 0 || list.type != JSON_ARRAY) {
        return OK;
    }
    for (uint32_t i = 0; i < list.count; i++) {
        struct slice type = json_get_string(&list.items[i], LIT("type"));
        if (slice_eq(type, LIT("m.room.create"))) {
            const struct json *content = json_get(&list.items[i], LIT("content"));
            kind_out->type = sync_sliding_type_hash(json_get_string(content, LIT("type")));
        }
        kind_out->is_encrypted = kind_out->is_encrypted || slice_eq(type, LIT("m.room.encryption"));
    }
    return OK;
}

static struct err fill_entry(struct making *m, const struct user_room *room,
                             struct sliding_entry *entry)
{
    struct sliding_facts *facts = m->lists->facts;
    struct sliding_activity activity = {0};
    struct sliding_kind kind = {0};
    bool listed = false;
    bool here = room->membership == MEMBERSHIP_JOIN;
    TRY(is_listed(m, room, &listed));
    if (here) {
        TRY(sync_sliding_activity(facts, m->job->ctx, room->room, &activity));
    }
    if (m->wants & SLIDING_WANT_KINDS) {
        TRY(read_kind(m, room, &kind));
    }
    unsigned flags = listed ? SLIDING_LISTED : 0U;
    flags |= kind.is_encrypted ? SLIDING_ENCRYPTED : 0U;
    flags |= is_among(m->direct, m->direct_count, room->room) ? SLIDING_DM : 0U;
    flags |= is_among(m->tagged, m->tagged_count, room->room) ? SLIDING_TAGGED : 0U;
    *entry = (struct sliding_entry){.room = room->room,
                                    .order = here ? activity.active_pos : room->pos,
                                    .changed_pos = here ? activity.changed_pos : room->pos,
                                    .member_pos = room->pos,
                                    .type = kind.type,
                                    .membership = (uint8_t)room->membership,
                                    .flags = (uint8_t)flags};
    return OK;
}

static int by_order(const void *a, const void *b)
{
    const struct sliding_entry *left = a;
    const struct sliding_entry *right = b;
    int order = (left->order < right->order) - (left->order > right->order);
    return order != 0 ? order : (left->room < right->room) - (left->room > right->room);
}

static struct list *finish(struct making *m, uint64_t version, uint64_t upto)
{
    struct list *list = mem_alloc(sizeof *list);
    list->user = m->job->viewer.user;
    list->count = m->count;
    list->items_owned = mem_alloc_raw((m->count + 1) * sizeof *list->items_owned);
    if (m->count > 0) {
        memcpy(list->items_owned, m->items, m->count * sizeof *m->items);
    }
    list->version = version;
    list->upto = upto;
    list->wants = m->wants;
    keep(m->lists, m->job->ctx, list);
    return list;
}

static struct err build(struct making *m, uint64_t upto, struct list **list_out)
{
    struct sync_job *job = m->job;
    struct user_rooms rooms;
    struct account_data data = {0};
    if (m->wants & SLIDING_WANT_TAGS) {
        TRY(hs_account_data_since(job->hs, job->ctx, job->viewer.user, 0, upto, &data));
        note_tags(m, &data, NULL);
    }
    TRY(read_direct(m));
    TRY(hs_user_rooms(job->hs, job->ctx, job->viewer.user, &rooms));
    m->items = arena_array(job->ctx->arena, rooms.count + 1, sizeof *m->items);
    for (size_t i = 0; i < rooms.count; i++) {
        TRY(fill_entry(m, &rooms.items[i], &m->items[m->count]));
        m->count++;
    }
    qsort(m->items, m->count, sizeof *m->items, by_order);
    *list_out = finish(m, next_version(m->lists), upto);
    return OK;
}

/* --- following changes --- */

static bool same_but_order(const struct sliding_entry *a, const struct sliding_entry *b)
{
    return a->membership == b->membership && a->flags == b->flags && a->type == b->type;
}

/* The changed rooms, in order. */
static struct err read_changed(struct making *m, const struct sync_look *look,
                               struct sliding_entry *changed, size_t *count_out)
{
    struct sync_job *job = m->job;
    *count_out = 0;
    for (size_t i = 0; i < look->room_count; i++) {
        struct user_room room;
        bool found = false;
        TRY(hs_user_room(job->hs, job->ctx, job->viewer.user, look->rooms[i], &room, &found));
        if (found) {
            room.room = look->rooms[i];
            TRY(fill_entry(m, &room, &changed[*count_out]));
            (*count_out)++;
        }
    }
    qsort(changed, *count_out, sizeof *changed, by_order);
    return OK;
}

/* Merges what stayed and what changed; true when nothing but the order is another. */
static bool merge(struct making *m, const struct list *old, const struct sync_look *look,
                  const struct sliding_entry *changed, size_t changed_count)
{
    size_t at = 0;
    size_t same = 0;
    size_t dropped = 0;
    m->items = arena_array(m->job->ctx->arena, old->count + changed_count + 1, sizeof *m->items);
    for (size_t i = 0; i < old->count; i++) {
        const struct sliding_entry *entry = &old->items_owned[i];
        if (is_among(look->rooms, look->room_count, entry->room)) {
            dropped++;
            for (size_t j = 0; j < changed_count; j++) {
                same += changed[j].room == entry->room && same_but_order(&changed[j], entry);
            }
            continue;
        }
        while (at < changed_count && by_order(&changed[at], entry) < 0) {
            m->items[m->count++] = changed[at++];
        }
        m->items[m->count++] = *entry;
    }
    while (at < changed_count) {
        m->items[m->count++] = changed[at++];
    }
    return same == changed_count && dropped == changed_count;
}

static struct err follow(struct making *m, struct list *old, struct sync_look *look,
                         struct list **list_out)
{
    size_t count = 0;
    if (look->room_count == 0 && !m->tags_changed) {
        extend(m->lists, old, look->upto);
        *list_out = old;
        return OK;
    }
    struct sliding_entry *changed =
        arena_array(m->job->ctx->arena, look->room_count + 1, sizeof *changed);
    if (look->room_count > 0) {
        qsort(look->rooms, look->room_count, sizeof *look->rooms, by_value);
    }
    TRY(read_direct(m));
    TRY(read_changed(m, look, changed, &count));
    bool same = merge(m, old, look, changed, count);
    same = same && !m->tags_changed;
    *list_out = finish(m, same ? old->version : next_version(m->lists), look->upto);
    return OK;
}

/* Account data decides what is a direct chat, tagged, or hidden. False: all is to be looked at
 * anew. */
static struct err read_account(struct making *m, const struct list *old, uint64_t since,
                               const struct sync_look *look, bool *good_io)
{
    static const struct slice decisive[] = {
        {"m.direct", 8}, {"m.ignored_user_list", 19}, {"m.invite_permission_config", 26}};
    struct sync_job *job = m->job;
    struct account_data data = {0};
    if (look->account_pos > since) {
        TRY(hs_account_data_since(job->hs, job->ctx, job->viewer.user, since, look->upto, &data));
    }
    for (size_t i = 0; i < data.count; i++) {
        for (size_t j = 0; j < COUNT_OF(decisive); j++) {
            bool said = data.items[i].room == 0 && slice_eq(data.items[i].type, decisive[j]);
            *good_io = *good_io && !said;
        }
    }
    note_tags(m, &data, old);
    return OK;
}

struct err sync_sliding_rooms(struct sliding_lists *lists, struct sync_job *job, unsigned wants,
                              struct sliding_rooms *rooms_out)
{
    struct making m = {.lists = lists, .job = job};
    struct sync_look look;
    uint64_t since = 0;
    struct list *old = get_kept(lists, job->ctx, job->viewer.user, &since);
    struct list *list = NULL;
    m.wants = wants | (old ? old->wants : 0);
    TRY(sync_sessions_look(lists->sync->sessions, job->ctx, job->viewer.user, since, &look));
    bool good = old && look.complete && old->wants == m.wants;
    if (good && look.nothing) {
        extend(lists, old, look.upto);
        list = old;
    } else if (good) {
        TRY(read_account(&m, old, since, &look, &good));
    }
    if (good && list == NULL) {
        TRY(follow(&m, old, &look, &list));
    } else if (list == NULL) {
        m.tagged_count = 0;
        TRY(build(&m, look.upto, &list));
    }
    *rooms_out = (struct sliding_rooms){.items = list->items_owned,
                                        .count = list->count,
                                        .version = list->version,
                                        .upto = look.upto > since ? look.upto : since};
    return OK;
}
