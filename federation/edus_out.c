/* EDUs that follow from what users of this server do: typing, presence, receipts, device lists; and
 * what a change of membership means for them. Only servers that share a room hear of a user.
 * Spec: server-server, "Typing Notifications", "Presence", "Receipts", "Device Management". */
#include "federation/outbox_priv.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/pause.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/remote_devices.h"
#include "homeserver/service/users.h"

#include <stdlib.h>
#include <string.h>

enum {
    TYPISTS_MAX = 64,
    TYPING_AGAIN_MS = 30 * 1000, /* others forget a typist after about a minute */
    PRESENCE_AGAIN_MS = 25 * 60 * 1000,
};

struct typed {
    uint64_t room;
    uint64_t users[TYPISTS_MAX]; /* of this server, as others were told */
    size_t count;
};

struct edus_out {
    struct outbox *outbox;
    struct map *typing; /* room -> struct typed */
    int64_t typing_again_ms, presence_again_ms;
};

struct edus_out *edus_out_new(struct outbox *outbox)
{
    struct edus_out *edus = mem_alloc(sizeof *edus);
    edus->outbox = outbox;
    edus->typing = map_new();
    return edus;
}

void edus_out_free(struct edus_out **edus)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    if (!*edus) {
        return;
    }
    while (map_next((*edus)->typing, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&(*edus)->typing);
    mem_free(*edus);
    *edus = NULL;
}

/* Counted apart from those at the event that is being given out: events may lie far behind the
 * head, and going to and fro between the two costs what differs between them each time. */
static struct err servers_now(struct outbox *outbox, struct ctx *ctx, struct room *room,
                              struct server_names *names_out)
{
    return room_servers_at(outbox->servers_now, ctx, room, hs_room_head(room).root, names_out);
}

/* --- sharing --- */

struct sharing {
    struct slice *items;
    size_t count, cap;
};

static void sharing_add(struct ctx *ctx, struct sharing *sharing, struct server_names names)
{
    for (size_t i = 0; i < names.count; i++) {
        if (sharing->count == sharing->cap) {
            size_t cap = sharing->cap ? sharing->cap * 2 : 16;
            sharing->items =
                arena_grow(ctx->arena, sharing->items, sharing->cap * sizeof *sharing->items,
                           cap * sizeof *sharing->items);
            sharing->cap = cap;
        }
        sharing->items[sharing->count++] = arena_copy(ctx->arena, names.items[i]);
    }
}

static int by_name(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

static size_t keep_unique(struct slice *items, size_t count)
{
    size_t kept = 0;
    if (count > 1) {
        qsort(items, count, sizeof *items, by_name);
    }
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || !slice_eq(items[kept - 1], items[i])) {
            items[kept++] = items[i];
        }
    }
    return kept;
}

