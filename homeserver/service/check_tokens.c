/* The index of tokens: an object for each hash, made from the tokens that stand in device rows. */
#include "homeserver/service/check_priv.h"
#include "homeserver/service/users_priv.h"

static const struct slice token_key = {"t", 1};

static struct err visit_device(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack user = unpack_of(((const struct store_object *)arg)->id);
    uint64_t number = unpack_be64(&user);
    struct slice device_id = slice_from(row->key, 1);
    struct device_row device;
    struct buf expected;
    bool found = false;
    struct err err = device_row_load(c->hs, &c->page, number, device_id, &device, &found);
    if (check_is_damage(err) || (err.code == 0 && !found)) {
        check_report(c, CHECK_TOKENS, row->key, "cannot be read", false);
        return OK;
    }
    TRY(err);
    buf_init_arena(&expected, c->page.arena, SIZE_MAX / 2);
    pack_u64(&expected, number);
    pack_bytes(&expected, device_id);
    for (size_t i = 0; i < device.token_count; i++) {
        struct store_object token = {STORE_TOKENS, sha256_slice(&device.tokens[i].hash)};
        TRY(check_row_is(c, (struct check_place){CHECK_TOKENS, token, token_key},
                         buf_slice(&expected)));
    }
    return OK;
}

struct err check_device_tokens(struct checker *c, struct store_object user)
{
    return check_each_row(c, user, USER_ROW_DEVICE, visit_device, &user);
}

/* The device that the row names has a token of this hash. */
static struct err is_held(struct checker *c, struct slice value, struct slice hash, bool *held_out)
{
    struct device_row device;
    struct unpack in = unpack_of(value);
    uint64_t user = unpack_u64(&in);
    struct slice device_id = unpack_bytes(&in);
    bool found = false;
    *held_out = false;
    if (in.bad) {
        return OK;
    }
    struct err err = device_row_load(c->hs, &c->page, user, device_id, &device, &found);
    if (check_is_damage(err)) { /* reported where the user was looked at */
        *held_out = true;
        return OK;
    }
    TRY(err);
    for (size_t i = 0; found && i < device.token_count; i++) {
        *held_out = *held_out || slice_eq(sha256_slice(&device.tokens[i].hash), hash);
    }
    return OK;
}

static struct err visit_token(void *arg, struct slice hash)
{
    struct checker *c = arg;
    struct slice value;
    bool found = false;
    bool held = false;
    struct store_object token = {STORE_TOKENS, hash};
    arena_reset(c->page.arena);
    TRY(store_get(c->hs->store, &c->page, token, token_key, &value, &found));
    if (!found) { /* not of this index */
        return OK;
    }
    check_compared(c, CHECK_TOKENS);
    TRY(is_held(c, value, hash, &held));
    return held ? OK : check_row_stray(c, (struct check_place){CHECK_TOKENS, token, token_key});
}

struct err check_tokens(struct checker *c)
{
    return store_each_object(c->hs->store, c->ctx, STORE_TOKENS, visit_token, c);
}
