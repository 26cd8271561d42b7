/* Events that stand in no timeline: outliers, rejected and soft-failed ones. */
#include "homeserver/service/intake_priv.h"
#include "homeserver/service/users.h"

void apart_rows_begin(struct ctx *ctx, struct room *room, struct apart_rows *rows_out)
{
    *rows_out = (struct apart_rows){
        .log = store_update_new(ctx, room_object(ctx, room->number)),
        .ids = store_update_new(ctx, (struct store_object){STORE_EVENT_IDS, LIT("ids")}),
        .derived = store_update_new(ctx, room_derived_object(ctx, room->number)),
        .state = store_update_new(ctx, room_state_object(ctx, room->number)),
    };
}

static struct err put_state(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct apart *apart, struct room_record *record,
                            struct apart_rows *rows)
{
    struct room_citing citing = {.event = apart->event, .number = apart->number};
    struct state_entry change = {.event = apart->number};
    int64_t replaced = 0;
    bool found = false;
    TRY(room_state_key_intern(hs, ctx, room, apart->event->type, apart->event->state_key, rows->log,
                              &citing.key));
    if (apart->cites == APART_CITES_NOW && !(apart->flags & EVENT_LOOSE)) {
        TRY(room_cites_add(hs, ctx, room, &citing, rows->derived));
    }
    if (!(apart->flags & EVENT_SOFT_FAILED)) {
        return OK;
    }
    change.key = citing.key;
    if (apart->state_before) {
        TRY(state_get(hs->states, ctx, room->number, apart->state_before, change.key, &replaced,
                      &found));
    }
    record->replaces = found ? replaced : 0;
    return state_apply(hs->states, ctx, room->number, apart->state_before, &change, 1, rows->state,
                       &record->state_after);
}

struct err apart_put(struct hs *hs, struct ctx *ctx, struct room *room, const struct apart *given,
                     struct apart_rows *rows)
{
    struct apart apart = *given;
    apart.number = apart.number ? apart.number : room->next_apart++;
    struct room_record record = {.flags = apart.flags,
                                 .state_before = apart.state_before,
                                 .state_after = apart.state_before,
                                 .event_id = apart.event->id.s,
                                 .json = apart.event->json};
    struct buf row;
    struct buf where;
    TRY(hs_user_intern(hs, ctx, apart.event->sender.s, &record.sender));
    if (apart.event->has_state_key) {
        record.flags |= EVENT_STATE;
        TRY(put_state(hs, ctx, room, &apart, &record, rows));
    }
    record.next_key = room->next_key;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    room_record_encode(&row, &record);
    store_put(rows->log, key_i64(ctx, ROOM_KEY_EVENT, apart.number), buf_slice(&row));
    buf_init_arena(&where, ctx->arena, 32);
    pack_u64(&where, room->number);
    pack_i64(&where, apart.number);
    if (!(apart.flags & EVENT_LOOSE)) {
        store_put(rows->ids, apart.event->id.s, buf_slice(&where));
    }
    if (given->number) {
        row_cache_drop(hs->rooms->rows_owned, room->number, given->number);
    }
    return OK;
}

struct err apart_write(struct hs *hs, struct ctx *ctx, struct room *room,
                       const struct apart_rows *rows)
{
    struct store_update *updates[] = {rows->state, rows->log, rows->ids, rows->derived};
    TRY(room_check_there(room));
    struct err err = store_write(hs->store, ctx, updates, COUNT_OF(updates));
    if (err.code != 0) {
        room_mark_broken(hs, room);
    }
    return err;
}

static struct err outlier_in_lane(struct judging *j, struct intake_report *report)
{
    struct auth_verdict verdict;
    struct apart_rows rows;
    struct apart apart = {.event = j->event, .flags = EVENT_OUTLIER};
    uint64_t room = 0;
    int64_t number = 0;
    bool found = false;
    TRY(hs_event_locate(j->hs, j->ctx, j->event->id.s, &room, &number, &found));
    if (found) {
        report->result = INTAKE_KNOWN;
        return OK;
    }
    TRY(judging_load_cited(j, &report->missing, &report->missing_count));
    if (report->missing_count) {
        report->result = INTAKE_MISSING_AUTH;
        return OK;
    }
    TRY(judging_by_cited(j, &verdict));
    if (!verdict.allowed) {
        report->result = INTAKE_REJECTED;
        report->step = INTAKE_STEP_AUTH_EVENTS;
        report->reason = judging_reason(j->ctx, &verdict);
        apart.flags |= EVENT_REJECTED;
    }
    apart_rows_begin(j->ctx, j->room, &rows);
    TRY(apart_put(j->hs, j->ctx, j->room, &apart, &rows));
    return apart_write(j->hs, j->ctx, j->room, &rows);
}

struct err hs_intake_outlier(struct hs *hs, struct ctx *ctx, struct room *room,
                             const struct event *event, struct intake_report *report_out)
{
    struct judging judging = {.hs = hs, .ctx = ctx, .room = room, .event = event};
    uint64_t lane = lane_of_room(room->number);
    *report_out = (struct intake_report){.result = INTAKE_ACCEPTED};
    if (!slice_eq(event->room_id.s, hs_room_info(room).room_id)) {
        report_out->result = INTAKE_REJECTED;
        report_out->step = INTAKE_STEP_AUTH_EVENTS;
        report_out->reason = LIT("The event is of another room.");
        return OK;
    }
    workers_lane_enter(hs->workers, lane);
    struct err err = outlier_in_lane(&judging, report_out);
    workers_lane_leave(hs->workers, lane);
    return err;
}
