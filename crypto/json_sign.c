#include "crypto/json_sign.h"

#include "crypto/base64.h"

struct slice json_sign_payload(struct arena *arena, const struct json *object)
{
    const struct slice dropped[] = {LIT("signatures"), LIT("unsigned")};
    struct json rest = json_without(arena, object, dropped, COUNT_OF(dropped));
    return json_canonical(arena, &rest);
}

/* The object under `key` as a copy that may be changed; empty when there is none. */
static struct json copy_of_object(struct arena *arena, const struct json *object, struct slice key)
{
    const struct json *found = json_get_object(object, key);
    return found ? json_without(arena, found, NULL, 0) : json_object();
}

void json_sign(struct arena *arena, struct json *object, const struct json_signer *signer)
{
    struct slice payload = json_sign_payload(arena, object);
    struct ed25519_signature signature = ed25519_sign(signer->key, payload);
    struct slice bytes = {(const char *)signature.bytes, sizeof signature.bytes};
    struct json signatures = copy_of_object(arena, object, LIT("signatures"));
    struct json own = copy_of_object(arena, &signatures, signer->server.s);
    json_set(arena, &own, signer->key_id,
             json_string(base64_encode(arena, bytes, BASE64_STANDARD)));
    json_set(arena, &signatures, signer->server.s, own);
    json_set(arena, object, LIT("signatures"), signatures);
}

struct slice json_sign_find(const struct json *object, struct slice entity, struct slice key_id)
{
    const struct json *signatures = json_get_object(object, LIT("signatures"));
    return json_get_string(json_get_object(signatures, entity), key_id);
}

bool json_sign_verify(struct arena *arena, const struct json *object, struct slice entity,
                      struct slice key_id, const struct ed25519_public *key)
{
    struct ed25519_signature signature;
    struct slice text = json_sign_find(object, entity, key_id);
    if (!text.ptr || !ed25519_parse_signature(text, &signature)) {
        return false;
    }
    return ed25519_verify(key, json_sign_payload(arena, object), &signature);
}
