#include "homeserver/service/room_summary.h"

#include "homeserver/service/users.h"

/* --- reading --- */

struct reading {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    uint64_t root;
};

/* The content of a state event with an empty state key; NULL = there is none. */
static struct err read_content(const struct reading *r, struct slice type,
                               const struct json **content_out)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_state_event(r->hs, r->ctx, r->room, r->root, type, LIT(""), &event, &found));
    *content_out = found ? event.event.content : NULL;
    return OK;
}

static struct err read_text(const struct reading *r, struct slice type, struct slice key,
                            struct slice *text_out)
{
    const struct json *content = NULL;
    TRY(read_content(r, type, &content));
    *text_out = json_get_string(content, key);
    return OK;
}

/* The plain text of m.topic where there is one, else that of `topic`. */
static struct slice plain_topic(const struct json *content)
{
    const struct json *block = json_get_object(content, LIT("m.topic"));
    const struct json *texts = json_get_array(block, LIT("m.text"));
    for (uint32_t i = 0; texts && i < texts->count; i++) {
        struct slice mimetype = json_get_string(&texts->items[i], LIT("mimetype"));
        struct slice body = json_get_string(&texts->items[i], LIT("body"));
        if (body.ptr && (!mimetype.ptr || slice_eq(mimetype, LIT("text/plain")))) {
            return body;
        }
    }
    return json_get_string(content, LIT("topic"));
}

static void read_allowed(struct arena *arena, const struct json *join_rules,
                         struct room_summary *summary)
{
    const struct json *allow = json_get_array(join_rules, LIT("allow"));
    bool restricted = slice_eq(summary->join_rule, LIT("restricted")) ||
                      slice_eq(summary->join_rule, LIT("knock_restricted"));
    if (!allow || !restricted) {
        return;
    }
    struct slice *rooms = arena_array(arena, allow->count, sizeof *rooms);
    for (uint32_t i = 0; i < allow->count; i++) {
        struct slice room_id = json_get_string(&allow->items[i], LIT("room_id"));
        if (json_is_string(json_get(&allow->items[i], LIT("type")), LIT("m.room_membership")) &&
            ids_is_room(room_id)) {
            rooms[summary->allowed_room_count++] = room_id;
        }
    }
    summary->allowed_rooms = rooms;
}

struct err hs_summary_read(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct room_summary *summary_out)
{
    const struct json *content = NULL;
    struct slice word;
    struct room_info info = hs_room_info(room);
    struct room_head head = hs_room_head(room);
    struct reading r = {hs, ctx, room, head.root};
    struct room_summary s = {.room_id = arena_copy(ctx->arena, info.room_id),
                             .room_version = info.rules->version,
                             .joined_count = head.joined_count};
    TRY(read_text(&r, LIT("m.room.name"), LIT("name"), &s.name));
    TRY(read_content(&r, LIT("m.room.topic"), &content));
    s.topic = plain_topic(content);
    TRY(read_text(&r, LIT("m.room.canonical_alias"), LIT("alias"), &s.canonical_alias));
    TRY(read_text(&r, LIT("m.room.avatar"), LIT("url"), &s.avatar_url));
    TRY(read_text(&r, LIT("m.room.create"), LIT("type"), &s.room_type));
    TRY(read_text(&r, LIT("m.room.encryption"), LIT("algorithm"), &s.encryption));
    TRY(read_content(&r, LIT("m.room.join_rules"), &content));
    s.join_rule = json_get_string(content, LIT("join_rule"));
    read_allowed(ctx->arena, content, &s);
    TRY(read_text(&r, LIT("m.room.history_visibility"), LIT("history_visibility"), &word));
    s.world_readable = slice_eq(word, LIT("world_readable"));
    TRY(read_text(&r, LIT("m.room.guest_access"), LIT("guest_access"), &word));
    s.guest_can_join = slice_eq(word, LIT("can_join"));
    *summary_out = s;
    return OK;
}

bool hs_summary_parse(struct arena *arena, const struct json *object,
                      struct room_summary *summary_out)
{
    struct room_summary s = {.room_id = json_get_string(object, LIT("room_id")),
                             .name = json_get_string(object, LIT("name")),
                             .topic = json_get_string(object, LIT("topic")),
                             .canonical_alias = json_get_string(object, LIT("canonical_alias")),
                             .avatar_url = json_get_string(object, LIT("avatar_url")),
                             .room_type = json_get_string(object, LIT("room_type")),
                             .join_rule = json_get_string(object, LIT("join_rule")),
                             .encryption = json_get_string(object, LIT("encryption")),
                             .room_version = json_get_string(object, LIT("room_version")),
                             .world_readable = json_get_bool(object, LIT("world_readable"), false),
                             .guest_can_join = json_get_bool(object, LIT("guest_can_join"), false)};
    const struct json *allowed = json_get_array(object, LIT("allowed_room_ids"));
    if (!ids_is_room(s.room_id)) {
        return false;
    }
    if (!s.join_rule.len) { /* "When not present, the room is assumed to be public." */
        s.join_rule = LIT("public");
    }
    json_get_int(object, LIT("num_joined_members"), &s.joined_count);
    struct slice *rooms = arena_array(arena, allowed ? allowed->count : 0, sizeof *rooms);
    for (uint32_t i = 0; allowed && i < allowed->count; i++) {
        if (allowed->items[i].type == JSON_STRING && ids_is_room(allowed->items[i].text)) {
            rooms[s.allowed_room_count++] = allowed->items[i].text;
        }
    }
    s.allowed_rooms = rooms;
    *summary_out = s;
    return true;
}

