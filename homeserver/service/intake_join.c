/* Joining a room through another server. Events come in any order and are stored as outliers in
 * batches; at the end each is judged after those that it cites, the state is made of those that
 * stand, and the join is appended: only then is anything to be seen. What an unfinished join leaves
 * are outliers, which the next one uses. */
#include "homeserver/base/mem.h"
#include "homeserver/service/intake_priv.h"

#include <string.h>

enum { BATCH_EVENTS_MAX = 500, BATCH_BYTES_MAX = 1 << 20 };

enum verdict { VERDICT_NONE, VERDICT_BUSY, VERDICT_ALLOWED, VERDICT_REFUSED };

struct item {
    int64_t number; /* 0 = in the batch */
    uint64_t key;   /* of its type and state key, once judged */
    bool in_state;
    enum verdict verdict;
};

struct intake_join {
    struct hs *hs;
    struct arena *arena_owned; /* of the join */
    struct arena *batch_owned; /* of the batch; then of what is judged */
    struct room *room;         /* held */
    struct event join;
    bool is_partial;
    bool is_first; /* nothing was here of the room before */
    int64_t stored_count;
    struct slice *servers;
    size_t server_count;
    struct map *ids; /* event id -> index of item + 1 */
    struct item *items_owned;
    size_t count, cap;
    struct event *batch; /* BATCH_EVENTS_MAX */
    size_t *batch_items; /* index of each */
    size_t batch_count, batch_bytes;
    size_t *stack_owned; /* of items to be judged */
    size_t stack_count, stack_cap;
};

static struct ctx batch_ctx(const struct intake_join *join, const struct ctx *ctx)
{
    struct ctx batch = *ctx;
    batch.arena = join->batch_owned;
    batch.deferred = NULL;
    return batch;
}

static struct err leave_batch(struct ctx *ctx, struct ctx *batch, struct err err)
{
    ctx_finish(batch);
    ctx->write_ticket = batch->write_ticket;
    if (err.text) {
        err.text = arena_cstr(ctx->arena, slice_of(err.text));
    }
    return err;
}

/* --- begin --- */

static struct err copy_event(struct arena *arena, const struct room_rules *rules,
                             const struct event *event, struct event *copy_out)
{
    return event_parse_stored(arena, rules, arena_copy(arena, event->json),
                              ids_trust_event(arena_copy(arena, event->id.s)), copy_out);
}

static struct err open_join(struct intake_join *join, struct ctx *ctx,
                            const struct intake_join_start *start)
{
    const struct room_rules *rules = room_rules_get(start->version);
    if (!rules) {
        return err_public(ERR_M_UNSUPPORTED_ROOM_VERSION, "This room version is not supported.");
    }
    if (!slice_eq(start->join->room_id.s, start->room_id)) {
        return err_public(ERR_M_FORBIDDEN, "The join is of another room.");
    }
    TRY(copy_event(join->arena_owned, rules, start->join, &join->join));
    TRY(rooms_open(join->hs, ctx, start->room_id, rules, &join->room));
    rooms_hold(join->hs, join->room);
    join->is_first = join->room->head.number == 0 && join->room->next_apart == EVENT_APART_FIRST;
    join->servers = arena_array(join->arena_owned, start->server_count + 1, sizeof(struct slice));
    for (size_t i = 0; i < start->server_count; i++) {
        join->servers[join->server_count++] = arena_copy(join->arena_owned, start->servers[i]);
    }
    return OK;
}

struct err hs_intake_join_begin(struct hs *hs, struct ctx *ctx,
                                const struct intake_join_start *start,
                                struct intake_join **join_out)
{
    struct intake_join *join = mem_alloc(sizeof *join);
    join->hs = hs;
    join->arena_owned = arena_new();
    join->batch_owned = arena_new();
    join->ids = map_new();
    join->is_partial = start->is_partial;
    join->batch = arena_array(join->arena_owned, BATCH_EVENTS_MAX, sizeof *join->batch);
    join->batch_items = arena_array(join->arena_owned, BATCH_EVENTS_MAX, sizeof(size_t));
    struct err err = open_join(join, ctx, start);
    if (err.code != 0) {
        hs_intake_join_abort(&join);
    }
    *join_out = join;
    return err;
}

void hs_intake_join_abort(struct intake_join **join_io)
{
    struct intake_join *join = *join_io;
    if (!join) {
        return;
    }
    if (join->room) {
        rooms_unhold(join->hs, join->room);
    }
    map_free(&join->ids);
    mem_free(join->items_owned);
    mem_free(join->stack_owned);
    arena_free(&join->batch_owned);
    arena_free(&join->arena_owned);
    mem_free(join);
    *join_io = NULL;
}

