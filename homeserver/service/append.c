/* Appending to a room's log: the commit point. The event's row, its state snapshot and all that
 * derives from it are handed to the store in one call. */
#include "homeserver/base/mem.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/room_priv.h"

#include <string.h>

enum { TXN_ID_BYTES_MAX = 1024 };

struct append_work {
    struct derive derive;
    const struct room_append *append;
    struct room_record record;
    struct store_update *log, *ids, *state, *keys;
    struct slice row;      /* the event's */
    struct room_head head; /* after the event */
    struct extremities ends;
    uint64_t key;    /* of its type and state key */
    uint64_t *extra; /* positions of members that change beside the event, before its own */
    size_t extra_count;
    struct event pruned; /* of an event that was redacted before it came */
};

/* The state after the event itself. */
static struct err append_state(struct append_work *w)
{
    struct derive *d = &w->derive;
    struct hs *hs = d->hs;
    uint64_t before = w->append->has_before ? w->append->state_before : d->room->head.root;
    w->record.state_before = before;
    w->record.state_after = before;
    if (!d->event->has_state_key) {
        return OK;
    }
    int64_t replaced = 0;
    bool found = false;
    w->record.flags |= EVENT_STATE;
    w->keys = store_update_new(d->ctx, room_object(d->ctx, d->room->number));
    TRY(room_state_key_intern(hs, d->ctx, d->room, d->event->type, d->event->state_key, w->keys,
                              &w->key));
    if (before) {
        TRY(state_get(hs->states, d->ctx, d->room->number, before, w->key, &replaced, &found));
    }
    w->record.replaces = found ? replaced : 0;
    struct state_entry change = {.key = w->key, .event = d->number};
    w->state = store_update_new(d->ctx, room_state_object(d->ctx, d->room->number));
    return state_apply(hs->states, d->ctx, d->room->number, before, &change, 1, w->state,
                       &w->record.state_after);
}

/* After the resolution that the event may call for: it may be the room's first, with which the
 * index begins, of what the log holds then. */
static struct err append_cites(struct append_work *w)
{
    const struct derive *d = &w->derive;
    struct room_citing citing = {.event = d->event, .number = d->number, .key = w->key};
    return w->key ? room_cites_add(d->hs, d->ctx, d->room, &citing, d->derived) : OK;
}

/* A local event cites extremities; another may cite what stands behind them. */
static struct err append_cited(struct append_work *w, struct room_cited *cited_out)
{
    const struct derive *d = &w->derive;
    const struct event *event = d->event;
    const struct room *room = d->room;
    bool plain = room->extremity_count == 1 && event->prev_event_count == 1 &&
                 slice_eq(event->prev_events[0].s, slice_of(room->extremities_owned[0].event_id));
    *cited_out = (struct room_cited){.ids = (struct event_id *)(uintptr_t)event->prev_events,
                                     .count = event->prev_event_count};
    return plain || !w->append->is_foreign
               ? OK
               : room_cited_load(d->hs, d->ctx, d->room, event, cited_out);
}

/* The state is to be read before the event is there. */
static struct err write_state_early(struct append_work *w)
{
    struct store_update *early[] = {w->state, w->keys};
    if (!w->state) {
        return OK;
    }
    TRY(store_write(w->derive.hs->store, w->derive.ctx, early, COUNT_OF(early)));
    w->state = NULL;
    return OK;
}

