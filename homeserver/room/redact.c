#include "homeserver/room/redact.h"

#include "homeserver/room/event.h"
#include "homeserver/room/power.h"

/* One content member that survives, and from (and up to) which redaction set. */
struct keep {
    struct slice type;
    struct slice key;
    enum redaction_set from;
    enum redaction_set until;
};

static const struct keep kept_content[] = {
    {LIT("m.room.member"), LIT("membership"), REDACTION_A, REDACTION_E},
    {LIT("m.room.member"), LIT("join_authorised_via_users_server"), REDACTION_D, REDACTION_E},
    {LIT("m.room.create"), LIT("creator"), REDACTION_A, REDACTION_D},
    {LIT("m.room.join_rules"), LIT("join_rule"), REDACTION_A, REDACTION_E},
    {LIT("m.room.join_rules"), LIT("allow"), REDACTION_C, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("ban"), REDACTION_A, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("events"), REDACTION_A, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("events_default"), REDACTION_A, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("invite"), REDACTION_E, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("kick"), REDACTION_A, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("redact"), REDACTION_A, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("state_default"), REDACTION_A, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("users"), REDACTION_A, REDACTION_E},
    {LIT("m.room.power_levels"), LIT("users_default"), REDACTION_A, REDACTION_E},
    {LIT("m.room.aliases"), LIT("aliases"), REDACTION_A, REDACTION_A},
    {LIT("m.room.history_visibility"), LIT("history_visibility"), REDACTION_A, REDACTION_E},
    {LIT("m.room.redaction"), LIT("redacts"), REDACTION_E, REDACTION_E},
};

static const struct slice kept_members[] = {
    LIT("auth_events"), LIT("content"),          LIT("depth"),       LIT("event_id"),
    LIT("hashes"),      LIT("origin_server_ts"), LIT("prev_events"), LIT("room_id"),
    LIT("sender"),      LIT("signatures"),       LIT("state_key"),   LIT("type"),
};
/* Kept too before version 11. */
static const struct slice kept_members_old[] = {LIT("membership"), LIT("origin"),
                                                LIT("prev_state")};

static bool is_among(struct slice key, const struct slice *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(key, keys[i])) {
            return true;
        }
    }
    return false;
}

bool redact_keeps_member(const struct room_rules *rules, struct slice key)
{
    if (is_among(key, kept_members, COUNT_OF(kept_members))) {
        return true;
    }
    return rules->redaction_set != REDACTION_E &&
           is_among(key, kept_members_old, COUNT_OF(kept_members_old));
}

/* Version 11: of third_party_invite, only `signed` survives. */
static void keep_signed_invite(struct arena *arena, const struct json *content, struct json *kept)
{
    const struct json *invite = json_get_object(content, LIT("third_party_invite"));
    const struct json *proof = json_get(invite, LIT("signed"));
    if (proof) {
        struct json reduced = json_object();
        json_set(arena, &reduced, LIT("signed"), *proof);
        json_set(arena, kept, LIT("third_party_invite"), reduced);
    }
}

struct json redact_content(struct arena *arena, const struct room_rules *rules, struct slice type,
                           const struct json *content)
{
    struct json kept = json_object();
    if (!content || content->type != JSON_OBJECT || !slice_has_prefix(type, LIT("m.room."))) {
        return kept;
    }
    if (rules->redaction_set == REDACTION_E && slice_eq(type, LIT("m.room.create"))) {
        return *content;
    }
    for (size_t i = 0; i < COUNT_OF(kept_content); i++) {
        const struct keep *row = &kept_content[i];
        const struct json *value = NULL;
        if (rules->redaction_set >= row->from && rules->redaction_set <= row->until &&
            slice_eq(type, row->type)) {
            value = json_get(content, row->key);
        }
        if (value) {
            json_set(arena, &kept, row->key, *value);
        }
    }
    if (rules->redaction_set == REDACTION_E && slice_eq(type, LIT("m.room.member"))) {
        keep_signed_invite(arena, content, &kept);
    }
    return kept;
}

struct json redact_event(struct arena *arena, const struct room_rules *rules,
                         const struct json *pdu)
{
    struct json kept = json_object();
    kept.members = arena_array(arena, pdu->count + 1, sizeof *kept.members);
    for (uint32_t i = 0; i < pdu->count; i++) {
        if (redact_keeps_member(rules, pdu->members[i].key)) {
            kept.members[kept.count++] = pdu->members[i];
        }
    }
    struct slice type = json_get_string(pdu, LIT("type"));
    struct json content = redact_content(arena, rules, type, json_get(pdu, LIT("content")));
    json_set(arena, &kept, LIT("content"), content);
    return kept;
}

bool redact_is_allowed(const struct event *redaction, const struct event *target,
                       const struct power_levels *levels)
{
    if (!ids_room_eq(redaction->room_id, target->room_id) ||
        ids_event_eq(redaction->id, target->id)) {
        return false;
    }
    if (power_of_user(levels, redaction->sender) >= levels->redact) {
        return true;
    }
    /* Versions 1 and 2 compare the domains of the event ids (rule 11.2), later ones the senders'.
     */
    if (redaction->rules->redaction_auth) {
        return ids_server_eq(ids_event_domain(redaction->id), ids_event_domain(target->id));
    }
    return ids_server_eq(ids_user_domain(redaction->sender), ids_user_domain(target->sender));
}
