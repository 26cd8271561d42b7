#include "homeserver/service/delayed.h"

#include "crypto/token.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/delayed_queue.h"
#include "homeserver/service/rates.h"
#include "homeserver/service/sending.h"
#include "homeserver/service/users.h"

enum { DELAY_ID_LETTERS = 32, RETRY_MS = 5000 };

/* --- sending one --- */

static struct err check_sender(struct hs *hs, struct ctx *ctx, const struct delayed_event *event,
                               struct actor *actor_out)
{
    uint32_t flags = 0;
    bool found = false;
    int64_t retry_after_ms = 0;
    TRY(hs_account_flags(hs, ctx, event->user, &flags, &found));
    if (!found || (flags & ACCOUNT_DEACTIVATED)) {
        return err_make(ERR_M_USER_DEACTIVATED, "the sender's account has ended");
    }
    if (flags & ACCOUNT_LOCKED) {
        return err_make(ERR_M_USER_LOCKED, "the sender's account is locked");
    }
    if (flags & ACCOUNT_SUSPENDED) {
        return err_make(ERR_M_USER_SUSPENDED, "the sender's account is suspended");
    }
    *actor_out = (struct actor){
        .user_id = event->user_id, .user = event->user, .is_guest = (flags & ACCOUNT_GUEST) != 0};
    return event->is_appservice
               ? OK
               : hs_rates_take(hs, ctx, HTTP_RATE_MESSAGE, event->user_id, &retry_after_ms);
}

static struct err send_event(struct hs *hs, struct ctx *ctx, const struct delayed_event *event,
                             struct slice *event_id_out)
{
    struct actor actor;
    struct room *room = NULL;
    struct json content;
    struct hs_sent sent = {0};
    TRY(check_sender(hs, ctx, event, &actor));
    struct err err = hs_room_get_by_id(hs, ctx, event->room_id, &room);
    if (err.code == ERR_M_NOT_FOUND) {
        return err_public(ERR_M_FORBIDDEN, "You are not in this room.");
    }
    TRY(err);
    TRY(json_parse(ctx->arena, event->content, &content));
    struct send_request request = {.actor = &actor,
                                   .device_id = DELAYED_DEVICE,
                                   .txn_id = event->delay_id,
                                   .type = event->type,
                                   .state_key = event->state_key,
                                   .content = &content,
                                   .origin_server_ts = event->origin_server_ts};
    TRY(event->state_key.ptr ? hs_send_state(hs, ctx, room, &request, &sent)
                             : hs_send_message(hs, ctx, room, &request, &sent));
    *event_id_out = sent.event_id;
    return OK;
}

/* --- becoming final --- */

static struct slice error_text(struct ctx *ctx, struct err err)
{
    const struct errcode_info *info = errcode_get(err.code);
    struct buf text;
    buf_init_arena(&text, ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("errcode"), info->wire);
    json_out_key_string(&out, LIT("error"), err.is_public ? slice_of(err.text) : info->text);
    json_out_object_end(&out);
    return buf_slice(&text);
}

static struct err finalise(struct hs *hs, struct ctx *ctx, struct delayed_event *event,
                           enum delayed_state state)
{
    event->state = state;
    event->finalised_ms = now_wall_ms(ctx->now);
    hs_user_lane_enter(hs, event->user);
    struct err err = delayed_row_finalise(hs, ctx, event);
    hs_user_lane_leave(hs, event->user);
    return err;
}

/* What may pass leaves it scheduled: the disk, a server that is away. */
static bool may_pass(struct err err)
{
    return err.code != 0 && err.code < ERR_MATRIX_FIRST && err.code != ERR_LIMIT &&
           err.code != ERR_SYNTAX;
}

static struct err fire(struct hs *hs, struct ctx *ctx, struct slice delay_id)
{
    struct delayed_event event;
    bool found = false;
    TRY(delayed_row_find(hs, ctx, delay_id, &event, &found));
    if (!found || event.state != DELAYED_SCHEDULED) {
        return OK;
    }
    struct err err = send_event(hs, ctx, &event, &event.event_id);
    if (may_pass(err)) {
        return err;
    }
    if (err.code != 0) {
        event.error = error_text(ctx, err);
        log_info(hs->log, "delayed_event_failed", .user = event.user_id, .room = event.room_id,
                 .err = slice_of(err.text));
    }
    return finalise(hs, ctx, &event, err.code ? DELAYED_FAILED : DELAYED_SENT);
}