struct err outbox_sharing_servers(struct outbox *outbox, struct ctx *ctx, uint64_t user,
                                  uint64_t but_room, struct server_names *names_out)
{
    struct user_rooms rooms;
    struct sharing sharing = {0};
    TRY(hs_user_rooms(outbox->hs, ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count; i++) {
        struct room *room = NULL;
        struct server_names names;
        if (rooms.items[i].membership != MEMBERSHIP_JOIN || rooms.items[i].room == but_room) {
            continue;
        }
        struct err err = hs_room_get(outbox->hs, ctx, rooms.items[i].room, &room);
        if (err.code == ERR_M_NOT_FOUND) {
            continue;
        }
        TRY(err);
        TRY(servers_now(outbox, ctx, room, &names));
        sharing_add(ctx, &sharing, names);
    }
    sharing.count = keep_unique(sharing.items, sharing.count);
    *names_out = (struct server_names){sharing.items, sharing.count};
    return OK;
}

/* --- typing --- */

static bool has_user(const uint64_t *users, size_t count, uint64_t user)
{
    for (size_t i = 0; i < count; i++) {
        if (users[i] == user) {
            return true;
        }
    }
    return false;
}

static struct err send_typing(struct edus_out *edus, struct ctx *ctx, struct room *room,
                              uint64_t user, bool is_typing)
{
    struct json content = json_object();
    struct server_names names;
    struct slice user_id;
    TRY(hs_user_id_of(edus->outbox->hs, ctx, user, &user_id));
    TRY(servers_now(edus->outbox, ctx, room, &names));
    json_set(ctx->arena, &content, LIT("room_id"), json_string(hs_room_info(room).room_id));
    json_set(ctx->arena, &content, LIT("user_id"), json_string(user_id));
    json_set(ctx->arena, &content, LIT("typing"), json_bool(is_typing));
    struct fed_edu edu = {.type = LIT("m.typing"),
                          .content = &content,
                          .key = arena_printf(ctx->arena, "t%llu %llu",
                                              (unsigned long long)hs_room_info(room).number,
                                              (unsigned long long)user)};
    return outbox_queue(edus->outbox, ctx, names.items, names.count, &edu);
}

static struct err typing_now(struct edus_out *edus, struct ctx *ctx, uint64_t room,
                             struct typed *now_out)
{
    struct slice *user_ids = NULL;
    uint64_t pos = 0;
    size_t count = hs_typing_get(edus->outbox->hs, ctx, room, &user_ids, &pos);
    *now_out = (struct typed){.room = room};
    for (size_t i = 0; i < count && now_out->count < TYPISTS_MAX; i++) {
        bool found = false;
        if (hs_user_is_local(edus->outbox->hs, user_ids[i])) {
            uint64_t *user = &now_out->users[now_out->count];
            TRY(hs_user_find(edus->outbox->hs, ctx, user_ids[i], user, &found));
        }
        now_out->count += found ? 1 : 0;
    }
    return OK;
}

static void remember_typing(struct edus_out *edus, const struct typed *now)
{
    struct typed *kept = map_get_ptr(edus->typing, map_key_u64(&now->room));
    if (now->count == 0) {
        if (kept) {
            map_remove(edus->typing, map_key_u64(&now->room));
            mem_free(kept);
        }
        return;
    }
    if (!kept) {
        kept = mem_alloc(sizeof *kept);
        map_set_ptr(edus->typing, map_key_u64(&now->room), kept);
    }
    *kept = *now;
    if (edus->typing_again_ms == 0) {
        edus->typing_again_ms = now_wall_ms(edus->outbox->hs->now) + TYPING_AGAIN_MS;
    }
}

static struct err on_typing(struct edus_out *edus, struct ctx *ctx, uint64_t number)
{
    static const struct typed nobody = {0};
    struct typed now;
    struct room *room = NULL;
    const struct typed *before = map_get_ptr(edus->typing, map_key_u64(&number));
    before = before ? before : &nobody;
    TRY(typing_now(edus, ctx, number, &now));
    if (now.count == 0 && before->count == 0) {
        return OK;
    }
    TRY(hs_room_get(edus->outbox->hs, ctx, number, &room));
    for (size_t i = 0; i < now.count; i++) {
        if (!has_user(before->users, before->count, now.users[i])) {
            TRY(send_typing(edus, ctx, room, now.users[i], true));
        }
    }
    for (size_t i = 0; i < before->count; i++) {
        if (!has_user(now.users, now.count, before->users[i])) {
            TRY(send_typing(edus, ctx, room, before->users[i], false));
        }
    }
    remember_typing(edus, &now);
    return OK;
}

static struct err typing_again(struct edus_out *edus, struct ctx *ctx)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(edus->typing, &cursor, &key, &value)) {
        const struct typed *typed = (const struct typed *)(uintptr_t)value;
        struct room *room = NULL;
        TRY(hs_room_get(edus->outbox->hs, ctx, typed->room, &room));
        for (size_t i = 0; i < typed->count; i++) {
            TRY(send_typing(edus, ctx, room, typed->users[i], true));
        }
    }
    return OK;
}

/* --- presence --- */

static struct slice presence_json(struct ctx *ctx, const struct presence_state *state)
{
    static const struct slice words[] = {{"offline", 7}, {"unavailable", 11}, {"online", 6}};
    struct arena *arena = ctx->arena;
    struct json entry = json_object();
    int64_t ago = state->last_active_ago_ms > 0 ? state->last_active_ago_ms : 0;
    json_set(arena, &entry, LIT("user_id"), json_string(state->user_id));
    json_set(arena, &entry, LIT("presence"), json_string(words[state->presence]));
    json_set(arena, &entry, LIT("last_active_ago"), json_int(ago));
    json_set(arena, &entry, LIT("currently_active"), json_bool(state->currently_active));
    if (state->status_msg.ptr) {
        json_set(arena, &entry, LIT("status_msg"), json_string(state->status_msg));
    }
    return json_canonical(arena, &entry);
}

