/* The proof of an invite by a third-party token: who signed it. Pure.
 * Spec: client-server, "Third-party invites". */
#pragma once
#include "crypto/ed25519.h"
#include "homeserver/base/json.h"

/* An identity server signs once or twice. An event has room for hundreds of signatures and the
 * invite for a thousand keys: each with each would take minutes, each time that the event is
 * judged. So some signatures count, and some keys are tried with them. */
enum { THIRD_PARTY_SIGNATURES_MAX = 16, THIRD_PARTY_TRIES_MAX = 256 };

struct third_party_proof {
    struct slice payload; /* what was signed */
    struct ed25519_signature signatures[THIRD_PARTY_SIGNATURES_MAX];
    size_t count;
    size_t tries; /* so far */
};

/* Reads content.third_party_invite.signed; NULL has no signature. */
struct third_party_proof third_party_read(struct arena *arena, const struct json *proof);
/* Whether one of its signatures was made with the key; never when it was asked too often. */
bool third_party_fits(struct third_party_proof *proof, struct slice key_text);
