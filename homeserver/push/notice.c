#include "homeserver/push/push_priv.h"

#include "homeserver/service/users.h"
#include "homeserver/service/verdicts.h"

#include <string.h>

enum { NAMED_MEMBERS_MAX = 3 };

struct loading {
    struct hs *hs;
    struct ctx *ctx;
    uint64_t user;
    const struct push_item *item;
    struct slice user_id;
    struct room *room;
    struct room_head head;
    struct user_room entry;
    struct stored_event event;
    struct json invite_state; /* of an invite to a room that is not here; else no array */
};

/* --- what is known of the room --- */

static const struct json *invite_content(const struct loading *l, struct slice type,
                                         struct slice state_key)
{
    for (uint32_t i = 0; i < l->invite_state.count; i++) {
        const struct json *event = &l->invite_state.items[i];
        if (json_is_string(json_get(event, LIT("type")), type) &&
            json_is_string(json_get(event, LIT("state_key")), state_key)) {
            return json_get_object(event, LIT("content"));
        }
    }
    return NULL;
}

static struct err state_text(struct loading *l, struct slice type, struct slice key,
                             struct slice *text_out)
{
    struct stored_event event;
    bool found = false;
    if (l->entry.invite_state.len) {
        *text_out = json_get_string(invite_content(l, type, LIT("")), key);
        return OK;
    }
    TRY(hs_state_event(l->hs, l->ctx, l->room, l->head.root, type, LIT(""), &event, &found));
    *text_out = found ? json_get_string(event.event.content, key) : (struct slice){0};
    return OK;
}

static struct err sender_name(struct loading *l, struct slice *name_out)
{
    struct room_member member;
    bool found = false;
    if (l->entry.invite_state.len) {
        *name_out = json_get_string(
            invite_content(l, LIT("m.room.member"), l->event.event.sender.s), LIT("displayname"));
        return OK;
    }
    TRY(hs_room_member(l->hs, l->ctx, l->room, l->event.sender, &member, &found));
    *name_out = found ? member.display_name : (struct slice){0};
    return OK;
}

static struct slice name_of_member(const struct room_member *member)
{
    return member->display_name.len ? member->display_name : member->user_id;
}

/* Spec: client-server, "Calculating the display name for a room": who else is there. */
static struct err name_by_members(struct loading *l, struct slice *name_out)
{
    struct room_members members;
    struct buf name;
    size_t named = 0;
    buf_init_arena(&name, l->ctx->arena, SIZE_MAX / 2);
    TRY(hs_room_members(l->hs, l->ctx, l->room, MEMBERSHIP_JOIN, NAMED_MEMBERS_MAX + 1, &members));
    for (size_t i = 0; i < members.count && named < NAMED_MEMBERS_MAX; i++) {
        if (members.items[i].user != l->user) {
            buf_add(&name, named++ ? LIT(", ") : LIT(""));
            buf_add(&name, name_of_member(&members.items[i]));
        }
    }
    size_t others = l->head.joined_count > 0 ? l->head.joined_count - 1 : 0;
    if (others > named && named > 0) {
        buf_printf(&name, " and %zu others", others - named);
    }
    *name_out = buf_slice(&name);
    return OK;
}

static struct err load_names(struct loading *l, struct push_notice *notice)
{
    TRY(sender_name(l, &notice->sender_name));
    TRY(state_text(l, LIT("m.room.name"), LIT("name"), &notice->room_name));
    TRY(state_text(l, LIT("m.room.canonical_alias"), LIT("alias"), &notice->room_alias));
    if (notice->room_name.len || notice->room_alias.len || l->entry.invite_state.len) {
        return OK;
    }
    return name_by_members(l, &notice->room_name);
}

/* --- what the rule says --- */

static bool is_set(const struct json *tweaks, struct slice name)
{
    const struct json *value = json_get(tweaks, name);
    bool is_off = value && value->type == JSON_BOOL && !value->boolean;
    return value && !is_off;
}

/* Spec: client-server, "Actions": {"set_tweak": name, "value": ...}; a highlight without a value
 * is true. */
static void read_tweaks(struct loading *l, struct push_notice *notice)
{
    struct arena *arena = l->ctx->arena;
    struct json actions, tweaks = json_object();
    if (json_parse(arena, l->item->actions, &actions).code != 0 || actions.type != JSON_ARRAY) {
        actions = json_array();
    }
    for (uint32_t i = 0; i < actions.count; i++) {
        struct slice name = json_get_string(&actions.items[i], LIT("set_tweak"));
        const struct json *value = json_get(&actions.items[i], LIT("value"));
        if (name.ptr) {
            json_set(arena, &tweaks, name, value ? *value : json_bool(true));
        }
    }
    notice->tweaks = json_canonical(arena, &tweaks);
    notice->is_urgent = is_set(&tweaks, LIT("highlight")) || is_set(&tweaks, LIT("sound")) ||
                        slice_eq(notice->type, LIT("m.room.encrypted"));
}

