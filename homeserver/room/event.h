/* Events (PDUs): format checks, canonical bytes, hashes, ids, signatures. Pure.
 * Spec: server-server, "PDUs" and "Signing Events"; room versions 1 to 12, "Event format". */
#pragma once
#include "crypto/json_sign.h"
#include "spec/ids.h"
#include "spec/limits.h"
#include "spec/room_rules.h"

/* A parsed event: a plain value whose slices and pointers live in the arena (or the bytes) it was
 * parsed with. Immutable once made, so threads may share it. */
struct event {
    const struct room_rules *rules;
    struct slice json;       /* canonical federation form with hashes and signatures, no unsigned */
    const struct json *tree; /* the whole PDU; NULL for stored events (event_tree makes it) */
    const struct json *content; /* an object; NULL only after event_scan_stored */
    struct slice content_json;  /* canonical bytes of content */
    struct event_id id;
    struct room_id room_id; /* set for create events of version 12 too, derived from id */
    struct user_id sender;
    struct slice type;
    struct slice state_key;
    bool has_state_key;
    bool rejected;           /* for the caller: refused by authorisation; parsers leave it false */
    struct event_id redacts; /* from the place the version says; empty when there is none */
    int64_t depth;
    int64_t origin_server_ts;
    const struct event_id *prev_events;
    const struct event_id *auth_events;
    size_t prev_event_count;
    size_t auth_event_count;
};

bool event_is_state(const struct event *event);
/* Type equal, and state event with exactly this key. */
bool event_is(const struct event *event, struct slice type, struct slice state_key);

/* Reads an event from another server: format of the version, ids, size limits, canonical JSON where
 * the version demands it. The result's `json` is the canonical form without `unsigned` (and, from
 * version 3, without a stray `event_id`), and `id` is computed. Content hash and signatures are not
 * checked. M_BAD_JSON or M_TOO_LARGE with a public text: drop such an event. */
struct err event_parse(struct arena *arena, const struct room_rules *rules, struct slice json,
                       struct event *event_out) MUST_USE;
/* The same from a tree (for example one PDU of a transaction). */
struct err event_parse_tree(struct arena *arena, const struct room_rules *rules,
                            const struct json *tree, struct event *event_out) MUST_USE;
/* Bounds the limits on prev_events and auth_events, which do not hold for backfilled events. */
struct err event_check_reference_counts(const struct event *event) MUST_USE;

/* Reads canonical bytes this server stored itself. No check, about 1 us; borrows from `json`. `id`
 * may be empty in versions 1 and 2, where the bytes carry it. ERR_CORRUPT when they do not scan. */
struct err event_parse_stored(struct arena *arena, const struct room_rules *rules,
                              struct slice json, struct event_id id,
                              struct event *event_out) MUST_USE;
/* The same without a content tree: `content` stays NULL. For rendering, which splices bytes. */
struct err event_scan_stored(struct arena *arena, const struct room_rules *rules, struct slice json,
                             struct event_id id, struct event *event_out) MUST_USE;
/* The whole PDU as a tree, parsed now when the event has none. */
const struct json *event_tree(struct arena *arena, const struct event *event);

/* Completes an event of this server: content hash, signature on the redacted form, id, canonical
 * bytes. `draft` has all members but hashes and signatures (in versions 1 and 2 also event_id; a
 * create event of version 12 without room_id). Checks the same format and sizes as event_parse:
 * M_BAD_JSON or M_TOO_LARGE. */
struct err event_seal(struct arena *arena, const struct room_rules *rules, const struct json *draft,
                      const struct json_signer *signer, struct event *event_out) MUST_USE;
/* The members of a draft besides type, state_key, content and sender. */
struct event_draft {
    const struct room_rules *rules;
    struct room_id room_id; /* left out for create events of version 12 */
    struct user_id sender;
    struct slice type;
    const struct slice *state_key; /* NULL: not a state event */
    const struct json *content;
    struct event_id redacts; /* written to the place the version says; empty = none */
    int64_t origin_server_ts;
    int64_t depth; /* clamped to the version's maximum */
    const struct event_id *prev_events;
    size_t prev_event_count;
    const struct event_id *auth_events;
    size_t auth_event_count;
    struct event_id id; /* versions 1 and 2 only: "$opaque:server" made by the caller */
};
/* The federation form of a draft, ready for event_seal or a make_join template. */
struct json event_draft_tree(struct arena *arena, const struct event_draft *draft);
/* Adds one more signature of this server to a sealed or received event (invites, restricted
 * joins), giving a new event with new bytes and the same id. */
struct err event_add_signature(struct arena *arena, const struct event *event,
                               const struct json_signer *signer, struct event *event_out) MUST_USE;

/* '$' + reference hash in the version's alphabet (3 and later); `event_id` of the tree before. */
struct event_id event_id_compute(struct arena *arena, const struct room_rules *rules,
                                 const struct json *tree);
/* Unpadded standard base64 of the hash of the redacted form (versions 1 and 2 cite it). */
struct slice event_reference_hash(struct arena *arena, const struct room_rules *rules,
                                  const struct json *tree);
/* Whether hashes.sha256 fits the content. When not, go on with event_redacted. */
bool event_check_hash(struct arena *arena, const struct event *event);
/* The redacted form as an event of its own, same id. */
struct err event_redacted(struct arena *arena, const struct event *event,
                          struct event *event_out) MUST_USE;

/* Servers that must have signed the event, in server-server order, without duplicates. An invite by
 * third-party token is not required to carry the sender's server (Spec: server-server, "Validating
 * hashes and signatures on received events"). */
enum { EVENT_SIGNERS_MAX = 3 };
size_t event_required_signers(const struct event *event,
                              struct server_name signers_out[EVENT_SIGNERS_MAX]);
/* Gives the key for a server's signature, or false when it has no key of that id that counts for
 * this event (in version 5 and later: valid at origin_server_ts). */
typedef bool (*event_key_fn)(void *arg, struct server_name server, struct slice key_id,
                             struct ed25519_public *key_out);
/* Every required server has one valid signature. On failure M_FORBIDDEN, naming the server, which
 * also stands in *server_out (so that the caller may fetch keys and ask again). Signatures without
 * a usable key are passed over. */
struct err event_check_signatures(struct arena *arena, const struct event *event, event_key_fn key,
                                  void *arg, struct server_name *server_out) MUST_USE;