/* The room's state, which is that after the event where the graph does not fork. */
static struct err append_ends(struct append_work *w)
{
    struct derive *d = &w->derive;
    struct extremity own = {
        .number = d->number, .root = w->record.state_after, .depth = d->event->depth};
    struct room_cited cited;
    memcpy(own.event_id, d->event->id.s.ptr, d->event->id.s.len);
    TRY(append_cited(w, &cited));
    bool restarts = (w->append->flags & EVENT_RESTART) != 0;
    room_extremities_after(d->ctx, d->room, restarts ? NULL : &cited, &own, &w->ends);
    w->record.room_root = w->record.state_after;
    if (w->ends.count == 1) {
        return OK;
    }
    int64_t *numbers = arena_array(d->ctx->arena, w->ends.count, sizeof *numbers);
    for (size_t i = 0; i < w->ends.count; i++) {
        numbers[i] = w->ends.items[i].number;
    }
    w->record.extremities = numbers;
    w->record.extremity_count = w->ends.count;
    TRY(write_state_early(w));
    w->ends.event = d->event;
    w->ends.number = d->number;
    TRY(room_extremities_root(d->hs, d->ctx, d->room, &w->ends, &w->record.room_root));
    w->record.flags |= w->record.room_root == w->record.state_after ? 0 : EVENT_FORKED;
    return OK;
}

/* What is another in the room's state than before. */
static struct err append_changes(struct append_work *w)
{
    struct derive *d = &w->derive;
    struct derive_states states = {d->room->head.root, w->record.room_root};
    if (w->record.state_before == states.before && w->record.room_root == w->record.state_after) {
        TRY(derive_member(d));
        derive_count(d, &w->head);
        return OK;
    }
    TRY(write_state_early(w));
    return derive_difference(d, states, &w->head);
}

/* The local user that the change of the event itself names; others get positions of their own,
 * which come first, so that whoever is woken by one finds the event in its turn. */
static bool is_extra(const struct derived_member *member)
{
    return member->is_local && !member->is_own &&
           (member->is_new || member->membership != member->previous);
}

static void reserve_positions(struct append_work *w)
{
    struct derive *d = &w->derive;
    w->extra = arena_array(d->ctx->arena, d->members.count, sizeof *w->extra);
    for (size_t i = 0; i < d->members.count; i++) {
        if (is_extra(&d->members.items[i])) {
            w->extra[w->extra_count++] = positions_reserve(d->hs->positions);
        }
    }
    d->pos = positions_reserve(d->hs->positions);
    w->record.pos = d->pos;
}

static struct slice txn_key(struct ctx *ctx, struct slice device_id, struct slice type,
                            struct slice txn_id)
{
    struct slice scope = state_pair(ctx, device_id, type);
    return key_bytes(ctx, ROOM_KEY_TXN, state_pair(ctx, scope, txn_id));
}

static void put_rows(struct append_work *w)
{
    struct derive *d = &w->derive;
    struct buf row;
    struct buf where;
    w->record.joined_count = w->head.joined_count;
    w->record.invited_count = w->head.invited_count;
    w->record.next_key = d->room->next_key;
    buf_init_arena(&row, d->ctx->arena, SIZE_MAX / 2);
    room_record_encode(&row, &w->record);
    w->row = buf_slice(&row);
    store_put(w->log, key_i64(d->ctx, ROOM_KEY_EVENT, d->number), w->row);
    buf_init_arena(&where, d->ctx->arena, 32);
    pack_u64(&where, d->room->number);
    pack_i64(&where, d->number);
    store_put(w->ids, d->event->id.s, buf_slice(&where));
    /* What derives from the event is written up to here; see load_room for the case that it is not.
     */
    struct buf mark;
    buf_init_arena(&mark, d->ctx->arena, 16);
    pack_i64(&mark, d->number);
    store_put(d->derived, key_bytes(d->ctx, DERIVED_KEY_WATERMARK, (struct slice){0}),
              buf_slice(&mark));
    if (w->append->txn_id.ptr) {
        struct buf answer;
        buf_init_arena(&answer, d->ctx->arena, 300);
        pack_i64(&answer, d->number);
        pack_u64(&answer, d->pos);
        buf_add(&answer, d->event->id.s);
        store_put(w->log, txn_key(d->ctx, w->append->device_id, d->event->type, w->append->txn_id),
                  buf_slice(&answer));
    }
}

/* A redaction may have come before the event: then it is stored without what was redacted. */
static struct err append_pruned(struct append_work *w)
{
    struct derive *d = &w->derive;
    if (!w->append->is_foreign) {
        return OK;
    }
    TRY(derive_waiting_redaction(d, w->log, &w->record.redacted_by));
    if (w->record.redacted_by) {
        TRY(event_redacted(d->ctx->arena, d->event, &w->pruned));
        d->event = &w->pruned;
        w->record.json = w->pruned.json;
        w->record.flags |= EVENT_REDACTED;
    }
    return OK;
}

