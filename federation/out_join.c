/* Joining a room through a resident server. Its answer, the state of the room with its auth chain,
 * is kept as bytes (in a file when it is large) and read event by event, so that memory does not
 * grow with the room. Spec: server-server, "Joining Rooms". */
#include "federation/bulk.h"
#include "federation/fed_priv.h"
#include "federation/join_answer.h"
#include "federation/joins.h"
#include "federation/out_member.h"
#include "federation/partial.h"
#include "homeserver/service/intake.h"

enum { SEND_TIMEOUT_MS = 600000, MAKE_TIMEOUT_MS = 20000 };
static const uint64_t ANSWER_BYTES_MAX = UINT64_C(2) << 30;

struct out_join {
    struct out_member member; /* first: attempts get its address */
    struct bulk bulk;
    struct join_answer answer;
    struct event event; /* as the resident returned it */
};

static struct err collect(void *arg, struct slice bytes)
{
    return bulk_add(arg, bytes);
}

/* Spec: server-server, "Restricted rooms": who vouches must sign, so the join goes there. */
static void choose_server(struct out_member *out)
{
    struct slice authoriser =
        json_get_string(out->event.content, LIT("join_authorised_via_users_server"));
    if (authoriser.ptr && ids_is_user(authoriser)) {
        struct slice server = ids_user_domain(ids_trust_user(authoriser)).s;
        out->server = hs_is_local(out->hs, server) ? out->server : server;
    }
}

static struct err send(struct out_join *join)
{
    struct out_member *out = &join->member;
    const struct slice parts[] = {out->want->room_id, out->event.id.s};
    struct fed_answer answer;
    struct fed_call call = {
        .destination = out->server,
        .method = LIT("PUT"),
        .path = fed_path(out->ctx, "/_matrix/federation/v2/send_join/%s/%s?omit_members=true",
                         parts, COUNT_OF(parts)),
        .content = event_tree(out->ctx->arena, &out->event),
        .timeout_ms = SEND_TIMEOUT_MS,
        .body_bytes_max = (size_t)ANSWER_BYTES_MAX,
        .sink = collect,
        .sink_arg = &join->bulk,
    };
    bulk_clear(&join->bulk);
    TRY(fed_call(out->fed, out->ctx, &call, &answer));
    return answer.status / 100 == 2 ? OK : fed_answer_error(out->ctx, &answer);
}

/* The resident's copy of the join carries its signature, which a restricted join needs. */
static struct err read_event(struct out_join *join)
{
    struct out_member *out = &join->member;
    struct ctx *ctx = out->ctx;
    struct json tree;
    struct err verdict = OK;
    join->event = out->event;
    if (join->answer.event.len) {
        TRY(json_parse(ctx->arena, join->answer.event, &tree));
        TRY(event_parse_tree(ctx->arena, out->rules, &tree, &join->event));
    }
    /* The id and our signature do not cover all of the content; its hash does. */
    if (!ids_event_eq(join->event.id, out->event.id) ||
        !event_check_hash(ctx->arena, &join->event)) {
        return err_public(ERR_M_REMOTE, "The other server returned another event than the join.");
    }
    const struct event *events[] = {&join->event};
    TRY(fed_check_signatures(out->fed, ctx, events, 1, &verdict));
    return verdict.code == 0 ? OK
                             : err_public(ERR_M_REMOTE, "The join lacks the signature of the "
                                                        "server that let the user in.");
}

struct adding {
    struct out_join *join;
    struct intake_join *intake;
    bool has_create;
};

/* The create event tells the version once more. */
static struct err check_create(struct adding *adding, const struct event *event)
{
    const struct out_member *out = &adding->join->member;
    struct slice version = json_get_string(event->content, LIT("room_version"));
    bool fits = slice_eq(version.ptr ? version : LIT("1"), out->rules->version);
    if (!fits || !slice_eq(event->room_id.s, out->want->room_id)) {
        return err_public(ERR_M_REMOTE, "The room's create event does not fit the join.");
    }
    adding->has_create = true;
    return OK;
}

