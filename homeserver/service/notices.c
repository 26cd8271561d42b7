#include "homeserver/service/notices.h"

#include "homeserver/base/json_out.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/room_create.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/sending.h"

static const struct slice row_key = {(const char[]){USER_ROW_NOTICES}, 1};

bool hs_notice_is_sender(const struct hs *hs, struct slice user_id)
{
    return hs->conf->server_notices_enabled && ids_is_user(user_id) &&
           hs_user_is_local(hs, user_id) &&
           slice_eq(ids_user_localpart(ids_trust_user(user_id)), hs->conf->server_notices_user);
}

struct json hs_notice_text(struct arena *arena, struct slice text)
{
    struct json content = json_object();
    json_set(arena, &content, LIT("msgtype"), json_string(LIT("m.server_notice")));
    json_set(arena, &content, LIT("server_notice_type"),
             json_string(LIT("io.myelin.announcement")));
    json_set(arena, &content, LIT("body"), json_string(text));
    return content;
}

/* --- who sends --- */

/* The account has no password and no device: nobody signs in to it. */
static struct err find_sender(struct hs *hs, struct ctx *ctx, struct actor *sender_out)
{
    bool found = false;
    uint32_t flags = 0;
    struct slice user_id =
        ids_make_user(ctx->arena, hs->conf->server_notices_user, ids_trust_server(hs->server_name))
            .s;
    if (!hs->conf->server_notices_enabled) {
        return err_public(ERR_M_FORBIDDEN, "Server notices are off (server_notices.enabled).");
    }
    *sender_out = (struct actor){.user_id = user_id};
    TRY(hs_user_find(hs, ctx, user_id, &sender_out->user, &found));
    if (found) {
        TRY(hs_account_flags(hs, ctx, sender_out->user, &flags, &found));
    }
    if (found) {
        return OK;
    }
    struct account_draft draft = {.user_id = user_id,
                                  .display_name = hs->conf->server_notices_room_name};
    struct err err = hs_account_create(hs, ctx, &draft, &sender_out->user);
    /* Another notice may have made it meanwhile. */
    return err.code == ERR_M_USER_IN_USE ? hs_user_find(hs, ctx, user_id, &sender_out->user, &found)
                                         : err;
}

/* --- the room --- */

static struct err load_row(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice *row_out,
                           uint64_t *room_out)
{
    bool found = false;
    *row_out = (struct slice){0};
    *room_out = 0;
    TRY(store_get(hs->store, ctx, user_object(ctx, user), row_key, row_out, &found));
    if (!found) {
        *row_out = (struct slice){0};
        return OK;
    }
    struct unpack in = unpack_of(*row_out);
    *room_out = unpack_u64(&in);
    return unpack_check(&in);
}

/* Members may read: the room is no place to answer. */
static struct err create_room(struct hs *hs, struct ctx *ctx, const struct actor *sender,
                              uint64_t *number_out)
{
    struct json body;
    struct slice room_id;
    bool found = false;
    struct buf text;
    buf_init_arena(&text, ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("preset"), LIT("private_chat"));
    json_out_key_string(&out, LIT("name"), hs->conf->server_notices_room_name);
    json_out_key_raw(&out, LIT("creation_content"), LIT("{\"m.federate\":false}"));
    json_out_key_raw(&out, LIT("power_level_content_override"), LIT("{\"users_default\":-10}"));
    json_out_object_end(&out);
    TRY(json_parse(ctx->arena, buf_slice(&text), &body));
    TRY(hs_room_create(hs, ctx, sender, &body, &room_id));
    return hs_room_find(hs, ctx, room_id, number_out, &found);
}

/* Of two notices that make the room at once one room counts; the other stays empty. */
static struct err save_row(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice old,
                           uint64_t *number)
{
    struct store_update *update = store_update_new(ctx, user_object(ctx, user));
    struct buf row;
    buf_init_arena(&row, ctx->arena, 16);
    pack_u64(&row, *number);
    store_expect(update, row_key, old);
    store_put(update, row_key, buf_slice(&row));
    struct err err = store_write(hs->store, ctx, &update, 1);
    return err.code == ERR_CONFLICT ? load_row(hs, ctx, user, &old, number) : err;
}

