/* The key that this server signs with, and those it signed with before. One text file, mode 0600:
 *     ed25519 <key name> <seed, base64>
 *     old_ed25519 <key name> <public key, base64> <expired at, ms since 1970>
 * The first line alone is also what other servers' key files look like.
 * Spec: server-server, "Publishing Keys". */
#pragma once
#include "crypto/json_sign.h"
#include "homeserver/base/now.h"

struct signing_key;

/* A key that is no longer used; still valid for events signed before it expired. */
struct signing_key_old {
    struct slice key_id; /* "ed25519:name" */
    struct ed25519_public public_key;
    int64_t expired_ms;
};

/* Reads the file; makes it, with a new key, when there is none. ERR_IO, ERR_CORRUPT with a text for
 * the operator. */
struct err signing_key_load(struct slice path, struct signing_key **key_out) MUST_USE;
void signing_key_free(struct signing_key **key);
/* Signs for `server`; borrows from the key. */
struct json_signer signing_key_signer(const struct signing_key *key, struct server_name server);
struct ed25519_public signing_key_public(const struct signing_key *key);
struct slice signing_key_id(const struct signing_key *key);
const struct signing_key_old *signing_key_olds(const struct signing_key *key, size_t *count_out);
/* Puts a new key into the file; the present one becomes an old one that expires now. In force from
 * the next load. */
struct err signing_key_rotate(struct slice path, int64_t now_wall_ms) MUST_USE;
