/* History from before what is here, or from a gap: placed below an event, numbers going down.
 * Nothing of it changes the room's state or its forward extremities. */
#include "homeserver/service/intake_priv.h"
#include "homeserver/service/news.h"
#include "homeserver/service/users.h"

struct placing {
    struct judging judging;
    struct stored_event known; /* the event, if it is here without a place */
    bool is_known;
    int64_t number;
    uint64_t pos;
    uint64_t before, after;
    struct room_record record;
    struct store_update *log, *ids, *state;
    struct derive derive;
    struct event pruned;
};

static struct err lowest_number(struct hs *hs, struct ctx *ctx, const struct room *room,
                                int64_t *lowest_out)
{
    struct store_rows rows;
    struct store_range range = {.from = key_i64(ctx, ROOM_KEY_EVENT, EVENT_APART_LAST),
                                .to = key_i64(ctx, ROOM_KEY_EVENT, 0),
                                .limit = 1};
    TRY(store_read_range(hs->store, ctx, room_object(ctx, room->number), range, &rows));
    struct unpack key = unpack_of(rows.count ? slice_from(rows.rows[0].key, 1) : LIT(""));
    *lowest_out = rows.count ? unpack_be_i64(&key) : 0;
    return OK;
}

/* The state after all of its prev events, when they are here and their states are whole; otherwise
 * `before` stays what it is after the event before it. */
static struct err find_before(struct placing *p)
{
    const struct judging *j = &p->judging;
    uint64_t *roots = arena_array(j->ctx->arena, j->event->prev_event_count + 1, sizeof *roots);
    for (size_t i = 0; i < j->event->prev_event_count; i++) {
        struct stored_event prev;
        bool found = false;
        TRY(hs_event_find(j->hs, j->ctx, j->room, j->event->prev_events[i].s, &prev, &found));
        if (!found || (prev.flags & (EVENT_OUTLIER | EVENT_PARTIAL))) {
            return OK;
        }
        roots[i] = prev.flags & EVENT_REJECTED ? prev.state_before : prev.state_after;
    }
    if (j->event->prev_event_count == 0) {
        p->before = 0;
        return OK;
    }
    struct room_states states = {.roots = roots, .count = j->event->prev_event_count};
    return room_resolve(j->hs, j->ctx, j->room, &states, &p->before);
}

static struct err judge(struct placing *p, bool *allowed_out)
{
    struct auth_verdict verdict;
    struct event_id *missing = NULL;
    size_t missing_count = 0;
    *allowed_out = false;
    TRY(judging_load_cited(&p->judging, &missing, &missing_count));
    if (missing_count) {
        return OK;
    }
    TRY(judging_by_cited(&p->judging, &verdict));
    if (verdict.allowed) {
        TRY(judging_by_state(&p->judging, p->before, &verdict));
    }
    *allowed_out = verdict.allowed;
    return OK;
}

static struct err put_state(struct placing *p)
{
    const struct judging *j = &p->judging;
    struct room_citing citing = {.event = j->event, .number = p->number};
    int64_t replaced = 0;
    bool found = false;
    p->after = p->before;
    if (!j->event->has_state_key) {
        return OK;
    }
    p->record.flags |= EVENT_STATE;
    TRY(room_state_key_intern(j->hs, j->ctx, j->room, j->event->type, j->event->state_key, p->log,
                              &citing.key));
    TRY(room_cites_add(j->hs, j->ctx, j->room, &citing, p->derive.derived));
    if (p->before) {
        TRY(state_get(j->hs->states, j->ctx, j->room->number, p->before, citing.key, &replaced,
                      &found));
    }
    p->record.replaces = found ? replaced : 0;
    struct state_entry change = {.key = citing.key, .event = p->number};
    return state_apply(j->hs->states, j->ctx, j->room->number, p->before, &change, 1, p->state,
                       &p->after);
}

