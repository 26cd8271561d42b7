/* Who may see what, judged with the state at the event. */
#include "homeserver/service/timeline.h"
#include "homeserver/service/users.h"

struct at_root {
    enum history_visibility visibility;
    enum membership membership;
};

static struct err visibility_at(struct hs *hs, struct ctx *ctx, struct room *room,
                                const struct viewer *viewer, uint64_t root,
                                enum history_visibility *visibility_out)
{
    struct view_memo *memo = viewer->memo;
    struct stored_event event;
    bool found = false;
    if (memo && memo->visibility_room == room && memo->visibility_root == root) {
        *visibility_out = memo->visibility;
        return OK;
    }
    TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.history_visibility"), LIT(""), &event,
                       &found));
    *visibility_out = visibility_of(found ? &event.event : NULL);
    if (memo) {
        memo->visibility_room = room;
        memo->visibility_root = root;
        memo->visibility = *visibility_out;
    }
    return OK;
}

struct err hs_viewer_membership(struct hs *hs, struct ctx *ctx, struct room *room,
                                const struct viewer *viewer, uint64_t root,
                                enum membership *membership_out)
{
    struct view_memo *memo = viewer->memo;
    *membership_out = MEMBERSHIP_NONE;
    if (!viewer->user) {
        return OK;
    }
    if (memo && memo->membership_room == room && memo->membership_root == root) {
        *membership_out = memo->membership;
        return OK;
    }
    TRY(hs_membership_at(hs, ctx, room, root, viewer->user_id, membership_out));
    if (memo) {
        memo->membership_room = room;
        memo->membership_root = root;
        memo->membership = *membership_out;
    }
    return OK;
}

static struct err look_at_root(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct viewer *viewer, uint64_t root, struct at_root *out)
{
    TRY(visibility_at(hs, ctx, room, viewer, root, &out->visibility));
    return hs_viewer_membership(hs, ctx, room, viewer, root, &out->membership);
}

struct stay {
    bool later;     /* the viewer is joined now or was at some time after the event */
    bool forgotten; /* the viewer gave the room's history up */
};

static struct err look_at_stay(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct viewer *viewer, int64_t number, struct stay *stay_out)
{
    struct view_memo own = {0};
    struct view_memo *memo = viewer->memo ? viewer->memo : &own;
    *stay_out = (struct stay){0};
    if (!viewer->user) {
        return OK;
    }
    if (memo->entry_room != room) {
        struct user_room entry;
        bool found = false;
        TRY(hs_user_room(hs, ctx, viewer->user, hs_room_info(room).number, &entry, &found));
        memo->entry_room = room;
        memo->is_joined = found && entry.membership == MEMBERSHIP_JOIN;
        memo->left_number = found ? entry.left_number : 0;
        memo->is_forgotten = found && entry.forgotten;
    }
    stay_out->later = memo->is_joined || memo->left_number > number;
    stay_out->forgotten = memo->is_forgotten;
    return OK;
}

static struct err can_see(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct viewer *viewer, const struct stored_event *event,
                          bool *visible_out)
{
    struct at_root before;
    struct at_root after;
    struct stay stay;
    TRY(look_at_root(hs, ctx, room, viewer, event->state_before, &before));
    after = before;
    bool own = event_is(&event->event, LIT("m.room.member"), viewer->user_id);
    bool changes = event_is(&event->event, LIT("m.room.history_visibility"), LIT(""));
    if (own || changes) {
        TRY(look_at_root(hs, ctx, room, viewer, event->state_after, &after));
    }
    TRY(look_at_stay(hs, ctx, room, viewer, event->number, &stay));
    if (stay.forgotten) {
        /* Spec: client-server, "Leaving rooms": the history of a forgotten room is not given out,
         * except to whom any stranger would see it. */
        stay.later = false;
        before.membership = after.membership = MEMBERSHIP_NONE;
    }
    struct visibility_input input = {.visibility_before = before.visibility,
                                     .visibility_after = after.visibility,
                                     .membership_before = before.membership,
                                     .membership_after = after.membership,
                                     .joined_later = stay.later};
    *visible_out = visibility_allows_user(&input);
    return OK;
}

struct err hs_can_see(struct hs *hs, struct ctx *ctx, struct room *room,
                      const struct viewer *viewer, const struct stored_event *event,
                      bool *visible_out)
{
    *visible_out = false;
    if (event->flags & EVENT_HIDDEN) {
        return OK;
    }
    return can_see(hs, ctx, room, viewer, event, visible_out);
}

struct err hs_keep_visible(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct viewer *viewer, struct stored_events *events)
{
    size_t kept = 0;
    struct view_memo memo = {0};
    struct viewer looking = *viewer;
    looking.memo = viewer->memo ? viewer->memo : &memo;
    for (size_t i = 0; i < events->count; i++) {
        bool visible = false;
        TRY(hs_can_see(hs, ctx, room, &looking, &events->items[i], &visible));
        if (visible) {
            events->items[kept++] = events->items[i];
        }
    }
    events->count = kept;
    return OK;
}

/* --- senders who asked to be erased --- */

static struct err has_erased_sender(struct hs *hs, struct ctx *ctx,
                                    const struct stored_event *event, bool *erased_out)
{
    uint32_t flags = 0;
    bool found = false;
    *erased_out = false;
    if (hs_user_is_local(hs, event->event.sender.s)) {
        TRY(hs_account_flags(hs, ctx, event->sender, &flags, &found));
        *erased_out = found && (flags & ACCOUNT_ERASED);
    }
    return OK;
}

static struct err is_current_state(struct hs *hs, struct ctx *ctx, struct room *room,
                                   const struct stored_event *event, bool *current_out)
{
    struct stored_event current;
    *current_out = false;
    if (!event->event.has_state_key) {
        return OK;
    }
    TRY(hs_state_event(hs, ctx, room, hs_room_head(room).root, event->event.type,
                       event->event.state_key, &current, current_out));
    *current_out = *current_out && current.number == event->number;
    return OK;
}

struct err hs_is_erased_for(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct viewer *viewer, const struct stored_event *event,
                            bool *erased_out)
{
    enum membership membership = MEMBERSHIP_NONE;
    bool current = false;
    bool present = event->number >= viewer->joined_from && event->number < viewer->joined_until;
    *erased_out = false;
    if (present || (event->flags & EVENT_REDACTED)) {
        return OK;
    }
    TRY(has_erased_sender(hs, ctx, event, erased_out));
    if (!*erased_out) {
        return OK;
    }
    bool own = viewer->user && event_is(&event->event, LIT("m.room.member"), viewer->user_id);
    TRY(hs_viewer_membership(hs, ctx, room, viewer, event->state_before, &membership));
    TRY(is_current_state(hs, ctx, room, event, &current));
    *erased_out = !own && !current && membership != MEMBERSHIP_JOIN;
    return OK;
}