static struct err find_room(struct hs *hs, struct ctx *ctx, const struct actor *sender,
                            uint64_t user, struct room **room_out)
{
    struct slice row;
    uint64_t number = 0;
    TRY(load_row(hs, ctx, user, &row, &number));
    if (number) {
        struct err err = hs_room_get(hs, ctx, number, room_out);
        if (err.code != ERR_M_NOT_FOUND) {
            return err;
        }
    }
    TRY(create_room(hs, ctx, sender, &number));
    TRY(save_row(hs, ctx, user, row, &number));
    return hs_room_get(hs, ctx, number, room_out);
}

/* --- the user in it --- */

static struct err add_tag(void *arg, struct ctx *ctx, struct slice old, struct slice *content_out)
{
    struct json content = json_object();
    struct json tags = json_object();
    (void)arg;
    if (old.ptr) {
        TRY(json_parse(ctx->arena, old, &content));
    }
    const struct json *kept = json_get_object(&content, LIT("tags"));
    if (kept && json_get(kept, LIT("m.server_notice"))) {
        return OK;
    }
    tags = kept ? *kept : tags;
    json_set(ctx->arena, &tags, LIT("m.server_notice"), json_object());
    json_set(ctx->arena, &content, LIT("tags"), tags);
    *content_out = json_canonical(ctx->arena, &content);
    return OK;
}

static struct err bring_in(struct hs *hs, struct ctx *ctx, const struct actor *sender,
                           const struct account *account, struct room *room)
{
    struct hs_sent sent;
    enum membership membership = MEMBERSHIP_NONE;
    struct member_change invite = {.target = account->user_id, .membership = MEMBERSHIP_INVITE};
    struct account_data_edit tag = {.user = account->user,
                                    .room = hs_room_info(room).number,
                                    .type = LIT("m.tag"),
                                    .make = add_tag};
    TRY(hs_account_data_edit(hs, ctx, &tag));
    TRY(hs_membership_at(hs, ctx, room, hs_room_head(room).root, account->user_id, &membership));
    return membership == MEMBERSHIP_JOIN || membership == MEMBERSHIP_INVITE
               ? OK
               : hs_member_set(hs, ctx, room, sender, &invite, &sent);
}

struct err hs_notice_send(struct hs *hs, struct ctx *ctx, const struct account *account,
                          const struct notice *notice, struct slice *event_id_out)
{
    struct actor sender;
    struct room *room = NULL;
    struct hs_sent sent = {0};
    TRY(find_sender(hs, ctx, &sender));
    TRY(find_room(hs, ctx, &sender, account->user, &room));
    TRY(bring_in(hs, ctx, &sender, account, room));
    struct send_request send = {
        .actor = &sender,
        .device_id = LIT("notices"),
        .txn_id = notice->txn_id,
        .type = notice->type.ptr ? notice->type : LIT("m.room.message"),
        .state_key = notice->state_key,
        .content = notice->content,
    };
    TRY(send.state_key.ptr ? hs_send_state(hs, ctx, room, &send, &sent)
                           : hs_send_message(hs, ctx, room, &send, &sent));
    *event_id_out = sent.event_id;
    return OK;
}

/* Spec: "Attempting to reject the invite must result in a M_CANNOT_LEAVE_SERVER_NOTICE_ROOM
 * error." Who has joined may leave. */
struct err hs_notice_check_leave(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct actor *actor)
{
    struct slice row;
    uint64_t number = 0;
    enum membership membership = MEMBERSHIP_NONE;
    if (!hs->conf->server_notices_enabled) {
        return OK;
    }
    TRY(load_row(hs, ctx, actor->user, &row, &number));
    if (number != room->number) {
        return OK;
    }
    TRY(hs_membership_at(hs, ctx, room, hs_room_head(room).root, actor->user_id, &membership));
    return membership == MEMBERSHIP_INVITE
               ? err_public(ERR_M_CANNOT_LEAVE_SERVER_NOTICE_ROOM,
                            "The invite to the room of server notices cannot be refused.")
               : OK;
}
