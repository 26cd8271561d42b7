/* Appending to a room's log: the commit point. The event's row, its state snapshot and all that
 * derives from it are handed to the store in one call. */
#include "homeserver/base/mem.h"
#include "homeserver/service/room_priv.h"

#include <string.h>

enum { TXN_ID_BYTES_MAX = 1024 };

struct append_work {
    struct derive derive;
    const struct room_append *append;
    struct room_record record;
    struct store_update *log, *ids, *state;
    struct slice row;      /* the event's */
    struct room_head head; /* after the event */
};

static struct err append_state(struct append_work *w)
{
    struct derive *d = &w->derive;
    struct hs *hs = d->hs;
    w->record.state_before = d->room->head.root;
    w->record.state_after = d->room->head.root;
    if (!d->event->has_state_key) {
        return OK;
    }
    uint64_t key = 0;
    int64_t replaced = 0;
    bool found = false;
    w->record.flags |= EVENT_STATE;
    TRY(room_state_key_intern(hs, d->ctx, d->room, d->event->type, d->event->state_key, w->log,
                              &key));
    if (d->room->head.root) {
        TRY(state_get(hs->states, d->ctx, d->room->number, d->room->head.root, key, &replaced,
                      &found));
    }
    w->record.replaces = found ? replaced : 0;
    struct state_entry change = {.key = key, .event = d->number};
    w->state = store_update_new(d->ctx, room_state_object(d->ctx, d->room->number));
    return state_apply(hs->states, d->ctx, d->room->number, d->room->head.root, &change, 1,
                       w->state, &w->record.state_after);
}

static void count_members(struct append_work *w)
{
    const struct derive *d = &w->derive;
    w->head.joined_count += d->membership == MEMBERSHIP_JOIN ? 1 : 0;
    w->head.joined_count -= d->previous == MEMBERSHIP_JOIN ? 1 : 0;
    w->head.invited_count += d->membership == MEMBERSHIP_INVITE ? 1 : 0;
    w->head.invited_count -= d->previous == MEMBERSHIP_INVITE ? 1 : 0;
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

static struct err prepare(struct append_work *w)
{
    struct derive *d = &w->derive;
    w->log = store_update_new(d->ctx, room_object(d->ctx, d->room->number));
    w->ids = store_update_new(d->ctx, (struct store_object){STORE_EVENT_IDS, LIT("ids")});
    d->derived = store_update_new(d->ctx, room_derived_object(d->ctx, d->room->number));
    TRY(append_state(w));
    TRY(derive_member(d));
    TRY(derive_relation(d, w->log));
    TRY(derive_redaction(d, w->log));
    count_members(w);
    put_rows(w);
    return OK;
}

static struct err write_all(struct append_work *w)
{
    struct store_update *updates[5] = {w->log, w->ids, w->derive.derived};
    size_t count = 3;
    if (w->state) {
        updates[count++] = w->state;
    }
    if (w->derive.user) {
        updates[count++] = w->derive.user;
    }
    struct derive *d = &w->derive;
    struct row_cache *cache = d->hs->rooms->rows_owned;
    uint64_t version = row_cache_version(cache);
    struct err err = store_write(d->hs->store, d->ctx, updates, count);
    if (err.code == 0) {
        row_cache_offer(cache, d->room->number, d->number, w->row, version);
    }
    for (size_t i = 0; i < COUNT_OF(d->rewritten); i++) {
        if (d->rewritten[i]) {
            row_cache_drop(cache, d->room->number, d->rewritten[i]);
        }
    }
    return err;
}

/* The room in memory follows its log. */
static void adopt(struct append_work *w)
{
    const struct derive *d = &w->derive;
    struct room *room = d->room;
    if (!room->extremities_owned || room->extremity_count > 1) {
        room->extremities_owned =
            mem_grow(room->extremities_owned, sizeof *room->extremities_owned);
    }
    struct extremity *extremity = &room->extremities_owned[0];
    *extremity = (struct extremity){.number = d->number, .depth = d->event->depth};
    memcpy(extremity->event_id, d->event->id.s.ptr, d->event->id.s.len);
    room->extremity_count = 1;
    room->next_number = d->number + 1;
    w->head.number = d->number;
    w->head.redaction = d->rewritten[1] ? d->number : w->head.redaction;
    w->head.pos = d->pos;
    w->head.root = w->record.state_after;
    if (d->event->has_state_key) {
        room_state_cache_drop(room, state_pair(d->ctx, d->event->type, d->event->state_key));
    }
    pthread_mutex_lock(&room->lock);
    w->head.receipt_pos = room->head.receipt_pos;
    room->head = w->head;
    pthread_mutex_unlock(&room->lock);
}

static void publish(struct append_work *w)
{
    const struct derive *d = &w->derive;
    struct change change = {
        .pos = d->pos, .kind = CHANGE_EVENT, .room = d->room->number, .number = d->number};
    change.gate = ctx_gate(d->ctx);
    if (d->member) {
        struct server_name domain = ids_user_domain(ids_trust_user(d->event->state_key));
        bool local = hs_is_local(d->hs, domain.s);
        change.user = local ? d->member : 0;
        if (local) {
            room_local_user_set(d->room, d->member, d->membership);
        }
    }
    positions_complete(d->hs->positions, &change, d->ctx->write_ticket);
}

static void mark_broken(struct hs *hs, struct room *room)
{
    pthread_mutex_lock(&hs->rooms->lock);
    room->broken = true;
    pthread_mutex_unlock(&hs->rooms->lock);
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
                   .number = room->next_number ? room->next_number : 1,
                   .pos = positions_reserve(hs->positions)},
        .append = append,
        .head = room->head,
    };
    w.record = (struct room_record){.pos = w.derive.pos,
                                    .sender = append->sender,
                                    .device_id = append->device_id,
                                    .txn_id = append->txn_id,
                                    .event_id = append->event->id.s,
                                    .json = append->event->json};
    struct err err = prepare(&w);
    if (err.code == 0) {
        err = write_all(&w);
    }
    if (err.code != 0) {
        positions_abandon(hs->positions, w.derive.pos);
        mark_broken(hs, room);
        return err;
    }
    adopt(&w);
    publish(&w);
    *sent_out = (struct hs_sent){
        .event_id = append->event->id.s, .number = w.derive.number, .pos = w.derive.pos};
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