static struct err send_presence(struct edus_out *edus, struct ctx *ctx,
                                const struct presence_state *state, struct server_names names)
{
    struct passing_draft draft = {
        .kind = PASSING_PRESENCE,
        .key = arena_printf(ctx->arena, "p%llu", (unsigned long long)state->user),
        .json = presence_json(ctx, state)};
    if (edus->presence_again_ms == 0) {
        edus->presence_again_ms = now_wall_ms(edus->outbox->hs->now) + PRESENCE_AGAIN_MS;
    }
    return outbox_pass(edus->outbox, ctx, names, &draft);
}

static struct err on_presence(struct edus_out *edus, struct ctx *ctx, uint64_t user)
{
    struct presence_state state;
    struct server_names names;
    if (!hs_presence_get(edus->outbox->hs, ctx, user, &state) ||
        !hs_user_is_local(edus->outbox->hs, state.user_id)) {
        return OK;
    }
    TRY(outbox_sharing_servers(edus->outbox, ctx, user, 0, &names));
    return names.count ? send_presence(edus, ctx, &state, names) : OK;
}

static struct err presence_again(struct edus_out *edus, struct ctx *ctx)
{
    struct presence_state *states = NULL;
    struct hs *hs = edus->outbox->hs;
    size_t count = hs_presence_since(hs, ctx, 0, positions_published(hs->positions), &states);
    for (size_t i = 0; i < count; i++) {
        if (states[i].presence != PRESENCE_OFFLINE) {
            TRY(on_presence(edus, ctx, states[i].user));
        }
    }
    return OK;
}

/* --- receipts --- */

static struct slice receipt_json(struct ctx *ctx, const struct receipt *receipt)
{
    struct arena *arena = ctx->arena;
    struct json value = json_object();
    struct json data = json_object();
    struct json ids = json_array();
    json_push(arena, &ids, json_string(receipt->event_id));
    json_set(arena, &data, LIT("ts"), json_int(receipt->ts_ms));
    if (receipt->thread.ptr) {
        json_set(arena, &data, LIT("thread_id"), json_string(receipt->thread));
    }
    json_set(arena, &value, LIT("data"), data);
    json_set(arena, &value, LIT("event_ids"), ids);
    return json_canonical(arena, &value);
}

static struct err send_receipt(struct edus_out *edus, struct ctx *ctx, struct room *room,
                               const struct receipt *receipt)
{
    struct server_names names;
    struct slice room_id = hs_room_info(room).room_id;
    TRY(servers_now(edus->outbox, ctx, room, &names));
    struct slice thread = receipt->thread.ptr ? receipt->thread : LIT("-");
    struct passing_draft draft = {.kind = PASSING_RECEIPT,
                                  .key = arena_printf(ctx->arena, "r%llu %llu %.*s",
                                                      (unsigned long long)hs_room_info(room).number,
                                                      (unsigned long long)receipt->user,
                                                      (int)thread.len, thread.ptr),
                                  .room = room_id,
                                  .user = receipt->user_id,
                                  .json = receipt_json(ctx, receipt)};
    return names.count ? outbox_pass(edus->outbox, ctx, names, &draft) : OK;
}

/* The public ones alone: private receipts never leave the server. */
static struct err on_receipt(struct edus_out *edus, struct ctx *ctx, const struct change *change)
{
    struct room *room = NULL;
    struct receipts receipts;
    TRY(hs_room_get(edus->outbox->hs, ctx, change->room, &room));
    TRY(hs_receipts_since(edus->outbox->hs, ctx, room, 0, change->pos - 1, change->pos, &receipts));
    for (size_t i = 0; i < receipts.count; i++) {
        const struct receipt *receipt = &receipts.items[i];
        if (receipt->type == RECEIPT_READ && hs_user_is_local(edus->outbox->hs, receipt->user_id)) {
            TRY(send_receipt(edus, ctx, room, receipt));
        }
    }
    return OK;
}

struct err edus_out_change(struct edus_out *edus, struct ctx *ctx, const struct change *change)
{
    if (change->kind == CHANGE_TYPING) {
        return on_typing(edus, ctx, change->room);
    }
    if (change->kind == CHANGE_PRESENCE) {
        return on_presence(edus, ctx, change->user);
    }
    if (change->kind == CHANGE_RECEIPT) {
        return on_receipt(edus, ctx, change);
    }
    return device_lists_publish(edus->outbox, ctx, change->user);
}

/* --- membership --- */