/* --- whether there is anything to say --- */

static struct err is_current(struct loading *l, bool *current_out)
{
    struct receipts receipts;
    bool read = false;
    *current_out = l->entry.membership == MEMBERSHIP_JOIN || l->entry.number == l->event.number;
    if (!*current_out || (l->event.flags & EVENT_REDACTED)) {
        *current_out = false;
        return OK;
    }
    if (l->entry.membership != MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(hs_receipts_of_user(l->hs, l->ctx, l->room, l->user, &receipts));
    TRY(hs_event_is_read(l->hs, l->ctx, l->room, &receipts, &l->event, &read));
    *current_out = !read;
    return OK;
}

static struct err find_event(struct loading *l, bool *found_out)
{
    struct err err = hs_room_get(l->hs, l->ctx, l->item->room, &l->room);
    *found_out = false;
    if (err.code == ERR_M_NOT_FOUND) { /* purged */
        return OK;
    }
    TRY(err);
    TRY(hs_user_room(l->hs, l->ctx, l->user, l->item->room, &l->entry, found_out));
    if (!*found_out) {
        return OK;
    }
    TRY(hs_event_load(l->hs, l->ctx, l->room, l->item->number, &l->event, found_out));
    return *found_out ? is_current(l, found_out) : OK;
}

static void write_event(struct loading *l, struct push_notice *notice)
{
    const struct event *event = &l->event.event;
    notice->event_id = event->id.s;
    notice->room_id = hs_room_info(l->room).room_id;
    notice->type = event->type;
    notice->sender = event->sender.s;
    notice->content = l->hs->conf->push_include_content ? event->content_json : (struct slice){0};
    notice->is_member = slice_eq(event->type, LIT("m.room.member")) && event->has_state_key;
    notice->is_target = notice->is_member && slice_eq(event->state_key, l->user_id);
    notice->membership =
        notice->is_member ? json_get_string(event->content, LIT("membership")) : (struct slice){0};
}

struct err push_notice_load(struct hs *hs, struct ctx *ctx, const struct push_subject *subject,
                            struct push_notice *notice_out, bool *found_out)
{
    struct loading l = {.hs = hs, .ctx = ctx, .user = subject->user, .item = subject->item};
    *notice_out = (struct push_notice){0};
    TRY(find_event(&l, found_out));
    if (!*found_out) {
        return OK;
    }
    l.head = hs_room_head(l.room);
    TRY(hs_user_id_of(hs, ctx, l.user, &l.user_id));
    if (json_parse(ctx->arena, l.entry.invite_state, &l.invite_state).code != 0 ||
        l.invite_state.type != JSON_ARRAY) {
        l.invite_state = json_array();
    }
    write_event(&l, notice_out);
    read_tweaks(&l, notice_out);
    TRY(load_names(&l, notice_out));
    return push_count_unread(hs, ctx, l.user, subject->item->pos, notice_out);
}

struct err push_count_unread(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t upto,
                             struct push_notice *notice)
{
    struct user_rooms rooms;
    uint64_t published = positions_published(hs->positions);
    struct counts_request request = {.user = user, .upto = upto > published ? upto : published};
    TRY(hs_user_id_of(hs, ctx, user, &request.user_id));
    TRY(hs_user_rooms(hs, ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count; i++) {
        struct unread_counts counts;
        struct room *room = NULL;
        if (rooms.items[i].membership != MEMBERSHIP_JOIN) {
            continue;
        }
        request.joined_number = rooms.items[i].joined_number;
        struct err err = hs_room_get(hs, ctx, rooms.items[i].room, &room);
        if (err.code == ERR_M_NOT_FOUND) { /* purged meanwhile */
            continue;
        }
        TRY(err);
        TRY(hs_unread_counts_of(hs, ctx, room, &request, &counts));
        notice->unread += counts.notify_all;
        notice->missed_calls += counts.calls_all;
    }
    /* What rings is not missed yet. */
    bool rings = notice->missed_calls > 0 && slice_eq(notice->type, LIT("m.call.invite"));
    notice->missed_calls -= rings ? 1 : 0;
    return OK;
}
