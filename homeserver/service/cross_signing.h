/* Cross-signing keys and signatures. A user's keys are public but for the user-signing key.
 * Signatures by a user on own keys and devices are stored in what they sign and shown to all; those
 * on other users' master keys belong to the signer, who alone sees them.
 * Spec: client-server, "Cross-signing". */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/service/hs.h"

enum cross_key { CROSS_MASTER, CROSS_SELF_SIGNING, CROSS_USER_SIGNING, CROSS_KEY_COUNT };

/* The usage word: master, self_signing, user_signing. */
struct slice hs_cross_key_usage(enum cross_key key);

struct cross_upload {
    uint64_t user;
    struct slice user_id;
    const struct json *keys[CROSS_KEY_COUNT];    /* NULL = not given */
    enum { CROSS_UNPROVEN, CROSS_PROVEN } proof; /* whether the user has authenticated again */
};
enum cross_answer {
    CROSS_DONE,        /* stored, or the same keys were there already */
    CROSS_NEEDS_PROOF, /* keys would change: nothing was stored */
};
/* M_BAD_JSON, M_INVALID_PARAM, M_MISSING_PARAM, M_INVALID_SIGNATURE. */
struct err hs_cross_signing_upload(struct hs *hs, struct ctx *ctx,
                                   const struct cross_upload *upload,
                                   enum cross_answer *answer_out) MUST_USE;

/* A user's key as `viewer` (0 = another server) may see it. Not found also when it is hidden. */
struct cross_view {
    uint64_t user, viewer;
    enum cross_key key;
};
struct err hs_cross_signing_get(struct hs *hs, struct ctx *ctx, struct cross_view view,
                                struct slice *json_out, bool *found_out) MUST_USE;

/* Adds to a master key of a user of another server the signatures that `viewer` has put on it. */
struct err hs_cross_signing_add_signatures(struct hs *hs, struct ctx *ctx, uint64_t viewer,
                                           struct slice user_id, struct json *master) MUST_USE;

/* Signatures of several users' things: user id -> (device id or master key -> signed object).
 * What cannot be stored is reported in `failures_out`: user id -> (id -> {errcode, error}). */
struct signature_upload {
    uint64_t user;
    struct slice user_id;
    const struct json *signed_objects;
};
struct err hs_signatures_upload(struct hs *hs, struct ctx *ctx,
                                const struct signature_upload *upload,
                                struct json *failures_out) MUST_USE;