static struct err derive_all(struct placing *p)
{
    struct derive *d = &p->derive;
    TRY(derive_waiting_redaction(d, p->log, &p->record.redacted_by));
    if (p->record.redacted_by) {
        TRY(event_redacted(d->ctx->arena, d->event, &p->pruned));
        d->event = &p->pruned;
        p->record.json = p->pruned.json;
        p->record.flags |= EVENT_REDACTED;
    }
    TRY(put_state(p));
    TRY(derive_related(d, &p->record.flags));
    TRY(derive_relation(d, p->log));
    TRY(derive_redaction(d, p->log));
    return room_edges_derive(d, EVENT_AFTER_GAP);
}

static void put_rows(struct placing *p)
{
    struct ctx *ctx = p->judging.ctx;
    uint64_t room = p->judging.room->number;
    struct buf row;
    struct buf where;
    p->record.pos = p->pos;
    p->record.flags |= EVENT_HISTORY;
    p->record.state_before = p->before;
    p->record.state_after = p->after;
    p->record.next_key = p->judging.room->next_key;
    p->record.flags |= p->derive.is_withheld ? EVENT_WITHHELD : 0;
    if (p->is_known) {
        struct buf forward;
        p->record.flags |= EVENT_ADOPTED;
        p->record.adopted_from = p->known.number;
        buf_init_arena(&forward, ctx->arena, 16);
        room_forward_encode(&forward, p->number);
        store_put(p->log, key_i64(ctx, ROOM_KEY_EVENT, p->known.number), buf_slice(&forward));
    }
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    room_record_encode(&row, &p->record);
    store_put(p->log, key_i64(ctx, ROOM_KEY_EVENT, p->number), buf_slice(&row));
    buf_init_arena(&where, ctx->arena, 32);
    pack_u64(&where, room);
    pack_i64(&where, p->number);
    store_put(p->ids, p->judging.event->id.s, buf_slice(&where));
}

static struct err write_all(struct placing *p)
{
    struct judging *j = &p->judging;
    struct store_update *updates[] = {p->state, p->log, p->ids, p->derive.derived};
    TRY(store_write(j->hs->store, j->ctx, updates, COUNT_OF(updates)));
    const int64_t stale[] = {p->derive.rewritten[0], p->derive.rewritten[1],
                             p->is_known ? p->known.number : 0};
    for (size_t i = 0; i < COUNT_OF(stale); i++) {
        if (stale[i]) {
            row_cache_drop(j->hs->rooms->rows_owned, j->room->number, stale[i]);
        }
    }
    return OK;
}

static struct err place(struct placing *p)
{
    struct judging *j = &p->judging;
    p->log = store_update_new(j->ctx, room_object(j->ctx, j->room->number));
    p->ids = store_update_new(j->ctx, (struct store_object){STORE_EVENT_IDS, LIT("ids")});
    p->state = store_update_new(j->ctx, room_state_object(j->ctx, j->room->number));
    p->derive = (struct derive){
        .hs = j->hs,
        .ctx = j->ctx,
        .room = j->room,
        .event = j->event,
        .number = p->number,
        .is_foreign = true,
        .is_withheld = !j->event->has_state_key && slice_eq(j->event->type, ROOM_DUMMY_TYPE),
        .derived = store_update_new(j->ctx, room_derived_object(j->ctx, j->room->number))};
    TRY(hs_user_intern(j->hs, j->ctx, j->event->sender.s, &p->derive.sender));
    p->record = (struct room_record){
        .sender = p->derive.sender, .event_id = j->event->id.s, .json = j->event->json};
    TRY(derive_all(p));
    put_rows(p);
    return write_all(p);
}

