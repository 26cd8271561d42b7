#include "homeserver/service/signals.h"

#include "homeserver/service/prefs_priv.h"

static struct err require_joined(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct actor *actor)
{
    struct user_room entry;
    bool found = false;
    TRY(hs_user_room(hs, ctx, actor->user, hs_room_info(room).number, &entry, &found));
    return found && entry.membership == MEMBERSHIP_JOIN
               ? OK
               : err_public(ERR_M_FORBIDDEN, "You are not in this room.");
}

struct err hs_typing_request(struct hs *hs, struct ctx *ctx, struct room *room,
                             const struct actor *actor, int64_t timeout_ms)
{
    TRY(require_joined(hs, ctx, room, actor));
    hs_typing_set(hs, hs_room_info(room).number, actor->user,
                  timeout_ms > HS_TYPING_MAX_MS ? HS_TYPING_MAX_MS : timeout_ms);
    return OK;
}

/* Spec: client-server, "Fully read markers": room account data that only this endpoint sets. */
static struct err set_fully_read(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct actor *actor, struct slice event_id)
{
    struct json content = json_object();
    json_set(ctx->arena, &content, LIT("event_id"), json_string(event_id));
    return hs_account_data_put(hs, ctx, actor->user, hs_room_info(room).number, LIT("m.fully_read"),
                               json_canonical(ctx->arena, &content));
}

static struct err read_thread(const struct receipt_request *request, struct slice *thread_out)
{
    const struct json *thread = request->thread_id;
    *thread_out = (struct slice){0};
    if (thread == NULL) {
        return OK;
    }
    bool names_thread = thread->type == JSON_STRING && thread->text.len > 0 &&
                        (slice_eq(thread->text, LIT("main")) || ids_is_event(thread->text));
    if (!names_thread) {
        return err_public(ERR_M_INVALID_PARAM,
                          "`thread_id` must be \"main\" or the id of the thread's root event.");
    }
    *thread_out = thread->text;
    return OK;
}

/* Spec: client-server, "Threaded read receipts": the event must belong to the thread: a reply, its
 * root, or what relates to them. */
static struct err check_thread(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct stored_event *event, struct slice thread)
{
    struct thread_place place;
    TRY(counts_thread_of(hs, ctx, room, event, &place));
    bool fits = slice_eq(thread, LIT("main"))
                    ? place.root.len == 0
                    : slice_eq(thread, place.root.len ? place.root : place.anchor);
    return fits ? OK : err_public(ERR_M_INVALID_PARAM, "The event does not belong to this thread.");
}

static struct err set_receipt(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct receipt *receipt)
{
    struct receipt known = *receipt;
    struct stored_event event;
    bool found = false;
    TRY(hs_event_find(hs, ctx, room, known.event_id, &event, &found));
    if (found && known.thread.ptr) {
        TRY(check_thread(hs, ctx, room, &event, known.thread));
    }
    known.number = found ? event.number : 0;
    return hs_receipt_set(hs, ctx, room, &known);
}

struct err hs_receipt_request(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct actor *actor, const struct receipt_request *request)
{
    struct receipt receipt = {.user = actor->user,
                              .user_id = actor->user_id,
                              .event_id = request->event_id,
                              .ts_ms = now_wall_ms(ctx->now)};
    bool fully = slice_eq(request->type, LIT("m.fully_read"));
    bool is_private = slice_eq(request->type, LIT("m.read.private"));
    if (!fully && !is_private && !slice_eq(request->type, LIT("m.read"))) {
        return err_public(ERR_M_INVALID_PARAM,
                          "The receipt type must be m.read, m.read.private or m.fully_read.");
    }
    TRY(read_thread(request, &receipt.thread));
    if (fully && request->thread_id != NULL) {
        return err_public(ERR_M_INVALID_PARAM, "m.fully_read takes no `thread_id`.");
    }
    if (!ids_is_event(request->event_id)) {
        return err_public(ERR_M_INVALID_PARAM, "The event id is not valid.");
    }
    TRY(require_joined(hs, ctx, room, actor));
    if (fully) {
        return set_fully_read(hs, ctx, room, actor, request->event_id);
    }
    receipt.type = is_private ? RECEIPT_READ_PRIVATE : RECEIPT_READ;
    return set_receipt(hs, ctx, room, &receipt);
}