/* --- writing --- */

static void write_text(struct json_out *out, struct slice key, struct slice text)
{
    if (text.len) {
        json_out_key_string(out, key, text);
    }
}

void hs_summary_write(struct json_out *out, const struct room_summary *s, enum summary_form form)
{
    json_out_key_string(out, LIT("room_id"), s->room_id);
    json_out_key_int(out, LIT("num_joined_members"), s->joined_count);
    json_out_key_bool(out, LIT("world_readable"), s->world_readable);
    json_out_key_bool(out, LIT("guest_can_join"), s->guest_can_join);
    write_text(out, LIT("name"), s->name);
    write_text(out, LIT("topic"), s->topic);
    write_text(out, LIT("canonical_alias"), s->canonical_alias);
    write_text(out, LIT("avatar_url"), s->avatar_url);
    write_text(out, LIT("room_type"), s->room_type);
    write_text(out, LIT("join_rule"), s->join_rule);
    if (form == SUMMARY_PUBLIC_LIST) {
        return;
    }
    write_text(out, LIT("encryption"), s->encryption);
    write_text(out, LIT("room_version"), s->room_version);
    if (s->allowed_room_count) {
        json_out_key_array(out, LIT("allowed_room_ids"));
        for (size_t i = 0; i < s->allowed_room_count; i++) {
            json_out_string(out, s->allowed_rooms[i]);
        }
        json_out_array_end(out);
    }
}

/* --- who may look --- */

static bool is_open(const struct room_summary *s)
{
    return s->world_readable || slice_eq(s->join_rule, LIT("public")) ||
           slice_eq(s->join_rule, LIT("knock")) || slice_eq(s->join_rule, LIT("knock_restricted"));
}

static struct err find_entry(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice room_id,
                             enum membership *membership_out)
{
    struct user_room entry;
    uint64_t room = 0;
    bool found = false;
    *membership_out = MEMBERSHIP_NONE;
    TRY(hs_room_find(hs, ctx, room_id, &room, &found));
    if (found) {
        TRY(hs_user_room(hs, ctx, user, room, &entry, &found));
    }
    *membership_out = found ? entry.membership : MEMBERSHIP_NONE;
    return OK;
}

struct err hs_summary_visible_to_user(struct hs *hs, struct ctx *ctx, uint64_t user,
                                      const struct room_summary *s, bool *visible_out)
{
    enum membership membership = MEMBERSHIP_NONE;
    *visible_out = is_open(s);
    if (!user) {
        return OK;
    }
    TRY(find_entry(hs, ctx, user, s->room_id, &membership));
    if (membership == MEMBERSHIP_JOIN || membership == MEMBERSHIP_INVITE ||
        membership == MEMBERSHIP_BAN) {
        *visible_out = membership != MEMBERSHIP_BAN;
        return OK;
    }
    for (size_t i = 0; i < s->allowed_room_count && !*visible_out; i++) {
        TRY(find_entry(hs, ctx, user, s->allowed_rooms[i], &membership));
        *visible_out = membership == MEMBERSHIP_JOIN;
    }
    return OK;
}

struct err hs_server_in_room(struct hs *hs, struct ctx *ctx, struct room *room, struct slice server,
                             enum server_standing standing, bool *is_in_out)
{
    struct room_members members;
    *is_in_out = false;
    enum membership wanted[] = {MEMBERSHIP_JOIN, MEMBERSHIP_INVITE};
    size_t kinds = standing == SERVER_JOINED ? 1 : 2;
    for (size_t k = 0; k < kinds && !*is_in_out; k++) {
        TRY(hs_room_members(hs, ctx, room, wanted[k], 0, &members));
        for (size_t i = 0; i < members.count && !*is_in_out; i++) {
            struct server_name domain = ids_user_domain(ids_trust_user(members.items[i].user_id));
            *is_in_out = slice_eq(domain.s, server);
        }
    }
    return OK;
}

struct err hs_summary_visible_to_server(struct hs *hs, struct ctx *ctx, struct room *room,
                                        struct slice server, const struct room_summary *s,
                                        bool *visible_out)
{
    *visible_out = is_open(s);
    if (!*visible_out) {
        TRY(hs_server_in_room(hs, ctx, room, server, SERVER_JOINED_OR_INVITED, visible_out));
    }
    for (size_t i = 0; i < s->allowed_room_count && !*visible_out; i++) {
        struct room *allowed = NULL;
        uint64_t number = 0;
        bool found = false;
        TRY(hs_room_find(hs, ctx, s->allowed_rooms[i], &number, &found));
        if (found) {
            TRY(hs_room_get(hs, ctx, number, &allowed));
            TRY(hs_server_in_room(hs, ctx, allowed, server, SERVER_JOINED, visible_out));
        }
    }
    return OK;
}
