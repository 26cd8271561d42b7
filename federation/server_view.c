/* History visibility for servers: a server may see what any of its users may.
 * Spec: server-server, "Backfilling and retrieving missing events". */
#include "federation/inbound.h"
#include "homeserver/service/users.h"

struct err server_view_init(struct server_view *view, struct hs *hs, struct ctx *ctx,
                            struct room *room, struct slice server)
{
    *view = (struct server_view){.hs = hs, .room = room, .server = server};
    return fed_is_resident(hs, ctx, room, server, &view->is_resident);
}

static struct err find_users(struct server_view *view, struct ctx *ctx)
{
    struct room_members members;
    size_t count = 0;
    TRY(hs_room_members(view->hs, ctx, view->room, MEMBERSHIP_NONE, 0, &members));
    struct slice *users = arena_array(ctx->arena, members.count + 1, sizeof *users);
    for (size_t i = 0; i < members.count; i++) {
        struct slice user = members.items[i].user_id;
        if (slice_eq(ids_user_domain(ids_trust_user(user)).s, view->server)) {
            users[count++] = user;
        }
    }
    view->users = users;
    view->user_count = count;
    view->has_users = true;
    return OK;
}

/* The best membership of any of the server's users. */
static struct err membership_at(struct server_view *view, struct ctx *ctx, uint64_t root,
                                enum membership *membership_out)
{
    enum membership best = MEMBERSHIP_NONE;
    *membership_out = view->membership;
    if (view->has_users && view->membership_root == root) {
        return OK;
    }
    if (!view->has_users) {
        TRY(find_users(view, ctx));
    }
    for (size_t i = 0; i < view->user_count && best != MEMBERSHIP_JOIN; i++) {
        enum membership one = MEMBERSHIP_NONE;
        TRY(hs_membership_at(view->hs, ctx, view->room, root, view->users[i], &one));
        best = one == MEMBERSHIP_JOIN || one == MEMBERSHIP_INVITE ? one : best;
    }
    view->membership_root = root;
    view->membership = best;
    *membership_out = best;
    return OK;
}

static struct err visibility_at(struct server_view *view, struct ctx *ctx, uint64_t root,
                                enum history_visibility *visibility_out)
{
    struct stored_event event;
    bool found = false;
    if (!root || view->visibility_root != root) {
        TRY(hs_state_event(view->hs, ctx, view->room, root, LIT("m.room.history_visibility"),
                           LIT(""), &event, &found));
        view->visibility = visibility_of(found ? &event.event : NULL);
        view->visibility_root = root;
    }
    *visibility_out = view->visibility;
    return OK;
}

static bool is_own_member(const struct server_view *view, const struct event *event)
{
    return event->has_state_key && slice_eq(event->type, LIT("m.room.member")) &&
           slice_eq(ids_user_domain(ids_trust_user(event->state_key)).s, view->server);
}

struct err server_view_allows(struct server_view *view, struct ctx *ctx,
                              const struct stored_event *event, bool *allowed_out)
{
    struct visibility_input input = {.joined_later = view->is_resident};
    bool own = is_own_member(view, &event->event);
    bool changes = event_is(&event->event, LIT("m.room.history_visibility"), LIT(""));
    TRY(visibility_at(view, ctx, event->state_before, &input.visibility_before));
    input.visibility_after = input.visibility_before;
    if (changes) {
        TRY(visibility_at(view, ctx, event->state_after, &input.visibility_after));
    }
    /* Who was in the room matters only where the visibility alone does not settle it. */
    *allowed_out = visibility_allows_user(&input);
    if (*allowed_out) {
        return OK;
    }
    TRY(membership_at(view, ctx, event->state_before, &input.membership_before));
    input.membership_after = input.membership_before;
    if (own) {
        TRY(membership_at(view, ctx, event->state_after, &input.membership_after));
    }
    *allowed_out = visibility_allows_user(&input);
    return OK;
}

/* Spec: client-server, POST /account/deactivate, `erase`: servers that join afterwards get redacted
 * copies. Whoever had a user in the room at the event has it already. */
static struct err is_erased_for(struct server_view *view, struct ctx *ctx,
                                const struct stored_event *event, bool *erased_out)
{
    enum membership membership = MEMBERSHIP_NONE;
    uint32_t flags = 0;
    bool found = false;
    *erased_out = false;
    if (!hs_user_is_local(view->hs, event->event.sender.s)) {
        return OK;
    }
    TRY(hs_account_flags(view->hs, ctx, event->sender, &flags, &found));
    if (found && (flags & ACCOUNT_ERASED)) {
        TRY(membership_at(view, ctx, event->state_before, &membership));
        *erased_out = membership != MEMBERSHIP_JOIN;
    }
    return OK;
}

struct err server_view_event(struct server_view *view, struct ctx *ctx,
                             const struct stored_event *event, struct slice *json_out)
{
    struct stored_event whole = *event;
    struct event redacted;
    bool allowed = false;
    bool erased = false;
    *json_out = event->event.json;
    TRY(server_view_allows(view, ctx, event, &allowed));
    if (event->flags & EVENT_REDACTED) {
        return OK;
    }
    if (allowed) {
        TRY(is_erased_for(view, ctx, event, &erased));
    }
    if (allowed && !erased) {
        return OK;
    }
    TRY(hs_event_parse_content(ctx, &whole));
    TRY(event_redacted(ctx->arena, &whole.event, &redacted));
    *json_out = redacted.json;
    return OK;
}