/* The queue's way to send what is due: 0, or the time until it is to be tried again. */
static int64_t on_due(void *arg, struct slice delay_id)
{
    struct hs *hs = arg;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log, .may_wait = true};
    struct err err = fire(hs, &ctx, arena_copy(ctx.arena, delay_id));
    if (err.code != 0) {
        log_warn(hs->log, "delayed_event_waits", .err = slice_of(err.text));
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return err.code ? RETRY_MS : 0;
}

/* --- life --- */

/* Nothing of an account that has ended is sent. */
static struct err on_deactivated(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct slice user_id)
{
    struct delayed_events events;
    (void)user_id;
    TRY(delayed_rows_of_user(hs, ctx, user, &events));
    for (size_t i = 0; i < events.count; i++) {
        TRY(hs_delayed_cancel(hs, ctx, events.items[i].delay_id));
    }
    return OK;
}

struct hs_delayed *hs_delayed_new(struct hs *hs)
{
    hs_on_deactivated(hs, on_deactivated);
    return delayed_queue_new(
        &(struct delayed_queue_config){.now = hs->now, .log = hs->log, .due = on_due, .arg = hs});
}

void hs_delayed_free(struct hs_delayed **delayed)
{
    delayed_queue_free(delayed);
}

/* The clock may have been changed while the server was off: nothing waits longer than it was meant
 * to. */
struct err hs_delayed_load(struct hs *hs, struct ctx *ctx)
{
    struct delayed_events events;
    int64_t now_ms = now_wall_ms(ctx->now);
    TRY(delayed_rows_scheduled(hs, ctx, &events));
    for (size_t i = 0; i < events.count; i++) {
        const struct delayed_event *event = &events.items[i];
        int64_t left_ms = event->scheduled_ms + event->delay_ms - now_ms;
        left_ms = left_ms < event->delay_ms ? left_ms : event->delay_ms;
        delayed_queue_add(hs->delayed, event->delay_id, event->room_id, left_ms);
    }
    return OK;
}

struct err hs_delayed_start(struct hs *hs, struct ctx *ctx)
{
    TRY(hs_delayed_load(hs, ctx));
    delayed_queue_start(hs->delayed, hs->waiters);
    return OK;
}

void hs_delayed_stop(struct hs *hs)
{
    delayed_queue_stop(hs->delayed);
}

void hs_delayed_run(struct hs *hs)
{
    delayed_queue_run(hs->delayed);
}

/* --- scheduling --- */

static struct err check_limits(struct hs *hs, struct ctx *ctx, const struct delayed_wish *wish)
{
    struct delayed_events present;
    const struct delayed_event *event = &wish->event;
    if (hs->conf->delayed_events_per_user == 0) {
        return err_public(ERR_M_FORBIDDEN, "This server sends no delayed events.");
    }
    if (event->delay_ms > hs->conf->delayed_events_max_delay) {
        return err_publicf(ctx->arena, ERR_M_FORBIDDEN, "Events can be delayed by %lld ms at most.",
                           (long long)hs->conf->delayed_events_max_delay);
    }
    TRY(delayed_rows_of_user(hs, ctx, event->user, &present));
    if ((int64_t)present.count < hs->conf->delayed_events_per_user) {
        return OK;
    }
    int64_t due_ms = present.items[0].scheduled_ms + present.items[0].delay_ms;
    int64_t left_ms = due_ms - now_wall_ms(ctx->now);
    *wish->retry_after_ms_out = left_ms > 1 ? left_ms : 1;
    return err_public(ERR_M_LIMIT_EXCEEDED, "The maximum number of delayed events is reached.");
}

