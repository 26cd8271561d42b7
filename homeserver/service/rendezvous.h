/* Meeting places of two devices, one of which signs the other in by a QR code: a few bytes that
 * whoever knows the id can read and replace, for a few minutes. In memory only; a restart forgets
 * them. What they exchange is encrypted by them. Spec: spec/rendezvous.md. */
#pragma once
#include "homeserver/base/ctx.h"
#include "homeserver/base/err.h"

enum { RENDEZVOUS_BYTES_MAX = 4096, RENDEZVOUS_COUNT_MAX = 1000 };

struct hs_rendezvous;

struct hs_rendezvous *hs_rendezvous_new(int64_t life_ms);
void hs_rendezvous_free(struct hs_rendezvous **rendezvous);

/* By which of the two interfaces it was opened: it is found by that one alone. */
enum rendezvous_kind { RENDEZVOUS_TEXT /* MSC4108 */, RENDEZVOUS_JSON /* MSC4388 */ };

struct rendezvous {
    enum rendezvous_kind kind;
    struct slice id;
    struct slice data, content_type;
    struct slice version; /* another one after each write */
    int64_t changed_wall_ms;
    int64_t expires_in_ms;
};

/* M_TOO_LARGE; M_LIMIT_EXCEEDED when there are too many. Results live in ctx's arena. */
struct err hs_rendezvous_open(struct hs_rendezvous *rendezvous, struct ctx *ctx,
                              const struct rendezvous *draft,
                              struct rendezvous *opened_out) MUST_USE;
/* M_NOT_FOUND when there is none, or no more. */
struct err hs_rendezvous_get(struct hs_rendezvous *rendezvous, struct ctx *ctx,
                             enum rendezvous_kind kind, struct slice id,
                             struct rendezvous *found_out) MUST_USE;
/* Replaces the data of the version that the caller saw (`draft` says kind, id, version, data and
 * content type). M_CONCURRENT_WRITE (409) when it is another by now. */
struct err hs_rendezvous_put(struct hs_rendezvous *rendezvous, struct ctx *ctx,
                             const struct rendezvous *draft,
                             struct rendezvous *written_out) MUST_USE;
struct err hs_rendezvous_close(struct hs_rendezvous *rendezvous, struct ctx *ctx,
                               enum rendezvous_kind kind, struct slice id) MUST_USE;
