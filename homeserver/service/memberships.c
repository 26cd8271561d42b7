#include "homeserver/service/memberships.h"

#include "homeserver/room/visibility.h"
#include "homeserver/service/appservices.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/invite_filter.h"
#include "homeserver/service/notices.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/profiles.h"
#include "homeserver/service/remote.h"
#include "homeserver/service/restricted.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/succession.h"
#include "homeserver/service/users.h"

struct changing {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct actor *actor;
    const struct member_change *change;
    bool renews;      /* the join as it is, with the profile of now */
    struct json rest; /* of the join that is renewed */
    struct json content;
};

static void set_text(struct changing *c, struct slice key, struct slice text)
{
    json_set(c->ctx->arena, &c->content, key, json_string(text));
}

/* The target's profile goes into joins, invites and knocks. */
static struct err add_profile(struct changing *c)
{
    struct slice displayname = {0};
    struct slice avatar_url = {0};
    uint64_t target = 0;
    bool found = false;
    bool wanted = c->change->membership == MEMBERSHIP_JOIN ||
                  c->change->membership == MEMBERSHIP_INVITE ||
                  c->change->membership == MEMBERSHIP_KNOCK;
    if (!wanted || !hs_user_is_local(c->hs, c->change->target)) {
        return OK;
    }
    TRY(hs_user_find(c->hs, c->ctx, c->change->target, &target, &found));
    if (found) {
        TRY(hs_profile_names(c->hs, c->ctx, target, &displayname, &avatar_url));
    }
    if (displayname.ptr) {
        set_text(c, LIT("displayname"), displayname);
    }
    if (avatar_url.ptr) {
        set_text(c, LIT("avatar_url"), avatar_url);
    }
    return OK;
}

static void add_extra(struct changing *c)
{
    const struct json *extra = c->renews ? &c->rest : c->change->extra;
    for (uint32_t i = 0; extra && i < extra->count; i++) {
        json_set(c->ctx->arena, &c->content, extra->members[i].key, extra->members[i].value);
    }
}

/* Spec: room version 8, restricted joins name the user who could have invited. */
static struct err add_authoriser(struct changing *c)
{
    struct slice authoriser;
    TRY(hs_restricted_authoriser(c->hs, c->ctx, c->room, c->actor->user_id, &authoriser));
    if (authoriser.ptr) {
        set_text(c, LIT("join_authorised_via_users_server"), authoriser);
    }
    return OK;
}

static struct err current_membership(struct changing *c, enum membership *membership_out)
{
    const struct event *event = NULL;
    TRY(room_state_current(c->hs, c->ctx, c->room, LIT("m.room.member"), c->change->target,
                           &event));
    *membership_out = membership_of(event);
    return OK;
}

static struct err make_content(struct changing *c)
{
    c->content = json_object();
    set_text(c, LIT("membership"), membership_word(c->change->membership));
    TRY(add_profile(c));
    add_extra(c);
    if (c->change->reason.ptr) {
        set_text(c, LIT("reason"), c->change->reason);
    }
    if (c->change->is_direct) {
        json_set(c->ctx->arena, &c->content, LIT("is_direct"), json_bool(true));
    }
    return OK;
}

static struct hs_draft draft_of(const struct changing *c)
{
    return (struct hs_draft){.sender = c->actor->user_id,
                             .sender_number = c->actor->user,
                             .type = LIT("m.room.member"),
                             .state_key = c->change->target,
                             .content = c->content};
}

/* The member event again: what a join says besides the profile stays. */
static struct err keep_rest(struct changing *c, bool *joined_out)
{
    struct slice drop[] = {LIT("displayname"), LIT("avatar_url"),
                           LIT("join_authorised_via_users_server"), LIT("membership"),
                           LIT("reason")};
    const struct event *current = NULL;
    TRY(room_state_current(c->hs, c->ctx, c->room, LIT("m.room.member"), c->actor->user_id,
                           &current));
    *joined_out = membership_of(current) == MEMBERSHIP_JOIN;
    if (*joined_out) {
        c->rest = json_without(c->ctx->arena, current->content, drop, COUNT_OF(drop));
    }
    return OK;
}

