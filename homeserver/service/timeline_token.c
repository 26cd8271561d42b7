#include "homeserver/service/timeline.h"

/* No room has so many events; places next to it can be computed without overflow. */
#define PLACE_MAX (INT64_C(1) << 62)

struct slice hs_token_of_number(struct ctx *ctx, int64_t number)
{
    return arena_printf(ctx->arena, "t%lld", (long long)number);
}

/* "s<position>" and what may follow it: a place in the stream that covers all rooms. */
static struct err number_at_position(struct hs *hs, struct ctx *ctx, struct room *room,
                                     struct slice token, int64_t *number_out)
{
    struct slice position;
    uint64_t pos = 0;
    uint64_t root = 0;
    slice_cut(slice_from(token, 1), '_', &position);
    if (!slice_parse_u64(position, &pos)) {
        return err_public(ERR_M_INVALID_PARAM, "The pagination token is not valid.");
    }
    TRY(hs_room_at(hs, ctx, room, pos, number_out, &root));
    *number_out += 1;
    return OK;
}

struct err hs_token_to_number(struct hs *hs, struct ctx *ctx, struct room *room, struct slice token,
                              int64_t *number_out)
{
    if (token.len > 1 && token.ptr[0] == 's') {
        return number_at_position(hs, ctx, room, token, number_out);
    }
    if (token.len > 1 && token.ptr[0] == 't' && slice_parse_i64(slice_from(token, 1), number_out) &&
        *number_out > -PLACE_MAX && *number_out < PLACE_MAX) {
        return OK;
    }
    return err_public(ERR_M_INVALID_PARAM, "The pagination token is not valid.");
}
