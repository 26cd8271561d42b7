/* EDUs of other servers. Each says something of users of the server that sent it; whatever names
 * others, or rooms that they are not in, is dropped. Spec: server-server, "EDUs". */
#include "federation/device_lists.h"
#include "federation/edus.h"
#include "federation/fed_priv.h"
#include "federation/room_servers.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/remote_devices.h"
#include "homeserver/service/to_device.h"
#include "homeserver/service/users.h"

/* A sender that goes away says no stop: the list forgets it. Servers repeat themselves sooner. */
enum { TYPING_KEPT_MS = 60 * 1000 };

struct arrival {
    struct fed *fed;
    struct hs *hs;
    struct ctx *ctx;
    struct slice origin;
    const struct json *content;
};

static struct err not_theirs(void)
{
    return err_make(ERR_M_FORBIDDEN, "the EDU names a user of another server");
}

static bool is_theirs(const struct arrival *in, struct slice user_id)
{
    return slice_eq(ids_user_domain(ids_trust_user(user_id)).s, in->origin);
}

/* --- in rooms --- */

/* A room that is here and open to the origin. found false: nothing to do. */
static struct err find_room(const struct arrival *in, struct slice room_id, struct room **room_out,
                            bool *found_out)
{
    struct err err = hs_room_get_by_id(in->hs, in->ctx, room_id, room_out);
    *found_out = err.code == 0;
    if (err.code == ERR_M_NOT_FOUND) {
        return OK;
    }
    TRY(err);
    return fed_acl_check(in->hs, in->ctx, *room_out, in->origin);
}

/* While a room's members are still on their way, a server that is in it speaks for its users,
 * unless they are known to be out. */
static struct err is_vouched_for(const struct arrival *in, struct room *room, bool *is_out)
{
    struct slice *servers = NULL;
    size_t count = 0;
    *is_out = false;
    if (!hs_room_is_partial(room)) {
        return OK;
    }
    TRY(hs_room_servers(in->hs, in->ctx, room, &servers, &count));
    *is_out = server_names_has((struct server_names){servers, count}, in->origin);
    return OK;
}

static struct err find_member(const struct arrival *in, struct room *room, struct slice user_id,
                              uint64_t *user_out, bool *joined_out)
{
    struct room_member member;
    bool found = false;
    TRY(hs_user_find(in->hs, in->ctx, user_id, user_out, &found));
    if (found) {
        TRY(hs_room_member(in->hs, in->ctx, room, *user_out, &member, &found));
    }
    *joined_out = found && member.membership == MEMBERSHIP_JOIN;
    if (found) {
        return OK;
    }
    TRY(is_vouched_for(in, room, joined_out));
    return *joined_out ? hs_user_intern(in->hs, in->ctx, user_id, user_out) : OK;
}

static struct err on_typing(const struct arrival *in)
{
    struct edu_typing typing;
    struct room *room = NULL;
    uint64_t user = 0;
    bool found = false;
    TRY(edu_parse_typing(in->content, &typing));
    if (!is_theirs(in, typing.user_id)) {
        return not_theirs();
    }
    TRY(find_room(in, typing.room_id, &room, &found));
    if (found) {
        TRY(find_member(in, room, typing.user_id, &user, &found));
    }
    if (found) {
        hs_typing_set(in->hs, hs_room_info(room).number, user,
                      typing.is_typing ? TYPING_KEPT_MS : 0);
    }
    return OK;
}

static struct err set_receipt(const struct arrival *in, struct room *room,
                              const struct edu_receipt *given)
{
    struct stored_event event;
    bool found = false;
    struct receipt receipt = {.user_id = given->user_id,
                              .type = RECEIPT_READ,
                              .thread = given->thread,
                              .event_id = given->event_id,
                              .ts_ms = given->ts_ms};
    TRY(find_member(in, room, given->user_id, &receipt.user, &found));
    if (!found) {
        return OK;
    }
    TRY(hs_event_find(in->hs, in->ctx, room, given->event_id, &event, &found));
    receipt.number = found ? event.number : 0;
    return hs_receipt_set(in->hs, in->ctx, room, &receipt);
}

/* The room of a receipt, looked for once for all of a room, which stand beside each other. */
struct receipt_room {
    struct slice room_id;
    struct room *room;
    bool found;
    struct err err;
};

static void enter_room(const struct arrival *in, struct slice room_id, struct receipt_room *at)
{
    if (at->room_id.ptr && slice_eq(at->room_id, room_id)) {
        return;
    }
    *at = (struct receipt_room){.room_id = room_id};
    at->err = find_room(in, room_id, &at->room, &at->found);
}

static struct err take_receipt(const struct arrival *in, const struct edu_receipt *given,
                               struct receipt_room *at)
{
    if (!is_theirs(in, given->user_id)) {
        return not_theirs();
    }
    enter_room(in, given->room_id, at);
    TRY(at->err);
    return at->found ? set_receipt(in, at->room, given) : OK;
}

/* Receipts of one room that keeps the origin out do not touch those of others. */
static struct err on_receipt(const struct arrival *in)
{
    struct edu_receipt *receipts = NULL;
    struct receipt_room at = {0};
    size_t count = 0;
    struct err refused = OK;
    TRY(edu_parse_receipts(in->ctx->arena, in->content, &receipts, &count));
    for (size_t i = 0; i < count; i++) {
        struct err err = take_receipt(in, &receipts[i], &at);
        refused = err.code != 0 ? err : refused;
    }
    return refused;
}

/* --- of users --- */