/* One event; `*root_io` is the state after the one before it, and then after this. */
static struct err take_one(struct placing *p, uint64_t *root_io, size_t *added_io)
{
    struct judging *j = &p->judging;
    bool allowed = false;
    TRY(hs_event_find(j->hs, j->ctx, j->room, j->event->id.s, &p->known, &p->is_known));
    if (p->is_known && !(p->known.flags & EVENT_OUTLIER)) {
        if (p->known.flags & EVENT_PARTIAL) {
            return OK;
        }
        *root_io = p->known.flags & EVENT_REJECTED ? p->known.state_before : p->known.state_after;
        return OK;
    }
    p->before = *root_io;
    TRY(find_before(p));
    TRY(judge(p, &allowed));
    if (!allowed) {
        return OK;
    }
    TRY(place(p));
    *root_io = p->after;
    ++*added_io;
    return OK;
}

/* Where the events go: below `before`, above `floor`. */
struct place {
    int64_t before, floor;
    uint64_t pos; /* that of the event above, for events among live ones: they were seen with it */
};

static struct err find_place(struct hs *hs, struct ctx *ctx, struct room *room, int64_t before,
                             struct place *place_out)
{
    struct stored_event above;
    struct store_rows rows;
    bool found = false;
    *place_out = (struct place){.before = before, .floor = EVENT_APART_LAST};
    if (before == 0) {
        TRY(lowest_number(hs, ctx, room, &place_out->before));
        return OK;
    }
    TRY(hs_event_scan(hs, ctx, room, before, &above, &found));
    struct store_range below = {.from = key_i64(ctx, ROOM_KEY_EVENT, EVENT_APART_LAST),
                                .to = key_i64(ctx, ROOM_KEY_EVENT, before),
                                .limit = 1,
                                .order = STORE_REVERSE};
    TRY(store_read_range(hs->store, ctx, room_object(ctx, room->number), below, &rows));
    struct unpack key = unpack_of(rows.count ? slice_from(rows.rows[0].key, 1) : LIT(""));
    place_out->floor = rows.count ? unpack_be_i64(&key) : EVENT_APART_LAST;
    place_out->pos = found && place_out->floor > 0 ? above.pos : 0;
    return OK;
}

/* The k-th number below; 0 is none. */
static int64_t number_below(const struct place *place, int64_t k)
{
    int64_t number = place->before - k;
    return place->before > 0 && number <= 0 ? number - 1 : number;
}

static struct err take_all(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct intake_history *history, size_t *added_out)
{
    struct event_id *missing = NULL;
    size_t missing_count = 0;
    uint64_t root = 0;
    struct place place;
    struct state_wanted wanted = {history->state, history->state_count};
    TRY(room_check_there(room));
    TRY(find_place(hs, ctx, room, history->before, &place));
    TRY(intake_state_of(hs, ctx, room, wanted, &root, &missing, &missing_count));
    if (missing_count) {
        return err_public(ERR_M_NOT_FOUND, "Events of the state before the history are missing.");
    }
    struct history_note note = {.room = room->number,
                                .first = number_below(&place, (int64_t)history->count),
                                .last = number_below(&place, 1)};
    TRY(hs_news_history_begin(hs, ctx, &note));
    struct err err = OK;
    for (size_t i = 0; i < history->count && err.code == 0; i++) {
        struct placing *p = arena_alloc(ctx->arena, sizeof *p);
        p->judging =
            (struct judging){.hs = hs, .ctx = ctx, .room = room, .event = history->events[i]};
        p->number = number_below(&place, (int64_t)(history->count - i));
        p->pos = place.pos;
        if (p->number > place.floor &&
            slice_eq(history->events[i]->room_id.s, hs_room_info(room).room_id)) {
            err = take_one(p, &root, added_out);
        }
    }
    hs_news_history(hs, &note); /* also of what came before a failure */
    return err;
}

struct err hs_intake_history(struct hs *hs, struct ctx *ctx, struct room *room,
                             const struct intake_history *history, size_t *added_out)
{
    uint64_t lane = lane_of_room(room->number);
    *added_out = 0;
    workers_lane_enter(hs->workers, lane);
    struct err err = take_all(hs, ctx, room, history, added_out);
    if (err.code != 0 && err.code < ERR_MATRIX_FIRST) {
        room_mark_broken(hs, room);
    }
    workers_lane_leave(hs->workers, lane);
    return err;
}