/* The event had a number without a place: whoever names it finds it here. */
static void put_forward(struct append_work *w)
{
    struct derive *d = &w->derive;
    struct buf row;
    if (!w->append->adopted_from) {
        return;
    }
    w->record.flags |= EVENT_ADOPTED;
    w->record.adopted_from = w->append->adopted_from;
    buf_init_arena(&row, d->ctx->arena, 16);
    room_forward_encode(&row, d->number);
    store_put(w->log, key_i64(d->ctx, ROOM_KEY_EVENT, w->append->adopted_from), buf_slice(&row));
}

static struct err prepare(struct append_work *w)
{
    struct derive *d = &w->derive;
    w->log = store_update_new(d->ctx, room_object(d->ctx, d->room->number));
    w->ids = store_update_new(d->ctx, (struct store_object){STORE_EVENT_IDS, LIT("ids")});
    d->derived = store_update_new(d->ctx, room_derived_object(d->ctx, d->room->number));
    put_forward(w);
    TRY(append_pruned(w));
    TRY(append_state(w));
    TRY(append_ends(w));
    TRY(append_cites(w));
    TRY(append_changes(w));
    TRY(derive_related(d, &w->record.flags));
    TRY(derive_relation(d, w->log));
    TRY(derive_redaction(d, w->log));
    TRY(room_edges_derive(d, w->append->flags));
    return OK;
}

static struct err finish(struct append_work *w)
{
    reserve_positions(w);
    TRY(derive_members_write(&w->derive));
    w->record.flags |= w->derive.is_withheld ? EVENT_WITHHELD : 0;
    put_rows(w);
    return OK;
}

static void drop_cached_rows(struct append_work *w)
{
    struct derive *d = &w->derive;
    struct row_cache *cache = d->hs->rooms->rows_owned;
    for (size_t i = 0; i < COUNT_OF(d->rewritten); i++) {
        if (d->rewritten[i]) {
            row_cache_drop(cache, d->room->number, d->rewritten[i]);
        }
    }
    if (w->append->adopted_from) {
        row_cache_drop(cache, d->room->number, w->append->adopted_from);
    }
}

static struct err write_all(struct append_work *w)
{
    struct derive *d = &w->derive;
    size_t count = 0;
    struct store_update **updates = arena_array(
        d->ctx->arena, 5 + d->user_count + w->append->more_count, sizeof(struct store_update *));
    updates[count++] = w->log;
    updates[count++] = w->ids;
    updates[count++] = d->derived;
    if (w->state) {
        updates[count++] = w->state;
        updates[count++] = w->keys;
    }
    for (size_t i = 0; i < d->user_count; i++) {
        updates[count++] = d->users[i];
    }
    for (size_t i = 0; i < w->append->more_count; i++) {
        updates[count++] = w->append->more[i];
    }
    struct row_cache *cache = d->hs->rooms->rows_owned;
    uint64_t version = row_cache_version(cache);
    struct err err = store_write(d->hs->store, d->ctx, updates, count);
    if (err.code == 0) {
        row_cache_offer(cache, d->room->number, d->number, w->row, version);
    }
    drop_cached_rows(w);
    return err;
}

static void set_head(struct append_work *w)
{
    struct room *room = w->derive.room;
    pthread_mutex_lock(&room->lock);
    w->head.receipt_pos = room->head.receipt_pos;
    room->head = w->head;
    room->is_ahead = room->is_ahead && !w->derive.is_ahead;
    pthread_mutex_unlock(&room->lock);
    if (w->derive.is_ahead) {
        room_servers_forget(room);
    } else {
        room_servers_change(room, &w->derive.members);
    }
}

