/* Events of no meaning that cite forward extremities, so that a room whose servers talk past each
 * other does not collect them without end. Other servers use the same type. */
#include "homeserver/base/mem.h"
#include "homeserver/base/workers.h"
#include "homeserver/service/intake_priv.h"
#include "homeserver/service/users.h"

#include <stdatomic.h>

enum { TIDY_FROM = 24, TIDY_TO = 10, TIDY_SENDS_MAX = 8, TIDY_USERS_MAX = 8 };

static struct err send_dummy(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user)
{
    struct hs_sent sent;
    struct hs_draft draft = {
        .sender_number = user, .type = ROOM_DUMMY_TYPE, .content = json_object()};
    TRY(hs_user_id_of(hs, ctx, user, &draft.sender));
    return hs_send_policed(hs, ctx, room, &draft, &sent);
}

/* By the first local user whom the rules let. */
static struct err send_by_any(struct hs *hs, struct ctx *ctx, struct room *room, bool *sent_out)
{
    uint64_t *users = NULL;
    size_t count = hs_room_local_users(ctx, room, &users);
    *sent_out = false;
    for (size_t i = 0; i < count && i < TIDY_USERS_MAX && !*sent_out; i++) {
        struct err err = send_dummy(hs, ctx, room, users[i]);
        *sent_out = err.code == 0;
        if (err.code != 0 && err.code != ERR_M_FORBIDDEN) {
            return err;
        }
    }
    return OK;
}

static struct err send_until_tidy(struct hs *hs, struct ctx *ctx, struct room *room)
{
    bool sent = true;
    struct event_id *ends = NULL;
    size_t count = TIDY_TO + 1;
    for (int i = 0; i < TIDY_SENDS_MAX && sent && count > TIDY_TO; i++) {
        TRY(send_by_any(hs, ctx, room, &sent));
        TRY(hs_room_extremities(hs, ctx, room, &ends, &count));
    }
    return OK;
}

/* --- where a policy server is asked, which nobody does in a lane --- */

struct tidying {
    struct hs *hs;
    uint64_t room;
};

static struct err tidy_room(struct hs *hs, struct ctx *ctx, uint64_t number, struct room **room_out)
{
    TRY(hs_room_get(hs, ctx, number, room_out));
    return send_until_tidy(hs, ctx, *room_out);
}

static void run(void *arg)
{
    struct tidying *tidying = arg;
    struct hs *hs = tidying->hs;
    struct room *room = NULL;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log, .may_wait = true};
    struct err err = tidy_room(hs, &ctx, tidying->room, &room);
    if (err.code != 0) {
        log_info(hs->log, "room_not_tidied", .err = slice_of(err.text));
    }
    if (room) {
        atomic_store(&room->is_tidying, false);
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    mem_free(tidying);
}

static void tidy_later(struct hs *hs, struct room *room)
{
    if (!hs->waiters || atomic_exchange(&room->is_tidying, true)) {
        return;
    }
    struct tidying *tidying = mem_alloc(sizeof *tidying);
    *tidying = (struct tidying){.hs = hs, .room = room->number};
    if (!workers_submit(hs->waiters, 0, run, tidying)) {
        atomic_store(&room->is_tidying, false);
        mem_free(tidying);
    }
}

struct err intake_tidy(struct hs *hs, struct ctx *ctx, struct room *room)
{
    bool is_policed = false;
    if (room->extremity_count < TIDY_FROM || room->is_partial) {
        return OK;
    }
    TRY(hs_is_policed(hs, ctx, room, &is_policed));
    if (is_policed) {
        tidy_later(hs, room);
        return OK;
    }
    return send_until_tidy(hs, ctx, room);
}