/* Nothing is to be sent when the user stands where the change would lead. */
static struct err is_done(struct changing *c, enum membership current, bool *done_out)
{
    bool own = slice_eq(c->actor->user_id, c->change->target);
    bool joined = false;
    enum membership wanted = c->change->membership;
    if (c->renews) {
        TRY(keep_rest(c, &joined));
        *done_out = !joined;
        return OK;
    }
    *done_out = own && current == wanted &&
                ((wanted == MEMBERSHIP_JOIN && !c->change->extra) || wanted == MEMBERSHIP_LEAVE);
    return OK;
}

/* Spec: client-server, "Guest Access": a guest comes in where the room says so, whatever endpoint
 * the membership is set by. */
static struct err check_guest(struct changing *c)
{
    const struct event *access = NULL;
    TRY(room_state_current(c->hs, c->ctx, c->room, LIT("m.room.guest_access"), LIT(""), &access));
    return access && json_is_string(json_get(access->content, LIT("guest_access")), LIT("can_join"))
               ? OK
               : err_public(ERR_M_GUEST_ACCESS_FORBIDDEN, "Guests may not join this room.");
}

static struct err check_entrance(struct changing *c, enum membership current)
{
    bool own = slice_eq(c->actor->user_id, c->change->target);
    bool joins = own && c->change->membership == MEMBERSHIP_JOIN && current != MEMBERSHIP_JOIN;
    bool knocks = own && c->change->membership == MEMBERSHIP_KNOCK;
    if (c->actor->is_guest && (joins || knocks)) {
        TRY(check_guest(c));
    }
    return joins ? add_authoriser(c) : OK;
}

static struct err decide(void *arg, struct hs_draft *draft_out, struct hs_sent *sent_out,
                         bool *done_out)
{
    struct changing *c = arg;
    enum membership current = MEMBERSHIP_NONE;
    TRY(current_membership(c, &current));
    TRY(is_done(c, current, done_out));
    if (*done_out) {
        *sent_out = (struct hs_sent){.replayed = true};
        return OK;
    }
    TRY(make_content(c));
    TRY(check_entrance(c, current));
    *draft_out = draft_of(c);
    return OK;
}

static struct err propose(struct changing *c, struct hs_sent *sent_out)
{
    struct hs_proposal proposal = {.decide = decide, .arg = c, .insists = c->change->insists};
    return hs_propose(c->hs, c->ctx, c->room, &proposal, sent_out);
}

/* The invited user's server signs too, after the policy server, so no lane is held meanwhile. */
static struct err invite_remote(struct changing *c, struct hs_sent *sent_out)
{
    struct event event;
    if (!c->ctx->may_wait) {
        return err_make(ERR_WAITS, "the invited user's server signs the invite");
    }
    TRY(make_content(c));
    struct hs_draft draft = draft_of(c);
    TRY(hs_compose(c->hs, c->ctx, c->room, &draft, &event));
    if (c->hs->remote->policy_sign) {
        TRY(c->hs->remote->policy_sign(c->hs, c->ctx, c->room, &event, &event));
    }
    return c->hs->remote->invite(c->hs, c->ctx, c->room, &event, sent_out);
}

bool hs_invite_waits(const struct hs *hs, struct slice user_id)
{
    return hs->remote && hs->remote->invite && !hs_user_is_local(hs, user_id);
}

struct err hs_invite_prepare(struct hs *hs, struct ctx *ctx, struct slice user_id)
{
    uint64_t user = 0;
    bool found = false;
    return hs_user_is_local(hs, user_id) ? hs_appservices_find_user(hs, ctx, user_id, &user, &found)
                                         : OK;
}

/* Whoever is out of the room does not type in it. What is not found here ends by itself soon. */
static void stop_typing(struct changing *c)
{
    uint64_t user = 0;
    bool found = false;
    bool is_out =
        c->change->membership == MEMBERSHIP_LEAVE || c->change->membership == MEMBERSHIP_BAN;
    struct err err = is_out ? hs_user_find(c->hs, c->ctx, c->change->target, &user, &found) : OK;
    if (err.code == 0 && found) {
        hs_typing_stop(c->hs, c->room->number, user);
    }
}