/* The room in memory follows its log. */
static void adopt(struct append_work *w)
{
    const struct derive *d = &w->derive;
    struct room *room = d->room;
    room_extremities_set(room, &w->ends);
    room->next_number = d->number + 1;
    w->head.number = d->number;
    w->head.redaction = d->rewritten[1] ? d->number : w->head.redaction;
    w->head.pos = d->pos;
    w->head.root = w->record.room_root;
    if (d->event->has_state_key) {
        room_state_cache_drop(room, state_pair(d->ctx, d->event->type, d->event->state_key));
    }
    set_head(w);
}

static void publish(struct append_work *w, enum change_kind kind)
{
    const struct derive *d = &w->derive;
    struct change change = {
        .pos = d->pos, .kind = kind, .room = d->room->number, .number = d->number};
    change.gate = ctx_gate(d->ctx);
    change.before = kind == CHANGE_EVENT && !d->event->has_state_key ? w->record.state_before : 0;
    size_t extra = 0;
    for (size_t i = 0; i < d->members.count; i++) {
        const struct derived_member *member = &d->members.items[i];
        room_entry_forget(d->room, member->user);
        if (member->is_local) {
            room_local_user_set(d->room, member->user, member->membership);
            change.user = member->is_own ? member->user : change.user;
        }
        if (is_extra(member)) {
            struct change beside = {.pos = w->extra[extra++],
                                    .kind = CHANGE_MEMBERSHIP,
                                    .room = d->room->number,
                                    .user = member->user};
            positions_complete(d->hs->positions, &beside, d->ctx->write_ticket);
        }
    }
    positions_complete(d->hs->positions, &change, d->ctx->write_ticket);
}

static void give_up(struct append_work *w)
{
    for (size_t i = 0; i < w->extra_count; i++) {
        positions_abandon(w->derive.hs->positions, w->extra[i]);
    }
    if (w->derive.pos) {
        positions_abandon(w->derive.hs->positions, w->derive.pos);
    }
    room_mark_broken(w->derive.hs, w->derive.room);
}

int64_t room_live_number(const struct room *room, uint32_t flags)
{
    int64_t next = room->next_number ? room->next_number : 1;
    bool is_apart = (flags & EVENT_AFTER_GAP) && room->head.number > 0;
    return is_apart ? next + INTAKE_GAP_NUMBERS : next;
}

struct err room_append(struct hs *hs, struct ctx *ctx, struct room *room,
                       const struct room_append *append, struct hs_sent *sent_out)
{
    TRY(room_check_there(room));
    struct append_work w = {
        .derive = {.hs = hs,
                   .ctx = ctx,
                   .room = room,
                   .event = append->event,
                   .sender = append->sender,
                   .is_foreign = append->is_foreign,
                   .number = room_live_number(room, append->flags)},
        .append = append,
        .head = room->head,
    };
    w.record = (struct room_record){.flags = append->flags | (room->is_partial ? EVENT_PARTIAL : 0),
                                    .sender = append->sender,
                                    .device_id = append->device_id,
                                    .txn_id = append->txn_id,
                                    .event_id = append->event->id.s,
                                    .json = append->event->json};
    w.derive.is_withheld =
        !append->event->has_state_key && slice_eq(append->event->type, ROOM_DUMMY_TYPE);
    struct err err = prepare(&w);
    if (err.code == 0) {
        err = finish(&w);
    }
    if (err.code == 0) {
        err = write_all(&w);
    }
    if (err.code != 0) {
        give_up(&w);
        return err;
    }
    adopt(&w);
    publish(&w, CHANGE_EVENT);
    *sent_out = (struct hs_sent){
        .event_id = append->event->id.s, .number = w.derive.number, .pos = w.derive.pos};
    return OK;
}

/* --- a state without an event --- */

static struct err load_newest(struct append_work *w, const struct room_move *move)
{
    struct derive *d = &w->derive;
    struct slice row;
    bool found = false;
    TRY(store_get(d->hs->store, d->ctx, room_object(d->ctx, d->room->number),
                  key_i64(d->ctx, ROOM_KEY_EVENT, move->number), &row, &found));
    return found ? room_record_decode(d->ctx->arena, row, &w->record)
                 : err_make(ERR_CORRUPT, "the newest event of a room is missing");
}

