/* Events of no meaning that cite forward extremities, so that a room whose servers talk past each
 * other does not collect them without end. Other servers use the same type. */
#include "homeserver/service/intake_priv.h"
#include "homeserver/service/users.h"

enum { TIDY_FROM = 24, TIDY_TO = 10, TIDY_SENDS_MAX = 8, TIDY_USERS_MAX = 8 };

static struct err send_dummy(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user)
{
    struct hs_sent sent;
    struct hs_draft draft = {
        .sender_number = user, .type = ROOM_DUMMY_TYPE, .content = json_object()};
    TRY(hs_user_id_of(hs, ctx, user, &draft.sender));
    return hs_send(hs, ctx, room, &draft, &sent);
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

struct err intake_tidy(struct hs *hs, struct ctx *ctx, struct room *room)
{
    bool sent = true;
    if (room->extremity_count < TIDY_FROM || room->is_partial) {
        return OK;
    }
    for (int i = 0; i < TIDY_SENDS_MAX && sent && room->extremity_count > TIDY_TO; i++) {
        TRY(send_by_any(hs, ctx, room, &sent));
    }
    return OK;
}
