/* Who may see what, judged with the state at the event. */
#include "homeserver/service/timeline.h"

struct at_root {
    enum history_visibility visibility;
    enum membership membership;
};

static struct err look_at_root(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct viewer *viewer, uint64_t root, struct at_root *out)
{
    struct view_memo *memo = viewer->memo;
    struct stored_event event;
    bool found = false;
    if (memo && memo->room == room && memo->root == root) {
        *out = (struct at_root){memo->visibility, memo->membership};
        return OK;
    }
    TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.history_visibility"), LIT(""), &event,
                       &found));
    out->visibility = visibility_of(found ? &event.event : NULL);
    out->membership = MEMBERSHIP_NONE;
    if (viewer->user) {
        TRY(hs_membership_at(hs, ctx, room, root, viewer->user_id, &out->membership));
    }
    if (memo) {
        *memo = (struct view_memo){room, root, out->visibility, out->membership};
    }
    return OK;
}

struct err hs_viewer_membership(struct hs *hs, struct ctx *ctx, struct room *room,
                                const struct viewer *viewer, uint64_t root,
                                enum membership *membership_out)
{
    struct at_root at;
    TRY(look_at_root(hs, ctx, room, viewer, root, &at));
    *membership_out = at.membership;
    return OK;
}

/* Whether the viewer is joined now or was at some time after the event. */
static struct err joined_later(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct viewer *viewer, int64_t number, bool *later_out)
{
    struct user_room entry;
    bool found = false;
    *later_out = false;
    if (viewer->user) {
        uint64_t room_number = hs_room_info(room).number;
        TRY(hs_user_room(hs, ctx, viewer->user, room_number, &entry, &found));
        *later_out = found && (entry.membership == MEMBERSHIP_JOIN || entry.left_number > number);
    }
    return OK;
}

static struct err can_see(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct viewer *viewer, const struct stored_event *event,
                          bool *visible_out)
{
    struct at_root before;
    struct at_root after;
    bool later = false;
    TRY(look_at_root(hs, ctx, room, viewer, event->state_before, &before));
    after = before;
    bool own = event_is(&event->event, LIT("m.room.member"), viewer->user_id);
    bool changes = event_is(&event->event, LIT("m.room.history_visibility"), LIT(""));
    if (own || changes) {
        TRY(look_at_root(hs, ctx, room, viewer, event->state_after, &after));
    }
    TRY(joined_later(hs, ctx, room, viewer, event->number, &later));
    struct visibility_input input = {.visibility_before = before.visibility,
                                     .visibility_after = after.visibility,
                                     .membership_before = before.membership,
                                     .membership_after = after.membership,
                                     .joined_later = later};
    *visible_out = visibility_allows_user(&input);
    return OK;
}

struct err hs_can_see(struct hs *hs, struct ctx *ctx, struct room *room,
                      const struct viewer *viewer, const struct stored_event *event,
                      bool *visible_out)
{
    *visible_out = false;
    if (event->flags & EVENT_REJECTED) {
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
