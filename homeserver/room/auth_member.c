/* The rule on m.room.member. Numbers in comments are those of room version 11. */
#include <stdio.h>

#include "homeserver/room/auth_priv.h"
#include "homeserver/room/join_rules.h"
#include "homeserver/room/third_party.h"

static bool has_branch(const struct room_rules *rules, enum auth_branch branch)
{
    if (branch == AUTH_MEMBER_VOUCHER) {
        return rules->restricted;
    }
    return branch != AUTH_MEMBER_KNOCK || rules->knock;
}

struct auth_verdict auth_refuse_member(const struct room_rules *rules, enum auth_branch branch,
                                       const char *sub, const char *text)
{
    char path[32];
    int number = 1;
    for (enum auth_branch before = AUTH_MEMBER_FORM; before < branch; before++) {
        number += has_branch(rules, before);
    }
    snprintf(path, sizeof path, ".%d%s", number, sub);
    return auth_refuse(rules, AUTH_RULE_MEMBER, path, text);
}

/* 4.3.5: join rule restricted or knock_restricted. */
static struct auth_verdict check_restricted_join(const struct auth_check *check)
{
    struct slice voucher =
        json_get_string(check->event->content, LIT("join_authorised_via_users_server"));
    if (check->sender_membership == MEMBERSHIP_JOIN ||
        check->sender_membership == MEMBERSHIP_INVITE) {
        return auth_allow();
    }
    if (!voucher.ptr || auth_membership(check, voucher) != MEMBERSHIP_JOIN ||
        power_of_user(&check->levels, ids_trust_user(voucher)) < check->levels.invite) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_JOIN, ".5.2",
                                  "no member with the power to invite vouches for the join");
    }
    return auth_allow();
}

static struct auth_verdict check_join_rule(const struct auth_check *check)
{
    const struct room_rules *rules = check->rules;
    const struct event *join_rules = auth_state(check, LIT("m.room.join_rules"), LIT(""));
    enum join_rule rule = join_rules_rule(join_rules);
    bool invited = check->sender_membership == MEMBERSHIP_INVITE ||
                   check->sender_membership == MEMBERSHIP_JOIN;
    switch (rule) {
    case JOIN_RULE_PUBLIC:
        return auth_allow();
    case JOIN_RULE_INVITE:
    case JOIN_RULE_KNOCK:
        /* 4.3.4: invited users may join, joined ones change their profile. */
        return invited ? auth_allow()
                       : auth_refuse_member(rules, AUTH_MEMBER_JOIN, ".4",
                                            "joining this room needs an invite");
    case JOIN_RULE_RESTRICTED:
    case JOIN_RULE_KNOCK_RESTRICTED:
        return check_restricted_join(check);
    case JOIN_RULE_OTHER:
        break;
    }
    return auth_refuse_member(rules, AUTH_MEMBER_JOIN, rules->restricted ? ".7" : ".6",
                              "the room's join rule lets nobody join");
}

/* 4.3: membership join. */
static struct auth_verdict check_join(const struct auth_check *check)
{
    const struct event *event = check->event;
    /* 4.3.1: the creator's own first join. */
    if (event->prev_event_count == 1 && ids_event_eq(event->prev_events[0], check->create->id) &&
        slice_eq(power_creator(check->create).s, event->state_key)) {
        return auth_allow();
    }
    if (!slice_eq(event->sender.s, event->state_key)) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_JOIN, ".2",
                                  "nobody can join for another user");
    }
    if (check->sender_membership == MEMBERSHIP_BAN) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_JOIN, ".3",
                                  "the user is banned from the room");
    }
    return check_join_rule(check);
}

static bool is_signed_by_invite(struct arena *arena, const struct json *proof,
                                const struct json *invite)
{
    const struct json *keys = json_get_array(invite, LIT("public_keys"));
    struct third_party_proof read = third_party_read(arena, proof);
    bool fits = third_party_fits(&read, json_get_string(invite, LIT("public_key")));
    for (uint32_t i = 0; keys && i < keys->count && !fits; i++) {
        fits = third_party_fits(&read, json_get_string(&keys->items[i], LIT("public_key")));
    }
    return fits;
}

/* 4.4.1: invite by third-party token. */
static struct auth_verdict check_third_party(const struct auth_check *check,
                                             const struct json *invite)
{
    const struct event *event = check->event;
    const struct json *proof = json_get_object(invite, LIT("signed"));
    const char *text = NULL;
    const char *sub = NULL;
    struct slice token = json_get_string(proof, LIT("token"));
    const struct event *offer =
        token.ptr ? auth_state(check, LIT("m.room.third_party_invite"), token) : NULL;
    if (auth_membership(check, event->state_key) == MEMBERSHIP_BAN) {
        sub = ".1.1";
        text = "the user is banned from the room";
    } else if (!proof) {
        sub = ".1.2";
        text = "the third-party invite has no signed part";
    } else if (!token.ptr || !json_get(proof, LIT("mxid"))) {
        sub = ".1.3";
        text = "the third-party invite has no token or mxid";
    } else if (!json_is_string(json_get(proof, LIT("mxid")), event->state_key)) {
        sub = ".1.4";
        text = "the third-party invite is for another user";
    } else if (!offer) {
        sub = ".1.5";
        text = "the room has no third-party invite with this token";
    } else if (!ids_user_eq(offer->sender, event->sender)) {
        sub = ".1.6";
        text = "the third-party invite is of another sender";
    } else if (!is_signed_by_invite(check->input->arena, proof, offer->content)) {
        sub = ".1.8";
        text = "no signature of the third-party invite is valid";
    } else {
        return auth_allow();
    }
    return auth_refuse_member(check->rules, AUTH_MEMBER_INVITE, sub, text);
}