/* --- add --- */

static struct err put_batch(struct intake_join *join, struct ctx *batch)
{
    struct apart_rows rows;
    apart_rows_begin(batch, join->room, &rows);
    for (size_t i = 0; i < join->batch_count; i++) {
        struct item *item = &join->items_owned[join->batch_items[i]];
        struct apart apart = {
            .event = &join->batch[i], .flags = EVENT_OUTLIER, .cites = APART_CITES_LATER};
        item->number = join->room->next_apart;
        join->stored_count++;
        TRY(apart_put(join->hs, batch, join->room, &apart, &rows));
    }
    return apart_write(join->hs, batch, join->room, &rows);
}

static struct err flush(struct intake_join *join, struct ctx *ctx)
{
    struct ctx batch = batch_ctx(join, ctx);
    uint64_t lane = lane_of_room(join->room->number);
    if (join->batch_count == 0) {
        return OK;
    }
    workers_lane_enter(join->hs->workers, lane);
    struct err err = put_batch(join, &batch);
    if (err.code != 0) {
        room_mark_broken(join->hs, join->room);
    }
    workers_lane_leave(join->hs->workers, lane);
    err = leave_batch(ctx, &batch, err);
    join->batch_count = 0;
    join->batch_bytes = 0;
    arena_reset(join->batch_owned);
    return err;
}

static struct item *new_item(struct intake_join *join, struct slice id)
{
    if (join->count == join->cap) {
        join->cap = join->cap ? join->cap * 2 : 256;
        join->items_owned = mem_grow(join->items_owned, join->cap * sizeof *join->items_owned);
    }
    join->items_owned[join->count] = (struct item){0};
    map_set(join->ids, id, join->count + 1);
    return &join->items_owned[join->count++];
}

/* An event that is here from before: it was judged when it came. */
static struct err find_here(struct intake_join *join, struct ctx *ctx, struct slice id,
                            struct item *item)
{
    struct ctx own = room_page_begin(ctx);
    struct stored_event event;
    bool found = false;
    struct err err = hs_event_find(join->hs, &own, join->room, id, &event, &found);
    if (err.code == 0 && found) {
        item->number = event.number;
        item->verdict = event.flags & EVENT_REJECTED ? VERDICT_REFUSED : VERDICT_NONE;
    }
    return room_page_end(ctx, &own, err);
}

struct err hs_intake_join_add(struct intake_join *join, struct ctx *ctx, enum intake_join_role role,
                              const struct event *event)
{
    uint64_t at = 0;
    if (!slice_eq(event->room_id.s, hs_room_info(join->room).room_id)) {
        return OK; /* left out */
    }
    if (map_get(join->ids, event->id.s, &at)) {
        struct item *known = &join->items_owned[at - 1];
        known->in_state = known->in_state || role == INTAKE_JOIN_STATE;
        return OK;
    }
    struct item *item = new_item(join, event->id.s);
    item->in_state = role == INTAKE_JOIN_STATE;
    TRY(find_here(join, ctx, event->id.s, item));
    if (item->number) {
        return OK;
    }
    TRY(copy_event(join->batch_owned, join->room->rules, event, &join->batch[join->batch_count]));
    join->batch_items[join->batch_count++] = join->count - 1;
    join->batch_bytes += event->json.len;
    bool full = join->batch_count == BATCH_EVENTS_MAX || join->batch_bytes > BATCH_BYTES_MAX;
    return full ? flush(join, ctx) : OK;
}

/* --- judging, each event after those that it cites --- */

static void push(struct intake_join *join, size_t at)
{
    if (join->stack_count == join->stack_cap) {
        join->stack_cap = join->stack_cap ? join->stack_cap * 2 : 64;
        join->stack_owned =
            mem_grow(join->stack_owned, join->stack_cap * sizeof *join->stack_owned);
    }
    join->stack_owned[join->stack_count++] = at;
}

/* Puts what the event cites on the stack; whether it had to. One that is met again before it is
 * judged closes a cycle, which no honest event can. */
static bool push_cited(struct intake_join *join, const struct event *event)
{
    size_t before = join->stack_count;
    for (size_t i = 0; i < event->auth_event_count; i++) {
        uint64_t at = 0;
        if (!map_get(join->ids, event->auth_events[i].s, &at)) {
            continue;
        }
        if (join->items_owned[at - 1].verdict == VERDICT_NONE) {
            push(join, at - 1);
        }
    }
    return join->stack_count > before;
}

