/* Application services of this server: who they are, which names are theirs, and what only they can
 * be asked. The registrations are read by appservice/; here lies the table that everybody looks at.
 * A table never changes; a new one takes its place as a whole, and old ones stay until the end, so
 * that what borrows from them lives. Any thread.
 * Spec: application-service, "Registration". */
#pragma once
#include "crypto/sha256.h"
#include "homeserver/base/pattern.h"
#include "homeserver/service/hs.h"

enum { APPSERVICES_MAX = 64 /* sets of them are bits of a number */ };

struct appservice_namespace {
    struct pattern *pattern;
    bool is_exclusive;
};
struct appservice_namespaces {
    struct appservice_namespace *items;
    size_t count;
};

struct appservice {
    struct slice id;
    struct slice url; /* without a final slash; ptr NULL = nothing is sent to it */
    struct slice hs_token;
    struct sha256 as_token_hash;
    struct slice sender; /* the user id of sender_localpart */
    struct appservice_namespaces users, aliases, rooms;
    struct slice *protocols;
    size_t protocol_count;
    bool is_rate_limited;
    bool wants_ephemeral;  /* typing, receipts, presence */
    bool wants_to_device;  /* messages to devices of its users */
    bool wants_encryption; /* device lists and counts of keys (MSC3202) */
};

struct appservice_table {
    struct arena *arena; /* owned: everything in it */
    struct appservice *items;
    size_t count;
    struct appservice_table *older; /* what it replaced */
};
/* Also gives back the patterns. */
void hs_appservice_table_free(struct appservice_table **table);

/* What only an application service can answer; set by appservice/ at start. Both wait for the
 * network: ERR_WAITS as remote.h says. */
struct hs_appservice_port {
    /* Asks those with this name in a namespace whether the user or alias shall exist; when one says
     * so, it has made it. */
    struct err (*ask_user)(struct hs *hs, struct ctx *ctx, struct slice user_id, bool *made_out);
    struct err (*ask_alias)(struct hs *hs, struct ctx *ctx, struct slice alias, bool *made_out);
    /* It called: whatever waits for it goes out now. Any thread, quick. */
    void (*seen)(struct hs *hs, const struct appservice *service);
};

struct hs_appservices *hs_appservices_new(void);
void hs_appservices_free(struct hs_appservices **services);
/* Takes the table. */
void hs_appservices_replace(struct hs *hs, struct appservice_table **table);
void hs_appservices_set_port(struct hs *hs, const struct hs_appservice_port *port);
/* The present table; one without items when there are none. */
const struct appservice_table *hs_appservices_table(const struct hs *hs);
/* NULL when there is none. */
const struct appservice *hs_appservice_by_token(const struct hs *hs, struct slice as_token);
const struct appservice *hs_appservice_by_id(const struct hs *hs, struct slice id);

/* Whether the id is in one of its namespaces; its sender is in that of users. Users and aliases of
 * other servers are in none, for namespaces are those of this server. */
bool hs_appservice_has_user(const struct hs *hs, const struct appservice *service,
                            struct slice user_id);
bool hs_appservice_has_alias(const struct hs *hs, const struct appservice *service,
                             struct slice alias);
bool hs_appservice_has_room(const struct appservice *service, struct slice room_id);
/* Whether the user is its alone. */
bool hs_appservice_owns_user(const struct hs *hs, const struct appservice *service,
                             struct slice user_id);

/* May `by` (id of an application service; empty = anybody else) make or remove this name?
 * M_EXCLUSIVE when it is reserved for others, or is not in a namespace of `by`. */
struct err hs_appservice_check_user(const struct hs *hs, struct slice by,
                                    struct slice user_id) MUST_USE;
struct err hs_appservice_check_alias(const struct hs *hs, struct slice by,
                                     struct slice alias) MUST_USE;

/* The account of a local user; services are asked for it when there is none. ERR_WAITS as above.
 * found false: none, or deactivated. */
struct err hs_appservices_find_user(struct hs *hs, struct ctx *ctx, struct slice user_id,
                                    uint64_t *user_out, bool *found_out) MUST_USE;
/* Asks about a local alias that is not known: whether it is there now. */
struct err hs_appservices_ask_alias(struct hs *hs, struct ctx *ctx, struct slice alias,
                                    bool *made_out) MUST_USE;
void hs_appservice_seen(struct hs *hs, const struct appservice *service);

/* Grows with every change of local aliases: what remembers a room's aliases looks again. */
uint64_t hs_appservices_alias_changes(const struct hs *hs);
void hs_appservices_alias_changed(struct hs *hs);
