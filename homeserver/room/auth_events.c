#include "homeserver/room/auth_events.h"

#include "homeserver/room/membership.h"

struct keys {
    struct auth_key *items;
    size_t count;
};

static void add(struct keys *keys, struct slice type, struct slice state_key)
{
    for (size_t i = 0; i < keys->count; i++) {
        if (slice_eq(keys->items[i].type, type) && slice_eq(keys->items[i].state_key, state_key)) {
            return;
        }
    }
    keys->items[keys->count++] = (struct auth_key){type, state_key};
}

static void add_for_invite(struct keys *keys, const struct event *event)
{
    const struct json *invite = json_get_object(event->content, LIT("third_party_invite"));
    struct slice token = json_get_string(json_get_object(invite, LIT("signed")), LIT("token"));
    if (token.ptr) {
        add(keys, LIT("m.room.third_party_invite"), token);
    }
}

static void add_for_member(struct keys *keys, const struct event *event)
{
    enum membership membership = membership_of(event);
    if (event->has_state_key) {
        add(keys, LIT("m.room.member"), event->state_key);
    }
    if (membership == MEMBERSHIP_JOIN || membership == MEMBERSHIP_INVITE ||
        membership == MEMBERSHIP_KNOCK) {
        add(keys, LIT("m.room.join_rules"), LIT(""));
    }
    if (membership == MEMBERSHIP_INVITE) {
        add_for_invite(keys, event);
    }
    struct slice voucher = json_get_string(event->content, LIT("join_authorised_via_users_server"));
    if (membership == MEMBERSHIP_JOIN && event->rules->restricted && voucher.ptr) {
        add(keys, LIT("m.room.member"), voucher);
    }
}

size_t auth_events_select(const struct event *event, struct auth_key keys_out[AUTH_EVENTS_MAX])
{
    struct keys keys = {keys_out, 0};
    if (slice_eq(event->type, LIT("m.room.create"))) {
        return 0;
    }
    if (event->rules->event_format != EVENT_FORMAT_12) {
        add(&keys, LIT("m.room.create"), LIT(""));
    }
    add(&keys, LIT("m.room.power_levels"), LIT(""));
    add(&keys, LIT("m.room.member"), event->sender.s);
    if (slice_eq(event->type, LIT("m.room.member"))) {
        add_for_member(&keys, event);
    }
    return keys.count;
}