static struct err refuse(struct intake_join *join, struct ctx *page, struct item *item,
                         const struct event *event)
{
    struct apart_rows rows;
    struct apart apart = {.event = event,
                          .flags = EVENT_OUTLIER | EVENT_REJECTED,
                          .number = item->number,
                          .cites = APART_CITES_LATER};
    item->verdict = VERDICT_REFUSED;
    apart_rows_begin(page, join->room, &rows);
    TRY(apart_put(join->hs, page, join->room, &apart, &rows));
    return apart_write(join->hs, page, join->room, &rows);
}

static bool cites_unjudged(const struct intake_join *join, const struct event *event)
{
    for (size_t i = 0; i < event->auth_event_count; i++) {
        uint64_t at = 0;
        if (map_get(join->ids, event->auth_events[i].s, &at) &&
            join->items_owned[at - 1].verdict == VERDICT_BUSY) {
            return true;
        }
    }
    return false;
}

static struct err judge(struct intake_join *join, struct ctx *page, struct item *item,
                        const struct stored_event *stored)
{
    struct judging judging = {
        .hs = join->hs, .ctx = page, .room = join->room, .event = &stored->event};
    struct event_id *missing = NULL;
    struct auth_verdict verdict = {0};
    size_t missing_count = 0;
    bool found = false;
    TRY(judging_load_cited(&judging, &missing, &missing_count));
    if (missing_count == 0 && !cites_unjudged(join, &stored->event)) {
        TRY(judging_by_cited(&judging, &verdict));
    }
    if (stored->event.has_state_key) {
        TRY(hs_state_key_find(join->hs, page, join->room, stored->event.type,
                              stored->event.state_key, &item->key, &found));
    }
    item->verdict = VERDICT_ALLOWED;
    bool has_place = !(stored->flags & EVENT_OUTLIER);
    return verdict.allowed || has_place ? OK : refuse(join, page, item, &stored->event);
}

static struct err keep_cites(struct intake_join *join, struct ctx *page, const struct item *item,
                             const struct event *event)
{
    struct store_update *derived =
        store_update_new(page, room_derived_object(page, join->room->number));
    struct room_citing citing = {.event = event, .number = item->number, .key = item->key};
    if (!item->key || !(join->is_first || join->room->keeps_cites)) {
        return OK;
    }
    TRY(room_cites_put(join->hs, page, join->room, &citing, derived));
    return store_write(join->hs->store, page, &derived, 1);
}

/* The event on top of the stack: it goes, or what it cites comes first. */
static struct err judge_top(struct intake_join *join, struct ctx *page)
{
    struct item *item = &join->items_owned[join->stack_owned[join->stack_count - 1]];
    struct stored_event stored;
    bool found = false;
    if (item->verdict == VERDICT_ALLOWED || item->verdict == VERDICT_REFUSED) {
        join->stack_count--;
        return OK;
    }
    TRY(room_event_once(join->hs, page, join->room, item->number, &stored, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "an event of a join is missing");
    }
    bool is_new = item->verdict == VERDICT_NONE;
    item->verdict = VERDICT_BUSY;
    if (is_new && push_cited(join, &stored.event)) {
        return OK;
    }
    join->stack_count--;
    TRY(judge(join, page, item, &stored));
    return keep_cites(join, page, item, &stored.event);
}

static struct err judge_all(struct intake_join *join, struct ctx *page)
{
    for (size_t i = 0; i < join->count; i++) {
        push(join, i);
        while (join->stack_count) {
            TRY(judge_top(join, page));
            room_page_next(page);
        }
    }
    return OK;
}

/* --- finish --- */

static struct err make_state(struct intake_join *join, struct ctx *page, uint64_t *root_out)
{
    struct state_entries entries = {
        .items = arena_array(page->arena, join->count + 1, sizeof *entries.items)};
    for (size_t i = 0; i < join->count; i++) {
        const struct item *item = &join->items_owned[i];
        if (item->in_state && item->key && item->verdict == VERDICT_ALLOWED) {
            entries.items[entries.count++] = (struct state_entry){item->key, item->number};
        }
    }
    return intake_state_put(join->hs, page, join->room, entries, root_out);
}

