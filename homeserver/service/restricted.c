#include "homeserver/service/restricted.h"

#include "homeserver/room/join_rules.h"
#include "homeserver/room/power.h"
#include "homeserver/service/users.h"

struct restricting {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    struct slice user_id;
    bool all_seen; /* every room of the allow list is known here */
};

static struct err current_state(struct restricting *r, struct slice type,
                                struct stored_event *event_out, bool *found_out)
{
    return hs_state_event(r->hs, r->ctx, r->room, hs_room_head(r->room).root, type, LIT(""),
                          event_out, found_out);
}

/* Only a room with a member of this server is known as it is now. */
static struct err is_joined_to(struct restricting *r, struct slice room_id, bool *joined_out)
{
    uint64_t number = 0;
    bool found = false;
    struct room *room = NULL;
    enum membership membership = MEMBERSHIP_NONE;
    *joined_out = false;
    TRY(hs_room_find(r->hs, r->ctx, room_id, &number, &found));
    if (found) {
        TRY(hs_room_get(r->hs, r->ctx, number, &room));
    }
    if (!found || !hs_room_is_resident(room)) {
        r->all_seen = false;
        return OK;
    }
    TRY(hs_membership_at(r->hs, r->ctx, room, hs_room_head(room).root, r->user_id, &membership));
    *joined_out = membership == MEMBERSHIP_JOIN;
    return OK;
}

static struct err meets_condition(struct restricting *r, const struct join_rules *rules,
                                  bool *meets_out)
{
    *meets_out = false;
    r->all_seen = true;
    for (size_t i = 0; i < rules->allowed_room_count && !*meets_out; i++) {
        TRY(is_joined_to(r, rules->allowed_rooms[i].s, meets_out));
    }
    return OK;
}

/* A local member with the power to invite. */
static struct err find_authoriser(struct restricting *r, struct slice *user_id_out)
{
    struct stored_event create;
    struct stored_event levels_event;
    bool has_create = false;
    bool has_levels = false;
    uint64_t *users = NULL;
    TRY(current_state(r, LIT("m.room.create"), &create, &has_create));
    TRY(current_state(r, LIT("m.room.power_levels"), &levels_event, &has_levels));
    struct power_levels levels =
        power_load(hs_room_info(r->room).rules, has_create ? &create.event : NULL,
                   has_levels ? &levels_event.event : NULL);
    size_t count = hs_room_local_users(r->ctx, r->room, &users);
    for (size_t i = 0; i < count; i++) {
        struct slice user_id;
        TRY(hs_user_id_of(r->hs, r->ctx, users[i], &user_id));
        if (power_of_user(&levels, ids_trust_user(user_id)) >= levels.invite) {
            *user_id_out = user_id;
            return OK;
        }
    }
    return err_public(ERR_M_UNABLE_TO_GRANT_JOIN, "No user of this server in the room may invite.");
}

struct err hs_restricted_authoriser(struct hs *hs, struct ctx *ctx, struct room *room,
                                    struct slice user_id, struct slice *authoriser_out)
{
    struct restricting r = {.hs = hs, .ctx = ctx, .room = room, .user_id = user_id};
    struct stored_event event;
    enum membership current = MEMBERSHIP_NONE;
    bool found = false;
    bool meets = false;
    *authoriser_out = (struct slice){0};
    TRY(current_state(&r, LIT("m.room.join_rules"), &event, &found));
    if (!found || !join_rules_are_restricted(join_rules_rule(&event.event))) {
        return OK;
    }
    TRY(hs_membership_at(hs, ctx, room, hs_room_head(room).root, user_id, &current));
    if (current == MEMBERSHIP_INVITE || current == MEMBERSHIP_JOIN) {
        return OK;
    }
    if (current == MEMBERSHIP_BAN) {
        return err_public(ERR_M_FORBIDDEN, "The user is banned from the room.");
    }
    struct join_rules rules = join_rules_parse(ctx->arena, &event.event);
    TRY(meets_condition(&r, &rules, &meets));
    if (!meets && !r.all_seen) {
        return err_public(ERR_M_UNABLE_TO_AUTHORISE_JOIN,
                          "This server cannot see all rooms whose members may join this room.");
    }
    if (!meets) {
        return err_public(ERR_M_FORBIDDEN,
                          "You are in none of the rooms whose members may join this room.");
    }
    return find_authoriser(&r, authoriser_out);
}
