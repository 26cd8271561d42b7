#include "homeserver/service/registration_tokens.h"

static struct store_object tokens_object(void)
{
    return (struct store_object){STORE_SERVER, LIT("registration_tokens")};
}

/* Spec: client-server, "Token-authenticated registration": the grammar of tokens. */
static bool is_token(struct slice token)
{
    for (size_t i = 0; i < token.len; i++) {
        char c = token.ptr[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '_' || c == '~' || c == '-';
        if (!fine) {
            return false;
        }
    }
    return token.len > 0 && token.len <= REGISTRATION_TOKEN_BYTES_MAX;
}

static struct slice encode(struct ctx *ctx, const struct registration_token *token)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, 64);
    pack_i64(&out, token->uses_allowed);
    pack_i64(&out, token->uses);
    pack_i64(&out, token->expires_ms);
    return buf_slice(&out);
}

static struct err decode(struct slice value, struct registration_token *token)
{
    struct unpack in = unpack_of(value);
    token->uses_allowed = unpack_i64(&in);
    token->uses = unpack_i64(&in);
    token->expires_ms = unpack_i64(&in);
    return unpack_check(&in);
}

static bool is_usable(const struct ctx *ctx, const struct registration_token *token)
{
    return (token->uses_allowed < 0 || token->uses < token->uses_allowed) &&
           (token->expires_ms == 0 || now_wall_ms(ctx->now) < token->expires_ms);
}

static struct err load(struct hs *hs, struct ctx *ctx, struct slice token,
                       struct registration_token *out, struct slice *value_out, bool *usable_out)
{
    *usable_out = false;
    *out = (struct registration_token){.token = token};
    if (!is_token(token)) {
        return OK;
    }
    bool found = false;
    TRY(store_get(hs->store, ctx, tokens_object(), token, value_out, &found));
    if (found) {
        TRY(decode(*value_out, out));
        *usable_out = is_usable(ctx, out);
    }
    return OK;
}

struct err hs_registration_token_check(struct hs *hs, struct ctx *ctx, struct slice token,
                                       bool *valid_out)
{
    struct registration_token row;
    struct slice value;
    return load(hs, ctx, token, &row, &value, valid_out);
}

/* Writes the row if it still is what was read; ERR_CONFLICT when another use came in between. */
static struct err replace(struct hs *hs, struct ctx *ctx, const struct registration_token *row,
                          struct slice older)
{
    struct store_update *update = store_update_new(ctx, tokens_object());
    store_expect(update, row->token, older);
    store_put(update, row->token, encode(ctx, row));
    return store_write(hs->store, ctx, &update, 1);
}

struct err hs_registration_token_use(struct hs *hs, struct ctx *ctx, struct slice token,
                                     bool *used_out)
{
    struct registration_token row;
    struct slice value;
    struct err err = err_make(ERR_CONFLICT, "not tried yet");
    while (err.code == ERR_CONFLICT) {
        TRY(load(hs, ctx, token, &row, &value, used_out));
        if (!*used_out) {
            return OK;
        }
        row.uses++;
        err = replace(hs, ctx, &row, value);
    }
    return err;
}

struct err hs_registration_token_give_back(struct hs *hs, struct ctx *ctx, struct slice token)
{
    struct registration_token row;
    struct slice value = {0};
    bool usable = false;
    struct err err = err_make(ERR_CONFLICT, "not tried yet");
    while (err.code == ERR_CONFLICT) {
        TRY(load(hs, ctx, token, &row, &value, &usable));
        if (row.uses == 0) { /* it is gone, or was made anew */
            return OK;
        }
        row.uses--;
        err = replace(hs, ctx, &row, value);
    }
    return err;
}

struct err hs_registration_token_list(struct hs *hs, struct ctx *ctx,
                                      struct registration_tokens *tokens_out)
{
    struct store_rows rows;
    TRY(store_read_range(hs->store, ctx, tokens_object(), (struct store_range){0}, &rows));
    tokens_out->count = rows.count;
    tokens_out->items = arena_array(ctx->arena, rows.count + 1, sizeof *tokens_out->items);
    for (size_t i = 0; i < rows.count; i++) {
        tokens_out->items[i].token = rows.rows[i].key;
        TRY(decode(rows.rows[i].value, &tokens_out->items[i]));
    }
    return OK;
}

struct err hs_registration_token_put(struct hs *hs, struct ctx *ctx,
                                     const struct registration_token *token)
{
    if (!is_token(token->token)) {
        return err_public(ERR_M_INVALID_PARAM,
                          "A registration token has 1 to 64 characters of A-Z a-z 0-9 . _ ~ -");
    }
    struct store_update *update = store_update_new(ctx, tokens_object());
    store_put(update, token->token, encode(ctx, token));
    return store_write(hs->store, ctx, &update, 1);
}

struct err hs_registration_token_delete(struct hs *hs, struct ctx *ctx, struct slice token,
                                        bool *found_out)
{
    struct slice value;
    *found_out = false;
    if (!is_token(token)) {
        return OK;
    }
    TRY(store_get(hs->store, ctx, tokens_object(), token, &value, found_out));
    struct store_update *update = store_update_new(ctx, tokens_object());
    store_delete(update, token);
    return store_write(hs->store, ctx, &update, 1);
}