struct err hs_member_set(struct hs *hs, struct ctx *ctx, struct room *room,
                         const struct actor *actor, const struct member_change *change,
                         struct hs_sent *sent_out)
{
    struct changing changing = {
        .hs = hs, .ctx = ctx, .room = room, .actor = actor, .change = change};
    if (change->membership == MEMBERSHIP_INVITE) {
        TRY(hs_invite_prepare(hs, ctx, change->target));
        TRY(hs_invite_permission(hs, ctx, change->target, actor->user_id));
        if (hs_invite_waits(hs, change->target)) {
            return invite_remote(&changing, sent_out);
        }
    }
    TRY(propose(&changing, sent_out));
    stop_typing(&changing);
    /* Also for who was in the room already: the first attempt may have stopped right here. */
    return change->membership == MEMBERSHIP_JOIN ? hs_succession_carry(hs, ctx, room, actor) : OK;
}

bool hs_member_is_refusal(struct err err)
{
    return hs_send_is_refusal(err);
}

/* --- kick, unban, forget --- */

static struct err require_membership(struct hs *hs, struct ctx *ctx, struct room *room,
                                     struct slice target, enum membership *membership_out)
{
    return hs_membership_at(hs, ctx, room, hs_room_head(room).root, target, membership_out);
}

static struct err set_left(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct actor *actor, struct slice target, struct slice reason)
{
    struct hs_sent sent;
    struct member_change change = {
        .target = target, .membership = MEMBERSHIP_LEAVE, .reason = reason};
    return hs_member_set(hs, ctx, room, actor, &change, &sent);
}

struct err hs_member_kick(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct actor *actor, struct slice target, struct slice reason)
{
    enum membership membership = MEMBERSHIP_NONE;
    TRY(require_membership(hs, ctx, room, target, &membership));
    if (membership != MEMBERSHIP_JOIN && membership != MEMBERSHIP_INVITE &&
        membership != MEMBERSHIP_KNOCK) {
        return err_public(ERR_M_FORBIDDEN, "The user is not in the room.");
    }
    if (slice_eq(target, actor->user_id)) {
        TRY(hs_notice_check_leave(hs, ctx, room, actor));
    }
    return set_left(hs, ctx, room, actor, target, reason);
}

struct err hs_member_unban(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct actor *actor, struct slice target, struct slice reason)
{
    enum membership membership = MEMBERSHIP_NONE;
    TRY(require_membership(hs, ctx, room, target, &membership));
    if (membership != MEMBERSHIP_BAN) {
        return err_public(ERR_M_BAD_STATE, "The user is not banned.");
    }
    return set_left(hs, ctx, room, actor, target, reason);
}

static struct err forget_in_lane(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct actor *actor)
{
    struct user_room entry;
    bool found = false;
    TRY(hs_user_room(hs, ctx, actor->user, room->number, &entry, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "You have never been in this room.");
    }
    if (entry.membership == MEMBERSHIP_JOIN || entry.membership == MEMBERSHIP_INVITE ||
        entry.membership == MEMBERSHIP_KNOCK) {
        return err_public(ERR_M_UNKNOWN_400, "Leave the room before forgetting it.");
    }
    if (entry.forgotten) {
        return OK;
    }
    struct buf row;
    entry.forgotten = true;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    user_room_encode(&row, &entry);
    struct store_update *update = store_update_new(ctx, user_object(ctx, actor->user));
    store_put(update, key_u64(ctx, USER_ROW_ROOM, room->number), buf_slice(&row));
    struct change change = {.pos = positions_reserve(hs->positions),
                            .kind = CHANGE_MEMBERSHIP,
                            .room = room->number,
                            .user = actor->user};
    struct err err = store_write(hs->store, ctx, &update, 1);
    if (err.code != 0) {
        positions_abandon(hs->positions, change.pos);
        return err;
    }
    positions_complete(hs->positions, &change, ctx->write_ticket);
    return OK;
}

struct err hs_room_forget(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct actor *actor)
{
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = forget_in_lane(hs, ctx, room, actor);
    workers_lane_leave(hs->workers, lane);
    return err;
}

/* --- what profile changes and deactivation mean to rooms --- */

static const struct slice fields_of_profile[] = {{"displayname", 11}, {"avatar_url", 10}};