/* A user of the origin who shares a room with one of ours; others are of no interest. */
static struct err find_shared(const struct arrival *in, struct slice user_id, uint64_t *user_out,
                              bool *shared_out)
{
    *shared_out = false;
    if (!is_theirs(in, user_id)) {
        return not_theirs();
    }
    TRY(hs_user_find(in->hs, in->ctx, user_id, user_out, shared_out));
    return *shared_out ? hs_remote_is_shared(in->hs, in->ctx, *user_out, shared_out) : OK;
}

static struct err on_presence(const struct arrival *in)
{
    static const enum presence words[] = {[EDU_OFFLINE] = PRESENCE_OFFLINE,
                                          [EDU_UNAVAILABLE] = PRESENCE_UNAVAILABLE,
                                          [EDU_ONLINE] = PRESENCE_ONLINE};
    struct edu_presence *items = NULL;
    size_t count = 0;
    struct err refused = OK;
    TRY(edu_parse_presence(in->ctx->arena, in->content, &items, &count));
    for (size_t i = 0; i < count; i++) {
        struct remote_presence presence = {.presence = words[items[i].word],
                                           .status_msg = items[i].status_msg,
                                           .last_active_ago_ms = items[i].last_active_ago_ms,
                                           .currently_active = items[i].is_active};
        bool shared = false;
        struct err err = find_shared(in, items[i].user_id, &presence.user, &shared);
        if (shared) {
            hs_presence_set_remote(in->hs, &presence);
        }
        refused = err.code != 0 ? err : refused;
    }
    return refused;
}

static struct err on_device_list(const struct arrival *in)
{
    struct edu_device_list given;
    struct remote_update update = {0};
    bool shared = false;
    bool missed = false;
    TRY(edu_parse_device_list(in->content, &given));
    TRY(find_shared(in, given.user_id, &update.user, &shared));
    if (!shared) {
        return OK;
    }
    update.user_id = given.user_id;
    update.stream_id = given.stream_id;
    update.prev_ids = given.prev_ids;
    update.device = (struct remote_device){.device_id = given.device_id,
                                           .display_name = given.display_name,
                                           .keys = given.is_deleted ? NULL : given.keys};
    TRY(hs_remote_devices_update(in->hs, in->ctx, &update, &missed));
    if (missed) {
        fed_device_list_resync(in->fed, update.user, given.user_id);
    }
    return OK;
}

static struct err on_signing_key(const struct arrival *in)
{
    struct edu_signing_key given;
    struct remote_cross cross = {0};
    bool shared = false;
    bool missed = false;
    TRY(edu_parse_signing_key(in->content, &given));
    TRY(find_shared(in, given.user_id, &cross.user, &shared));
    if (!shared) {
        return OK;
    }
    cross.user_id = given.user_id;
    cross.master_key = given.master_key;
    cross.self_signing_key = given.self_signing_key;
    TRY(hs_remote_cross_update(in->hs, in->ctx, &cross, &missed));
    if (missed) {
        fed_device_list_resync(in->fed, cross.user, given.user_id);
    }
    return OK;
}

/* The message id takes the place of the transaction id: the same message again does nothing. */
static struct err on_to_device(const struct arrival *in)
{
    struct edu_to_device given;
    struct to_device_send send = {0};
    TRY(edu_parse_to_device(in->ctx->arena, in->content, &given));
    if (!is_theirs(in, given.sender)) {
        return not_theirs();
    }
    send.items = arena_array(in->ctx->arena, given.count + 1, sizeof *send.items);
    for (size_t i = 0; i < given.count; i++) {
        if (hs_user_is_local(in->hs, given.items[i].user_id)) {
            send.items[send.count++] = (struct to_device_item){
                given.items[i].user_id, given.items[i].device_id, given.items[i].content};
        }
    }
    if (send.count == 0) {
        return OK;
    }
    send.sender = given.sender;
    send.type = given.type;
    send.device_id = LIT("federation");
    send.txn_id = given.message_id;
    TRY(hs_user_intern(in->hs, in->ctx, given.sender, &send.user));
    hs_user_lane_enter(in->hs, send.user);
    struct err err = hs_to_device_send(in->hs, in->ctx, &send);
    hs_user_lane_leave(in->hs, send.user);
    return err;
}

static const struct {
    struct slice type;
    struct err (*fn)(const struct arrival *in);
} handlers[] = {
    {{"m.typing", 8}, on_typing},
    {{"m.receipt", 9}, on_receipt},
    {{"m.presence", 10}, on_presence},
    {{"m.device_list_update", 20}, on_device_list},
    {{"m.signing_key_update", 20}, on_signing_key},
    {{"org.matrix.signing_key_update", 29}, on_signing_key},
    {{"m.direct_to_device", 18}, on_to_device},
};

struct err fed_edu_receive(struct fed *fed, struct ctx *ctx, struct slice origin,
                           const struct json *edu)
{
    struct slice type = json_get_string(edu, LIT("edu_type"));
    struct arrival in = {.fed = fed,
                         .hs = fed->hs,
                         .ctx = ctx,
                         .origin = origin,
                         .content = json_get_object(edu, LIT("content"))};
    if (!type.ptr || !in.content) {
        return err_make(ERR_M_BAD_JSON, "an EDU needs edu_type and content");
    }
    if (json_depth(in.content) > LIMIT_EVENT_LEVELS) {
        return err_make(ERR_M_BAD_JSON, "the EDU nests too deeply");
    }
    for (size_t i = 0; i < COUNT_OF(handlers); i++) {
        if (slice_eq(handlers[i].type, type)) {
            return handlers[i].fn(&in);
        }
    }
    return OK; /* of a kind that is not known here */
}
