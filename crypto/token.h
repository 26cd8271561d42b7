/* Opaque tokens: "<prefix>_" + 256 random bits + checksum, in URL-safe base64. The prefix tells the
 * kind, the checksum lets a mistyped or foreign token be refused without a lookup, and secret
 * scanners can find leaked ones. Only hashes of tokens are stored. */
#pragma once
#include "crypto/sha256.h"
#include "homeserver/base/arena.h"

/* A new token, e.g. token_make(arena, LIT("mya")). */
struct slice token_make(struct arena *arena, struct slice prefix);
/* Whether a text has the form of a token with this prefix, checksum included. */
bool token_is_formed(struct slice token, struct slice prefix);
/* The name under which a token is stored. */
struct sha256 token_hash(struct slice token);
/* Comparison in time that does not depend on where the bytes differ. */
bool token_eq(struct slice a, struct slice b);
/* Random text of A-Z (device ids, key names) or a-z and digits (names of accounts). */
struct slice token_random_letters(struct arena *arena, size_t count);
struct slice token_random_name(struct arena *arena, size_t count);
/* A random UUID (version 4) with hyphens. */
struct slice token_uuid(struct arena *arena);
/* Hex HMAC-SHA1, as the shared-secret registration of Synapse asks for. */
struct slice token_hmac_sha1_hex(struct arena *arena, struct slice key, struct slice message);
/* The same in padded base64, as TURN servers with a shared secret ask for. */
struct slice token_hmac_sha1_base64(struct arena *arena, struct slice key, struct slice message);