/* The member event again, with the new names. */
static struct err renew_member(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct actor *actor)
{
    struct hs_sent sent;
    struct member_change change = {.target = actor->user_id, .membership = MEMBERSHIP_JOIN};
    struct changing changing = {
        .hs = hs, .ctx = ctx, .room = room, .actor = actor, .change = &change, .renews = true};
    return propose(&changing, &sent);
}

static struct err on_profile_change(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    struct slice field)
{
    struct user_rooms rooms;
    struct actor actor = {.user = user};
    if (!slice_eq(field, fields_of_profile[0]) && !slice_eq(field, fields_of_profile[1])) {
        return OK;
    }
    TRY(hs_user_id_of(hs, ctx, user, &actor.user_id));
    TRY(hs_user_rooms(hs, ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count; i++) {
        struct room *room = NULL;
        if (rooms.items[i].membership != MEMBERSHIP_JOIN) {
            continue;
        }
        struct err there = hs_room_get(hs, ctx, rooms.items[i].room, &room);
        if (there.code == ERR_M_NOT_FOUND) { /* purged meanwhile */
            continue;
        }
        TRY(there);
        struct err err = renew_member(hs, ctx, room, &actor);
        if (err.code != 0 && !hs_member_is_refusal(err)) {
            return err;
        }
        if (err.code != 0) {
            log_warn(hs->log, "profile_not_carried", .user = actor.user_id,
                     .err = slice_of(err.text));
        }
    }
    return OK;
}

/* Invites to rooms of others end here alone: their servers are not waited for. */
static struct err leave_for_good(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct actor *actor)
{
    if (!hs_room_is_resident(room)) {
        return hs_intake_uninvite(hs, ctx, hs_room_info(room).room_id, actor->user, NULL);
    }
    struct hs_sent sent;
    struct member_change change = {
        .target = actor->user_id, .membership = MEMBERSHIP_LEAVE, .insists = true};
    return hs_member_set(hs, ctx, room, actor, &change, &sent);
}

static struct err on_deactivated(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct slice user_id)
{
    struct user_rooms rooms;
    struct actor actor = {.user = user, .user_id = user_id};
    TRY(hs_user_rooms(hs, ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count; i++) {
        struct room *room = NULL;
        enum membership membership = rooms.items[i].membership;
        if (membership != MEMBERSHIP_JOIN && membership != MEMBERSHIP_INVITE &&
            membership != MEMBERSHIP_KNOCK) {
            continue;
        }
        TRY(hs_room_get(hs, ctx, rooms.items[i].room, &room));
        struct err err = leave_for_good(hs, ctx, room, &actor);
        if (err.code != 0 && !hs_member_is_refusal(err)) {
            return err;
        }
        if (err.code != 0) {
            log_warn(hs->log, "deactivated_user_stays", .user = user_id, .err = slice_of(err.text));
        }
    }
    return OK;
}

void hs_memberships_hook(struct hs *hs)
{
    hs_on_profile_change(hs, on_profile_change);
    hs_on_deactivated(hs, on_deactivated);
}

/* --- standing of a reader --- */

static struct err is_world_readable(struct hs *hs, struct ctx *ctx, struct room *room,
                                    bool *readable_out)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_state_event(hs, ctx, room, hs_room_head(room).root, LIT("m.room.history_visibility"),
                       LIT(""), &event, &found));
    *readable_out = visibility_of(found ? &event.event : NULL) == HISTORY_WORLD_READABLE && found;
    return OK;
}

struct err hs_room_view(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                        struct room_view *view_out)
{
    struct user_room entry = {0};
    bool found = false;
    struct room_head head = hs_room_head(room);
    if (user) {
        TRY(hs_user_room(hs, ctx, user, room->number, &entry, &found));
    }
    *view_out = (struct room_view){
        .membership = entry.membership, .number = head.number, .root = head.root};
    if (found && entry.membership == MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(is_world_readable(hs, ctx, room, &view_out->world_readable));
    if (view_out->world_readable) {
        return OK;
    }
    if (!found || !entry.left_number || entry.forgotten) {
        return err_public(ERR_M_FORBIDDEN, "You are not in this room.");
    }
    struct stored_event left;
    TRY(hs_event_load(hs, ctx, room, entry.left_number, &left, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "the event that ended a stay is missing");
    }
    view_out->number = entry.left_number;
    view_out->root = left.room_root;
    return OK;
}