static struct err schedule_in_lane(struct hs *hs, struct ctx *ctx, struct delayed_wish *wish,
                                   struct slice *delay_id_out)
{
    struct delayed_event *event = &wish->event;
    bool found = false;
    TRY(delayed_txn_find(hs, ctx, event, &wish->txn, delay_id_out, &found));
    if (found) {
        return OK;
    }
    if (!event->content.ptr) {
        return err_public(ERR_M_NOT_JSON, "The request has no body.");
    }
    TRY(check_limits(hs, ctx, wish));
    event->delay_id = token_random_name(ctx->arena, DELAY_ID_LETTERS);
    event->scheduled_ms = now_wall_ms(ctx->now);
    TRY(delayed_row_add(hs, ctx, event, &wish->txn));
    *delay_id_out = event->delay_id;
    delayed_queue_add(hs->delayed, event->delay_id, event->room_id, event->delay_ms);
    return OK;
}

struct err hs_delayed_schedule(struct hs *hs, struct ctx *ctx, struct delayed_wish *wish,
                               struct slice *delay_id_out)
{
    hs_user_lane_enter(hs, wish->event.user);
    struct err err = schedule_in_lane(hs, ctx, wish, delay_id_out);
    hs_user_lane_leave(hs, wish->event.user);
    return err;
}

/* --- managing --- */

/* Takes it from the schedule, whatever else was about to happen to it, and reads it. Whoever took
 * it gives it back or ends it. is_taken_out false: it is final already. */
static struct err take(struct hs *hs, struct ctx *ctx, struct slice delay_id,
                       struct delayed_event *event_out)
{
    bool found = false;
    delayed_queue_take(hs->delayed, delay_id);
    struct err err = delayed_row_find(hs, ctx, delay_id, event_out, &found);
    if (err.code == 0 && !found) {
        err = err_public(ERR_M_NOT_FOUND, "There is no delayed event of this id.");
    }
    if (err.code != 0) {
        delayed_queue_give_back(hs->delayed, delay_id);
    }
    return err;
}

static struct err answer_final(const struct delayed_event *event, bool is_as_wished)
{
    if (is_as_wished) {
        return OK;
    }
    return event->state == DELAYED_SENT
               ? err_public(ERR_M_UNKNOWN_409, "The delayed event has been sent already.")
               : err_public(ERR_M_UNKNOWN_409, "The delayed event has been cancelled already.");
}

/* Ends it, or gives it back when that could not be written. */
static struct err end(struct hs *hs, struct ctx *ctx, struct delayed_event *event,
                      enum delayed_state state)
{
    struct err err = finalise(hs, ctx, event, state);
    if (err.code != 0) {
        delayed_queue_give_back(hs->delayed, event->delay_id);
    } else {
        delayed_queue_end(hs->delayed, event->delay_id);
    }
    return err;
}

struct err hs_delayed_cancel(struct hs *hs, struct ctx *ctx, struct slice delay_id)
{
    struct delayed_event event;
    TRY(take(hs, ctx, delay_id, &event));
    if (event.state != DELAYED_SCHEDULED) {
        delayed_queue_end(hs->delayed, delay_id);
        return answer_final(&event, event.state != DELAYED_SENT);
    }
    return end(hs, ctx, &event, DELAYED_CANCELLED);
}

struct err hs_delayed_restart(struct hs *hs, struct ctx *ctx, struct slice delay_id)
{
    struct delayed_event event;
    TRY(take(hs, ctx, delay_id, &event));
    if (event.state != DELAYED_SCHEDULED) {
        delayed_queue_end(hs->delayed, delay_id);
        return answer_final(&event, false);
    }
    event.scheduled_ms = now_wall_ms(ctx->now);
    hs_user_lane_enter(hs, event.user);
    struct err err = delayed_row_restart(hs, ctx, &event);
    hs_user_lane_leave(hs, event.user);
    if (err.code == 0) {
        delayed_queue_put_off(hs->delayed, delay_id, event.delay_ms);
    } else {
        delayed_queue_give_back(hs->delayed, delay_id);
    }
    return err;
}

struct err hs_delayed_send(struct hs *hs, struct ctx *ctx, struct slice delay_id)
{
    struct delayed_event event;
    TRY(take(hs, ctx, delay_id, &event));
    if (event.state != DELAYED_SCHEDULED) {
        delayed_queue_end(hs->delayed, delay_id);
        return answer_final(&event, event.state == DELAYED_SENT);
    }
    struct err err = send_event(hs, ctx, &event, &event.event_id);
    if (err.code != 0) {
        delayed_queue_give_back(hs->delayed, delay_id);
        return err;
    }
    return end(hs, ctx, &event, DELAYED_SENT);
}
