#include "homeserver/service/openid.h"

#include "crypto/token.h"
#include "homeserver/service/users.h"

/* Rows are keyed by the time of their end and the token's hash, so that old ones are deleted as one
 * range; the token carries that time. */
static struct store_object openid_object(void)
{
    return (struct store_object){STORE_TOKENS, LIT("openid")};
}

static struct slice row_key(struct ctx *ctx, uint64_t end_ms, struct slice token)
{
    struct sha256 hash = token_hash(token);
    return arena_concat(ctx->arena, store_id_u64(ctx->arena, end_ms), sha256_slice(&hash));
}

struct err hs_openid_issue(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice *token_out)
{
    struct buf row;
    uint64_t now = (uint64_t)now_wall_ms(ctx->now);
    uint64_t end = now + OPENID_LIFE_MS;
    struct slice random = token_make(ctx->arena, LIT("myo"));
    struct slice token =
        arena_printf(ctx->arena, "%.*s.%llu", (int)random.len, random.ptr, (unsigned long long)end);
    struct store_update *update = store_update_new(ctx, openid_object());
    buf_init_arena(&row, ctx->arena, 16);
    pack_u64(&row, user);
    store_delete_range(update, (struct slice){0}, store_id_u64(ctx->arena, now));
    store_put(update, row_key(ctx, end, token), buf_slice(&row));
    TRY(store_write(hs->store, ctx, &update, 1));
    *token_out = token;
    return OK;
}

struct err hs_openid_find(struct hs *hs, struct ctx *ctx, struct slice token,
                          struct slice *user_id_out, bool *found_out)
{
    struct slice row;
    uint64_t end = 0;
    size_t dot = slice_find(token, '.');
    *found_out = false;
    if (dot == token.len || !slice_parse_u64(slice_from(token, dot + 1), &end) ||
        end < (uint64_t)now_wall_ms(ctx->now)) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, openid_object(), row_key(ctx, end, token), &row, found_out));
    if (!*found_out) {
        return OK;
    }
    struct unpack in = unpack_of(row);
    uint64_t user = unpack_u64(&in);
    uint32_t flags = 0;
    TRY(unpack_check(&in));
    TRY(hs_account_flags(hs, ctx, user, &flags, found_out));
    *found_out = *found_out && !(flags & (ACCOUNT_DEACTIVATED | ACCOUNT_LOCKED));
    return hs_user_id_of(hs, ctx, user, user_id_out);
}