static struct err add(void *arg, struct ctx *ctx, enum join_answer_part part,
                      const struct event *event)
{
    struct adding *adding = arg;
    if (event_is(event, LIT("m.room.create"), LIT(""))) {
        TRY(check_create(adding, event));
    }
    return hs_intake_join_add(adding->intake, ctx,
                              part == JOIN_ANSWER_STATE ? INTAKE_JOIN_STATE : INTAKE_JOIN_AUTH,
                              event);
}

static struct err add_all(struct adding *adding)
{
    struct out_member *out = &adding->join->member;
    struct join_answer_reader reader = {.fed = out->fed,
                                        .ctx = out->ctx,
                                        .rules = out->rules,
                                        .room_id = out->want->room_id,
                                        .bulk = &adding->join->bulk,
                                        .fn = add,
                                        .arg = adding};
    TRY(join_answer_read(&adding->join->answer, &reader));
    return adding->has_create
               ? OK
               : err_public(ERR_M_REMOTE, "The other server sent a room without create event.");
}

static struct err take_in(struct out_join *join)
{
    struct out_member *out = &join->member;
    struct adding adding = {.join = join};
    struct room *room = NULL;
    struct hs_sent sent;
    struct intake_join_start start = {.room_id = out->want->room_id,
                                      .version = out->rules->version,
                                      .join = &join->event,
                                      .is_partial = join->answer.members_omitted,
                                      .servers = join->answer.servers,
                                      .server_count = join->answer.server_count};
    TRY(hs_intake_join_begin(out->hs, out->ctx, &start, &adding.intake));
    struct err err = add_all(&adding);
    if (err.code != 0) {
        hs_intake_join_abort(&adding.intake);
        return err;
    }
    TRY(hs_intake_join_finish(&adding.intake, out->ctx, &room, &sent));
    log_info(out->ctx->log, "room_joined", .room = out->want->room_id, .dest = out->server,
             .user = out->want->actor->user_id);
    if (join->answer.members_omitted) {
        fed_partial_begin(out->fed, hs_room_info(room).number, out->server);
    }
    return OK;
}

static struct err join_once(struct out_member *member)
{
    struct out_join *join = (struct out_join *)member;
    struct slice bytes;
    TRY(out_member_make(member));
    choose_server(member);
    TRY(send(join));
    TRY(bulk_read(&join->bulk, &bytes));
    TRY(join_answer_parse(member->ctx, bytes, &join->answer));
    bulk_rest(&join->bulk, bytes.len);
    TRY(read_event(join));
    return take_in(join);
}

/* Whether a join that went before brought the room here. */
static struct err is_here(struct out_join *join, bool *here_out)
{
    struct out_member *out = &join->member;
    struct room *room = NULL;
    uint64_t number = 0;
    TRY(hs_room_find(out->hs, out->ctx, out->want->room_id, &number, here_out));
    if (*here_out) {
        TRY(hs_room_get(out->hs, out->ctx, number, &room));
        *here_out = hs_room_is_resident(room);
    }
    return OK;
}

static struct err join_alone(struct out_join *join, bool was_here)
{
    bool here = false;
    TRY(is_here(join, &here));
    if (here && !was_here) {
        return err_make(ERR_CONFLICT, "the room was joined meanwhile");
    }
    bulk_init(&join->bulk, join->member.hs->conf->data_dir, ANSWER_BYTES_MAX);
    struct err err = out_member_try(&join->member, join_once);
    bulk_deinit(&join->bulk);
    return err;
}

struct err fed_join(struct hs *hs, struct ctx *ctx, const struct remote_membership *want)
{
    struct out_join join = {.member = {.hs = hs,
                                       .fed = hs->fed,
                                       .ctx = ctx,
                                       .want = want,
                                       .membership = MEMBERSHIP_JOIN,
                                       .timeout_ms = MAKE_TIMEOUT_MS}};
    bool was_here = false;
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "joining asks another server");
    }
    TRY(is_here(&join, &was_here));
    TRY(fed_join_enter(hs->fed, want->room_id));
    struct err err = join_alone(&join, was_here);
    fed_join_leave(hs->fed, want->room_id);
    return err;
}
