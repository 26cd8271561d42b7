/* Signed JSON objects. Spec: appendices, "Signing JSON": the signature covers the canonical form of
 * the object without `signatures` and `unsigned`. Events are signed by room/event.h, over their
 * redacted form. */
#pragma once
#include "crypto/ed25519.h"
#include "homeserver/base/json.h"
#include "spec/ids.h"

/* A key of this server with the names it signs under. Borrows. */
struct json_signer {
    struct server_name server; /* or a user id, for cross-signing */
    struct slice key_id;       /* "ed25519:name" */
    const struct ed25519_key *key;
};

/* Adds `signatures[server][key_id]` in place (other signatures stay). New values live in the arena.
 */
void json_sign(struct arena *arena, struct json *object, const struct json_signer *signer);
/* The bytes that are signed. */
struct slice json_sign_payload(struct arena *arena, const struct json *object);
/* Whether signatures[entity][key_id] is a valid signature of the object with this key. */
bool json_sign_verify(struct arena *arena, const struct json *object, struct slice entity,
                      struct slice key_id, const struct ed25519_public *key);
/* The signature text under signatures[entity][key_id]; ptr NULL when absent. */
struct slice json_sign_find(const struct json *object, struct slice entity, struct slice key_id);
