/* Which rooms the rules of a request match, and what they ask of each together.
 * Spec: MSC4186, "Lists and subscriptions" and "Combining room configs". */
#include "homeserver/service/room_summary.h"
#include "homeserver/sync/sliding_priv.h"

#include <stdlib.h>
#include <string.h>

struct sorted {
    uint64_t *items;
    size_t count;
};

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static bool has(const struct sorted *sorted, uint64_t number)
{
    return sorted->count > 0 &&
           bsearch(&number, sorted->items, sorted->count, sizeof number, by_value) != NULL;
}

bool sync_sliding_changed(const struct sliding_job *job, uint64_t room)
{
    struct sorted changed = {job->changed, job->look.room_count};
    return has(&changed, room);
}

bool sync_sliding_in_list(const struct sliding_match *match, size_t list)
{
    return (match->lists[list / 64] >> (list % 64)) & 1;
}

/* --- filters --- */

struct filtering {
    struct sliding_job *job;
    const struct sliding_filters *filters;
    struct sorted children;         /* of the spaces */
    struct sorted types, not_types; /* hashes */
};

/* Rooms of spaces that the user is in. */
static struct err add_children(struct filtering *f, struct slice space_id, size_t *cap)
{
    struct sync_job *job = &f->job->base;
    struct space_children children;
    struct user_room entry;
    struct room *room = NULL;
    uint64_t number = 0;
    bool found = false;
    TRY(hs_room_find(job->hs, job->ctx, space_id, &number, &found));
    if (found) {
        TRY(hs_user_room(job->hs, job->ctx, job->viewer.user, number, &entry, &found));
    }
    if (!found || entry.membership != MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(hs_room_get(job->hs, job->ctx, number, &room));
    TRY(hs_space_children(job->hs, job->ctx, room, false, &children));
    f->children.items =
        arena_grow(job->ctx->arena, f->children.items, *cap * sizeof *f->children.items,
                   (*cap + children.count) * sizeof *f->children.items);
    *cap += children.count;
    for (size_t i = 0; i < children.count; i++) {
        TRY(hs_room_find(job->hs, job->ctx, children.items[i].room_id, &number, &found));
        if (found) {
            f->children.items[f->children.count++] = number;
        }
    }
    return OK;
}

static struct sorted hashes_of(struct sliding_job *job, const struct sync_names *names)
{
    struct sorted hashes = {arena_array(job->base.ctx->arena, names->count + 1, sizeof(uint64_t)),
                            names->count};
    for (size_t i = 0; i < names->count; i++) {
        hashes.items[i] = sync_sliding_type_hash(names->items[i]);
    }
    qsort(hashes.items, hashes.count, sizeof *hashes.items, by_value);
    return hashes;
}

static struct err prepare_filter(struct sliding_job *job, const struct sliding_filters *filters,
                                 struct filtering *f)
{
    size_t cap = 0;
    *f = (struct filtering){.job = job, .filters = filters};
    for (size_t i = 0; i < filters->spaces.count; i++) {
        TRY(add_children(f, filters->spaces.items[i], &cap));
    }
    if (f->children.count > 0) {
        qsort(f->children.items, f->children.count, sizeof *f->children.items, by_value);
    }
    f->types = hashes_of(job, &filters->room_types);
    f->not_types = hashes_of(job, &filters->not_room_types);
    return OK;
}

static bool names_have_key(const struct sync_names *names, const struct json *tags)
{
    for (size_t i = 0; i < names->count; i++) {
        if (json_get(tags, names->items[i])) {
            return true;
        }
    }
    return false;
}

static struct err takes_tags(const struct filtering *f, const struct sliding_entry *entry,
                             bool *takes_out)
{
    const struct sliding_filters *filters = f->filters;
    struct sync_job *job = &f->job->base;
    struct slice content;
    struct json tree = {0};
    bool found = false;
    if (!filters->tags.given && !filters->not_tags.given) {
        *takes_out = true;
        return OK;
    }
    if (entry->flags & SLIDING_TAGGED) {
        TRY(hs_account_data_get(job->hs, job->ctx, job->viewer.user, entry->room, LIT("m.tag"),
                                &content, &found));
    }
    if (found) {
        TRY(json_parse(job->ctx->arena, content, &tree));
    }
    const struct json *tags = json_get_object(&tree, LIT("tags"));
    *takes_out = (!filters->tags.given || names_have_key(&filters->tags, tags)) &&
                 !names_have_key(&filters->not_tags, tags);
    return OK;
}

static bool answers(enum sliding_ask ask, bool fact)
{
    return ask == SLIDING_EITHER || (ask == SLIDING_WITH) == fact;
}

static struct err takes(const struct filtering *f, const struct sliding_entry *entry,
                        bool *takes_out)
{
    const struct sliding_filters *filters = f->filters;
    *takes_out = (entry->flags & SLIDING_LISTED) &&
                 answers(filters->is_dm, (entry->flags & SLIDING_DM) != 0) &&
                 answers(filters->is_encrypted, (entry->flags & SLIDING_ENCRYPTED) != 0) &&
                 answers(filters->is_invited, entry->membership == MEMBERSHIP_INVITE) &&
                 (!filters->room_types.given || has(&f->types, entry->type)) &&
                 !has(&f->not_types, entry->type) &&
                 (!filters->spaces.given || has(&f->children, entry->room));
    return *takes_out ? takes_tags(f, entry, takes_out) : OK;
}

/* --- lists --- */

static bool in_ranges(const struct sliding_list *list, size_t rank)
{
    for (size_t i = 0; i < list->range_count; i++) {
        if (rank >= list->ranges[i].first && rank <= list->ranges[i].last) {
            return true;
        }
    }
    return list->range_count == 0;
}

/* `all` has a place for each room of the user. */
static struct err match_list(struct sliding_job *job, size_t at, struct sliding_match *all)
{
    const struct sliding_list *list = &job->request->lists[at];
    struct filtering f;
    size_t rank = 0;
    TRY(prepare_filter(job, &list->filters, &f));
    for (size_t i = 0; i < job->rooms.count; i++) {
        bool taken = false;
        TRY(takes(&f, &job->rooms.items[i], &taken));
        if (taken && in_ranges(list, rank)) {
            all[i].lists[at / 64] |= UINT64_C(1) << (at % 64);
        }
        rank += taken ? 1 : 0;
    }
    job->list_counts[at] = rank;
    return OK;
}

/* --- subscriptions --- */

struct subscribed {
    uint64_t room;
    size_t index;
};

static int by_room(const void *a, const void *b)
{
    return by_value(&((const struct subscribed *)a)->room, &((const struct subscribed *)b)->room);
}

static bool may_see(const struct sliding_entry *entry)
{
    return (entry->flags & SLIDING_LISTED) || entry->membership == MEMBERSHIP_LEAVE;
}

static struct err match_subscriptions(struct sliding_job *job, struct sliding_match *all)
{
    const struct sliding_request *request = job->request;
    struct subscribed *rooms =
        arena_array(job->base.ctx->arena, request->subscription_count + 1, sizeof *rooms);
    size_t count = 0;
    for (size_t i = 0; i < request->subscription_count; i++) {
        bool found = false;
        rooms[count].index = i;
        TRY(hs_room_find(job->base.hs, job->base.ctx, request->subscriptions[i].room_id,
                         &rooms[count].room, &found));
        count += found ? 1 : 0;
    }
    if (count == 0) {
        return OK;
    }
    qsort(rooms, count, sizeof *rooms, by_room);
    for (size_t i = 0; i < job->rooms.count; i++) {
        struct subscribed wanted = {.room = job->rooms.items[i].room};
        const struct subscribed *found = bsearch(&wanted, rooms, count, sizeof wanted, by_room);
        if (found && may_see(&job->rooms.items[i])) {
            all[i].subscription = found->index + 1;
        }
    }
    return OK;
}

/* --- all --- */

/* The client was told of the room as one that the user is in. */
static bool has_left(const struct sliding_job *job, const struct sliding_entry *entry)
{
    if (entry->membership == MEMBERSHIP_JOIN || entry->member_pos <= 0 ||
        (!job->all && !sync_sliding_changed(job, entry->room))) {
        return false;
    }
    const struct sliding_sent *sent = sync_sliding_sent(job->conn, entry->room);
    return sent && entry->member_pos > sent->pos;
}

struct err sync_sliding_match(struct sliding_job *job)
{
    struct arena *arena = job->base.ctx->arena;
    struct sliding_match *all = arena_array(arena, job->rooms.count + 1, sizeof *all);
    job->list_counts = arena_array(arena, job->request->list_count + 1, sizeof *job->list_counts);
    for (size_t i = 0; i < job->request->list_count; i++) {
        TRY(match_list(job, i, all));
    }
    TRY(match_subscriptions(job, all));
    for (size_t i = 0; i < job->rooms.count; i++) {
        struct sliding_match *match = &all[i];
        match->entry = &job->rooms.items[i];
        if (match->lists[0] || match->lists[1] || match->subscription ||
            has_left(job, match->entry)) {
            all[job->match_count++] = *match;
        }
    }
    job->matches = all;
    job->timeline_pos = arena_array(arena, job->match_count + 1, sizeof *job->timeline_pos);
    job->change_at = arena_array(arena, job->match_count + 1, sizeof *job->change_at);
    return OK;
}

/* --- what is asked --- */

static void add_state(struct sliding_ask_state *ask, const struct sliding_config *config)
{
    ask->timeline_limit =
        config->timeline_limit > ask->timeline_limit ? config->timeline_limit : ask->timeline_limit;
    for (size_t i = 0; i < ask->count; i++) {
        if (slice_eq(ask->items[i]->text, config->state.text)) {
            return;
        }
    }
    ask->items[ask->count++] = &config->state;
}

/* Members come by need when one rule says so and none wants them all. */
static void settle_members(struct sliding_ask_state *ask)
{
    bool everybody = false;
    ask->lazy = false;
    for (size_t i = 0; i < ask->count; i++) {
        ask->lazy = ask->lazy || ask->items[i]->lazy_members;
        everybody = everybody || sync_sliding_takes_members(ask->items[i]);
    }
    ask->lazy = ask->lazy && !everybody;
}

static struct slice text_of(struct sliding_job *job, const struct sliding_ask_state *ask)
{
    struct buf buf;
    buf_init_arena(&buf, job->base.ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    json_out_array(&out);
    for (size_t i = 0; i < ask->count; i++) {
        json_out_raw(&out, ask->items[i]->text);
    }
    json_out_array_end(&out);
    return buf_slice(&buf);
}

struct err sync_sliding_combine(struct sliding_job *job, const struct sliding_match *match,
                                struct sliding_ask_state *ask_out)
{
    const struct sliding_request *request = job->request;
    const struct sliding_sent *sent = sync_sliding_sent(job->conn, match->entry->room);
    struct sliding_ask_state ask = {0};
    bool same_lists =
        match->lists[0] == job->combined_lists[0] && match->lists[1] == job->combined_lists[1];
    if (!match->subscription && same_lists && (match->lists[0] || match->lists[1])) {
        *ask_out = job->combined;
        return OK;
    }
    ask.items = arena_array(job->base.ctx->arena, request->list_count + 1, sizeof *ask.items);
    for (size_t i = 0; i < request->list_count; i++) {
        if (sync_sliding_in_list(match, i)) {
            add_state(&ask, &request->lists[i].config);
        }
    }
    if (match->subscription) {
        add_state(&ask, &request->subscriptions[match->subscription - 1].config);
    }
    if (ask.count == 0 && sent) { /* it is told of a last time, as it was before */
        TRY(sync_sliding_parse_ask(job, job->conn->configs_owned[sent->config], &ask));
        ask.timeline_limit = SYNC_TIMELINE_DEFAULT;
        *ask_out = ask;
        return OK;
    }
    settle_members(&ask);
    ask.text = text_of(job, &ask);
    if (!match->subscription) {
        job->combined = ask;
        memcpy(job->combined_lists, match->lists, sizeof match->lists);
    }
    *ask_out = ask;
    return OK;
}

struct err sync_sliding_parse_ask(struct sliding_job *job, struct slice text,
                                  struct sliding_ask_state *ask_out)
{
    struct arena *arena = job->base.ctx->arena;
    struct json list;
    struct sliding_ask_state ask = {.text = text};
    TRY(json_parse(arena, text, &list));
    ask.items = arena_array(arena, list.count + 1, sizeof *ask.items);
    for (uint32_t i = 0; i < list.count; i++) {
        struct sliding_state *state = arena_alloc(arena, sizeof *state);
        TRY(sync_sliding_parse_state(arena, &list.items[i], job->base.viewer.user_id, state));
        ask.items[ask.count++] = state;
    }
    settle_members(&ask);
    *ask_out = ask;
    return OK;
}

bool sync_sliding_asks(const struct sliding_ask_state *ask, struct slice type, struct slice key)
{
    for (size_t i = 0; i < ask->count; i++) {
        if (sync_sliding_takes(ask->items[i], type, key)) {
            return true;
        }
    }
    return false;
}

struct sliding_sent *sync_sliding_change(struct sliding_job *job, size_t match)
{
    uint64_t room = job->matches[match].entry->room;
    if (job->change_at[match]) {
        return &job->changes[job->change_at[match] - 1];
    }
    if (job->change_count == job->change_cap) {
        size_t cap = job->change_cap ? job->change_cap * 2 : 32;
        job->changes =
            arena_grow(job->base.ctx->arena, job->changes, job->change_cap * sizeof *job->changes,
                       cap * sizeof *job->changes);
        job->change_cap = cap;
    }
    const struct sliding_sent *sent = sync_sliding_sent(job->conn, room);
    struct sliding_sent *change = &job->changes[job->change_count++];
    *change = sent ? *sent : (struct sliding_sent){.room = room};
    job->change_at[match] = job->change_count;
    return change;
}