/* Those of `names` that share no other room with the user: the user is new to them. */
static struct err introduce(struct edus_out *edus, struct ctx *ctx, uint64_t user, uint64_t room,
                            struct server_names names)
{
    struct server_names known;
    struct presence_state state;
    struct slice *fresh = arena_array(ctx->arena, names.count + 1, sizeof *fresh);
    size_t count = 0;
    for (size_t i = 0; i < names.count; i++) { /* the list does not outlive the next call */
        fresh[i] = arena_copy(ctx->arena, names.items[i]);
    }
    names.items = fresh;
    TRY(outbox_sharing_servers(edus->outbox, ctx, user, room, &known));
    for (size_t i = 0; i < names.count; i++) {
        if (!server_names_has(known, fresh[i])) {
            fresh[count++] = fresh[i];
        }
    }
    if (count == 0) {
        return OK;
    }
    struct server_names to = {fresh, count};
    TRY(device_lists_announce(edus->outbox, ctx, user, to));
    bool shows =
        hs_presence_get(edus->outbox->hs, ctx, user, &state) && state.presence != PRESENCE_OFFLINE;
    return shows ? send_presence(edus, ctx, &state, to) : OK;
}

static struct err local_user_joined(struct edus_out *edus, struct ctx *ctx, struct room *room,
                                    uint64_t user)
{
    struct server_names names;
    TRY(servers_now(edus->outbox, ctx, room, &names));
    return introduce(edus, ctx, user, hs_room_info(room).number, names);
}

/* When the server is new in the room, the local users in it are new to the server. */
static struct err remote_user_joined(struct edus_out *edus, struct ctx *ctx, struct room *room,
                                     const struct stored_event *event)
{
    struct server_names before;
    struct slice server = ids_user_domain(ids_trust_user(event->event.state_key)).s;
    uint64_t *users = NULL;
    TRY(room_servers_at(edus->outbox->servers, ctx, room, event->state_before, &before));
    if (server.len == 0 || server_names_has(before, server)) {
        return OK;
    }
    size_t count = hs_room_local_users(ctx, room, &users);
    for (size_t i = 0; i < count; i++) {
        struct server_names one = {&server, 1};
        TRY(introduce(edus, ctx, users[i], hs_room_info(room).number, one));
    }
    return OK;
}

static struct err unfollow(void *arg, struct ctx *page, const struct room_member *member)
{
    const struct edus_out *edus = arg;
    return member->membership == MEMBERSHIP_JOIN
               ? hs_remote_devices_unfollow(edus->outbox->hs, page, member->user)
               : OK;
}

/* A room without users of this server is no reason to follow anybody. */
static struct err local_user_left(struct edus_out *edus, struct ctx *ctx, struct room *room)
{
    return hs_room_is_resident(room)
               ? OK
               : hs_room_members_each(edus->outbox->hs, ctx, room, unfollow, edus);
}

struct err edus_out_member(struct edus_out *edus, struct ctx *ctx, struct room *room,
                           const struct stored_event *event)
{
    struct hs *hs = edus->outbox->hs;
    enum membership before = MEMBERSHIP_NONE;
    enum membership now = membership_of(&event->event);
    uint64_t user = 0;
    bool found = false;
    if (!event->event.has_state_key || (event->flags & EVENT_HIDDEN)) {
        return OK;
    }
    TRY(hs_user_find(hs, ctx, event->event.state_key, &user, &found));
    TRY(hs_membership_at(hs, ctx, room, event->state_before, event->event.state_key, &before));
    bool joins = now == MEMBERSHIP_JOIN && before != MEMBERSHIP_JOIN;
    bool leaves = now != MEMBERSHIP_JOIN && before == MEMBERSHIP_JOIN;
    bool is_local = hs_user_is_local(hs, event->event.state_key);
    if (!found || (!joins && !leaves)) {
        return OK;
    }
    if (joins) {
        return is_local ? local_user_joined(edus, ctx, room, user)
                        : remote_user_joined(edus, ctx, room, event);
    }
    return is_local ? local_user_left(edus, ctx, room) : hs_remote_devices_unfollow(hs, ctx, user);
}

/* --- again --- */

int64_t edus_out_next(const struct edus_out *edus)
{
    return pause_earlier(edus->typing_again_ms, edus->presence_again_ms);
}

struct err edus_out_refresh(struct edus_out *edus, struct ctx *ctx)
{
    int64_t now = now_wall_ms(edus->outbox->hs->now);
    if (edus->typing_again_ms && edus->typing_again_ms <= now) {
        edus->typing_again_ms = map_count(edus->typing) ? now + TYPING_AGAIN_MS : 0;
        TRY(typing_again(edus, ctx));
    }
    if (edus->presence_again_ms && edus->presence_again_ms <= now) {
        edus->presence_again_ms = 0; /* set again when there is somebody to tell of */
        TRY(presence_again(edus, ctx));
    }
    return OK;
}