static struct err prepare_move(struct append_work *w, const struct room_move *move)
{
    struct derive *d = &w->derive;
    struct derive_states states = {d->room->head.root, move->root};
    w->log = store_update_new(d->ctx, room_object(d->ctx, d->room->number));
    w->ids = store_update_new(d->ctx, (struct store_object){STORE_EVENT_IDS, LIT("ids")});
    d->derived = store_update_new(d->ctx, room_derived_object(d->ctx, d->room->number));
    TRY(load_newest(w, move));
    return derive_difference(d, states, &w->head);
}

static void put_moved(struct append_work *w, const struct room_move *move)
{
    struct derive *d = &w->derive;
    struct buf row;
    int64_t *numbers = arena_array(d->ctx->arena, move->ends.count, sizeof *numbers);
    for (size_t i = 0; i < move->ends.count; i++) {
        numbers[i] = move->ends.items[i].number;
    }
    w->record.extremities = numbers;
    w->record.extremity_count = move->ends.count;
    w->record.flags |= EVENT_LATER;
    w->record.later_pos = d->pos;
    w->record.later_root = move->root;
    w->record.joined_count = w->head.joined_count;
    w->record.invited_count = w->head.invited_count;
    buf_init_arena(&row, d->ctx->arena, SIZE_MAX / 2);
    room_record_encode(&row, &w->record);
    w->row = buf_slice(&row);
    store_put(w->log, key_i64(d->ctx, ROOM_KEY_EVENT, move->number), w->row);
}

static struct err write_move(struct append_work *w, const struct room_move *move)
{
    struct derive *d = &w->derive;
    uint64_t pos = 0;
    TRY(prepare_move(w, move));
    pos = w->record.pos;
    reserve_positions(w);
    w->record.pos = pos;
    TRY(derive_members_write(d));
    put_moved(w, move);
    if (move->completes) {
        room_partial_put_end(d->ctx, w->log, d->pos);
    }
    TRY(write_all(w));
    row_cache_drop(d->hs->rooms->rows_owned, d->room->number, move->number);
    return OK;
}

struct err room_move(struct hs *hs, struct ctx *ctx, struct room *room,
                     const struct room_move *move)
{
    struct room_append append = {.more = move->more, .more_count = move->more_count};
    struct append_work w = {.derive = {.hs = hs, .ctx = ctx, .room = room, .number = move->number},
                            .append = &append,
                            .head = room->head,
                            .ends = move->ends};
    struct err err = write_move(&w, move);
    if (err.code != 0) {
        give_up(&w);
        return err;
    }
    room_extremities_set(room, &w.ends);
    w.head.number = move->number;
    w.head.pos = w.derive.pos;
    w.head.root = move->root;
    set_head(&w);
    if (move->completes) {
        room_partial_end(room, w.derive.pos); /* before anybody can see that position */
    }
    publish(&w, CHANGE_STATE_ONLY);
    return OK;
}

struct err hs_txn_find(struct hs *hs, struct ctx *ctx, struct room *room,
                       const struct hs_draft *draft, struct hs_sent *sent_out, bool *found_out)
{
    struct slice row;
    *found_out = false;
    if (!draft->txn_id.ptr) {
        return OK;
    }
    if (draft->txn_id.len > TXN_ID_BYTES_MAX) {
        return err_public(ERR_M_TOO_LARGE, "The transaction id is too long.");
    }
    TRY(store_get(hs->store, ctx, room_object(ctx, room->number),
                  txn_key(ctx, draft->device_id, draft->type, draft->txn_id), &row, found_out));
    if (*found_out) {
        struct unpack in = unpack_of(row);
        *sent_out = (struct hs_sent){.replayed = true};
        sent_out->number = unpack_i64(&in);
        sent_out->pos = unpack_u64(&in);
        sent_out->event_id = in.rest;
        TRY(unpack_check(&in));
    }
    return OK;
}
