#include "homeserver/service/user_rows.h"

#include "homeserver/service/room_priv.h"

struct err user_row_of_room_load(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice key,
                                 struct user_row_of_room *row_out, bool *found_out)
{
    struct slice row;
    struct unpack name = unpack_of(slice_from(key, 1));
    TRY(store_get(hs->store, ctx, user_object(ctx, user), key, &row, found_out));
    if (!*found_out) {
        return OK;
    }
    row_out->room = unpack_be64(&name);
    row_out->name = name.rest;
    row_out->value = unpack_of(row);
    return unpack_check(&name);
}