/* Spec: server-server, "Joining Rooms": the state must be that of the room asked for. */
static struct err check_create(struct intake_join *join, struct ctx *ctx, uint64_t root)
{
    struct stored_event create;
    bool found = false;
    TRY(hs_state_event(join->hs, ctx, join->room, root, LIT("m.room.create"), LIT(""), &create,
                       &found));
    if (!found) {
        return err_public(ERR_M_FORBIDDEN, "The room's state lacks its create event.");
    }
    struct slice version = json_get_string(create.event.content, LIT("room_version"));
    version = version.ptr ? version : LIT("1");
    if (!slice_eq(version, join->room->rules->version)) {
        return err_public(ERR_M_FORBIDDEN, "The room's create event is of another room version.");
    }
    return OK;
}

static struct err check_join(struct intake_join *join, struct ctx *ctx, uint64_t root)
{
    struct judging judging = {.hs = join->hs,
                              .ctx = ctx,
                              .room = join->room,
                              .event = &join->join,
                              .fill_members = join->is_partial};
    struct auth_verdict verdict;
    struct event_id *missing = NULL;
    size_t missing_count = 0;
    TRY(judging_load_cited(&judging, &missing, &missing_count));
    if (missing_count) {
        return err_public(ERR_M_FORBIDDEN, "The join cites events that are not in its auth chain.");
    }
    TRY(judging_by_cited(&judging, &verdict));
    TRY(auth_error(ctx->arena, &verdict));
    TRY(judging_by_state(&judging, root, &verdict));
    return auth_error(ctx->arena, &verdict);
}

static struct err append_join(struct intake_join *join, struct ctx *ctx, uint64_t root,
                              struct hs_sent *sent_out)
{
    struct stored_event known;
    bool found = false;
    TRY(hs_event_find(join->hs, ctx, join->room, join->join.id.s, &known, &found));
    if (found && !(known.flags & (EVENT_OUTLIER | EVENT_REJECTED))) {
        *sent_out = (struct hs_sent){
            .event_id = known.event.id.s, .number = known.number, .pos = known.pos};
        return OK;
    }
    struct room_partial partial = {.join = room_live_number(join->room, EVENT_AFTER_GAP),
                                   .apart = join->room->next_apart,
                                   .servers = join->servers,
                                   .server_count = join->server_count};
    struct store_update *more[2];
    room_partial_put(ctx, join->room, join->is_partial ? &partial : NULL, more);
    struct room_append append = {.event = &join->join,
                                 .flags = EVENT_AFTER_GAP | EVENT_RESTART |
                                          (join->is_partial ? EVENT_PARTIAL : 0),
                                 .state_before = root,
                                 .adopted_from = found ? known.number : 0,
                                 .more = more,
                                 .more_count = 2};
    int64_t was = join->room->partial_join;
    room_partial_set(join->room,
                     join->is_partial ? partial.join : 0); /* before anybody can see the join */
    struct err err = intake_append(join->hs, ctx, join->room, &append, sent_out);
    if (err.code != 0) {
        room_partial_set(join->room, was);
        return err;
    }
    sent_out->event_id = arena_copy(ctx->arena, sent_out->event_id);
    return OK;
}

static struct err finish_in_lane(struct intake_join *join, struct ctx *ctx,
                                 struct hs_sent *sent_out)
{
    struct ctx page = batch_ctx(join, ctx);
    uint64_t root = 0;
    TRY(room_check_there(join->room));
    struct err err = judge_all(join, &page);
    bool alone = join->room->next_apart - EVENT_APART_FIRST == join->stored_count;
    if (err.code == 0 && join->is_first && alone) { /* all rows were written just now */
        err = room_cites_begin(join->hs, &page, join->room);
    }
    if (err.code == 0) {
        err = make_state(join, &page, &root);
    }
    TRY(leave_batch(ctx, &page, err));
    arena_reset(join->batch_owned);
    TRY(check_create(join, ctx, root));
    TRY(check_join(join, ctx, root));
    return append_join(join, ctx, root, sent_out);
}

struct err hs_intake_join_finish(struct intake_join **join_io, struct ctx *ctx,
                                 struct room **room_out, struct hs_sent *sent_out)
{
    struct intake_join *join = *join_io;
    struct hs *hs = join->hs;
    uint64_t number = join->room->number;
    uint64_t lane = lane_of_room(number);
    struct err err = flush(join, ctx);
    if (err.code == 0) {
        workers_lane_enter(hs->workers, lane);
        err = finish_in_lane(join, ctx, sent_out);
        if (err.code != 0 && err.code < ERR_MATRIX_FIRST) {
            room_mark_broken(hs, join->room);
        }
        workers_lane_leave(hs->workers, lane);
    }
    hs_intake_join_abort(join_io);
    TRY(err);
    return hs_room_get(hs, ctx, number, room_out);
}
