#include "federation/server_keys.h"

#include "crypto/json_sign.h"
#include "spec/errcodes.h"

static const int64_t valid_ms_max = INT64_C(7) * 24 * 3600 * 1000;

static bool parse_key(const struct json_member *member, struct server_key *key)
{
    struct slice text = json_get_string(&member->value, LIT("key"));
    key->id = member->key;
    return slice_has_prefix(member->key, LIT("ed25519:")) &&
           member->key.len <= SERVER_KEY_ID_BYTES_MAX && text.ptr &&
           ed25519_parse_public(text, &key->public_key);
}

static void add_current(struct server_keys *keys, const struct json *object)
{
    const struct json *current = json_get_object(object, LIT("verify_keys"));
    for (uint32_t i = 0; current && i < current->count && keys->count < SERVER_KEYS_MAX; i++) {
        struct server_key *key = &keys->keys[keys->count];
        *key = (struct server_key){.valid_until_ms = keys->valid_until_ms};
        keys->count += parse_key(&current->members[i], key);
    }
}

static bool is_listed(const struct server_keys *keys, struct slice id)
{
    for (size_t i = 0; i < keys->count; i++) {
        if (slice_eq(keys->keys[i].id, id)) {
            return true;
        }
    }
    return false;
}

static void add_old(struct server_keys *keys, const struct json *object)
{
    const struct json *old = json_get_object(object, LIT("old_verify_keys"));
    for (uint32_t i = 0; old && i < old->count && keys->count < SERVER_KEYS_MAX; i++) {
        struct server_key *key = &keys->keys[keys->count];
        *key = (struct server_key){.is_old = true};
        bool good = parse_key(&old->members[i], key) && !is_listed(keys, key->id) &&
                    json_get_int(&old->members[i].value, LIT("expired_ts"), &key->valid_until_ms);
        keys->count += good;
    }
}

static bool is_self_signed(struct arena *arena, const struct json *object, struct slice server,
                           const struct server_keys *keys)
{
    for (size_t i = 0; i < keys->count; i++) {
        const struct server_key *key = &keys->keys[i];
        if (!key->is_old && json_sign_verify(arena, object, server, key->id, &key->public_key)) {
            return true;
        }
    }
    return false;
}

struct err server_keys_parse(struct arena *arena, const struct json *object, struct slice server,
                             int64_t now_ms, struct server_keys *keys_out)
{
    *keys_out =
        (struct server_keys){.keys = arena_array(arena, SERVER_KEYS_MAX, sizeof *keys_out->keys)};
    if (!slice_eq(json_get_string(object, LIT("server_name")), server)) {
        return err_make(ERR_M_BAD_JSON, "the keys are another server's");
    }
    if (!json_get_int(object, LIT("valid_until_ts"), &keys_out->valid_until_ms)) {
        return err_make(ERR_M_BAD_JSON, "the keys have no valid_until_ts");
    }
    /* Room version 5: the lesser of valid_until_ts and 7 days from now. */
    int64_t latest_ms = now_ms + valid_ms_max;
    keys_out->valid_until_ms =
        keys_out->valid_until_ms < latest_ms ? keys_out->valid_until_ms : latest_ms;
    add_current(keys_out, object);
    add_old(keys_out, object);
    if (!is_self_signed(arena, object, server, keys_out)) {
        return err_make(ERR_M_FORBIDDEN, "the keys are not signed with one of themselves");
    }
    return OK;
}