/* 4.4: membership invite. */
static struct auth_verdict check_invite(const struct auth_check *check)
{
    const struct json *third_party = json_get(check->event->content, LIT("third_party_invite"));
    if (third_party) {
        return check_third_party(check, third_party);
    }
    if (check->sender_membership != MEMBERSHIP_JOIN) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_INVITE, ".2",
                                  "the sender is not in the room");
    }
    enum membership target = auth_membership(check, check->event->state_key);
    if (target == MEMBERSHIP_JOIN || target == MEMBERSHIP_BAN) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_INVITE, ".3",
                                  "the user is in the room or banned from it");
    }
    if (check->sender_power < check->levels.invite) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_INVITE, ".5",
                                  "the sender's power level is too low to invite");
    }
    return auth_allow();
}

/* 4.5.1: leaving oneself. */
static struct auth_verdict check_own_leave(const struct auth_check *check)
{
    enum membership own = check->sender_membership;
    if (own == MEMBERSHIP_INVITE || own == MEMBERSHIP_JOIN ||
        (own == MEMBERSHIP_KNOCK && check->rules->knock)) {
        return auth_allow();
    }
    return auth_refuse_member(check->rules, AUTH_MEMBER_LEAVE, ".1",
                              "the user is not in the room, nor invited");
}

/* 4.5: membership leave: leaving, kicking, lifting a ban. */
static struct auth_verdict check_leave(const struct auth_check *check)
{
    const struct event *event = check->event;
    if (slice_eq(event->sender.s, event->state_key)) {
        return check_own_leave(check);
    }
    if (check->sender_membership != MEMBERSHIP_JOIN) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_LEAVE, ".2",
                                  "the sender is not in the room");
    }
    if (auth_membership(check, event->state_key) == MEMBERSHIP_BAN &&
        check->sender_power < check->levels.ban) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_LEAVE, ".3",
                                  "the sender's power level is too low to lift a ban");
    }
    if (check->sender_power < check->levels.kick ||
        power_of_user(&check->levels, ids_trust_user(event->state_key)) >= check->sender_power) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_LEAVE, ".5",
                                  "the sender's power level is too low to remove this user");
    }
    return auth_allow();
}

/* 4.6: membership ban. */
static struct auth_verdict check_ban(const struct auth_check *check)
{
    const struct event *event = check->event;
    if (check->sender_membership != MEMBERSHIP_JOIN) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_BAN, ".1",
                                  "the sender is not in the room");
    }
    if (check->sender_power < check->levels.ban ||
        power_of_user(&check->levels, ids_trust_user(event->state_key)) >= check->sender_power) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_BAN, ".3",
                                  "the sender's power level is too low to ban this user");
    }
    return auth_allow();
}

/* 4.7: membership knock. */
static struct auth_verdict check_knock(const struct auth_check *check)
{
    const struct event *event = check->event;
    const struct event *join_rules = auth_state(check, LIT("m.room.join_rules"), LIT(""));
    if (!join_rules_allow_knock(join_rules_rule(join_rules))) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_KNOCK, ".1",
                                  "the room's join rule does not let anyone knock");
    }
    if (!slice_eq(event->sender.s, event->state_key)) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_KNOCK, ".2",
                                  "nobody can knock for another user");
    }
    enum membership own = check->sender_membership;
    if (own == MEMBERSHIP_BAN || own == MEMBERSHIP_INVITE || own == MEMBERSHIP_JOIN) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_KNOCK, ".4",
                                  "the user is in the room, invited or banned");
    }
    return auth_allow();
}

struct auth_verdict auth_check_member(const struct auth_check *check)
{
    const struct event *event = check->event;
    /* 4.1 */
    if (!event->has_state_key || !json_get_string(event->content, LIT("membership")).ptr) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_FORM, "",
                                  "a member event needs a state_key and a membership");
    }
    /* 4.2: what names no user was signed by no user's server; the signature of one that it names
     * was checked with the event's others. */
    const struct json *voucher = json_get(event->content, LIT("join_authorised_via_users_server"));
    if (check->rules->restricted && voucher &&
        (voucher->type != JSON_STRING || !ids_is_user(voucher->text))) {
        return auth_refuse_member(check->rules, AUTH_MEMBER_VOUCHER, ".1",
                                  "join_authorised_via_users_server is no user id");
    }
    switch (membership_of(event)) {
    case MEMBERSHIP_JOIN:
        return check_join(check);
    case MEMBERSHIP_INVITE:
        return check_invite(check);
    case MEMBERSHIP_LEAVE:
        return check_leave(check);
    case MEMBERSHIP_BAN:
        return check_ban(check);
    case MEMBERSHIP_KNOCK:
        if (check->rules->knock) {
            return check_knock(check);
        }
        break;
    case MEMBERSHIP_NONE:
    case MEMBERSHIP_OTHER:
        break;
    }
    return auth_refuse_member(check->rules, AUTH_MEMBER_UNKNOWN, "", "the membership is not known");
}
