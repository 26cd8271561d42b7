/* Identifiers of the protocol as one-field structs, so that mixing two kinds does not compile. Only
 * this file makes them. All functions borrow: results point into the argument.
 * Spec: appendices, "Common Identifier Format" and "Server Name". */
#pragma once
#include "homeserver/base/err.h"

struct server_name {
    struct slice s;
};
struct user_id {
    struct slice s;
};
struct room_id {
    struct slice s;
};
struct event_id {
    struct slice s;
};
struct room_alias {
    struct slice s;
};

/* Each parser answers M_INVALID_PARAM with a public text when the grammar is broken. */

/* dns name, IPv4 or [IPv6], with an optional port of 1 to 5 digits; at most 255 bytes. */
struct err ids_parse_server_name(struct slice s, struct server_name *name_out) MUST_USE;
/* The historical grammar, as found in events: '@', any localpart (even empty) without ':' and NUL,
 * a valid server name; at most 255 bytes of UTF-8. */
struct err ids_parse_user(struct slice s, struct user_id *user_out) MUST_USE;
/* The grammar for accounts made today: a non-empty localpart of a-z 0-9 . _ = - / + */
struct err ids_parse_new_user(struct slice s, struct user_id *user_out) MUST_USE;
/* '!' and either an opaque part with a domain (versions 1 to 11) or 43 URL-safe base64 characters.
 */
struct err ids_parse_room(struct slice s, struct room_id *room_out) MUST_USE;

/* The same grammars as plain questions, for hot paths. */
bool ids_is_server_name(struct slice s);
bool ids_is_user(struct slice s);
bool ids_is_new_localpart(struct slice localpart);
bool ids_is_room(struct slice s);
bool ids_is_event(struct slice s);
bool ids_is_alias(struct slice s);

/* Ids known to be good: read from the store, or made by this server. No check. */
struct user_id ids_trust_user(struct slice s);
struct room_id ids_trust_room(struct slice s);
struct event_id ids_trust_event(struct slice s);
struct server_name ids_trust_server(struct slice s);
struct room_alias ids_trust_alias(struct slice s);

/* What stands behind the first ':'; empty when there is none (rooms and events of newer versions).
 */
struct server_name ids_user_domain(struct user_id user);
struct server_name ids_room_domain(struct room_id room);
struct server_name ids_event_domain(struct event_id event);
struct server_name ids_alias_domain(struct room_alias alias);
/* What stands between the sigil and the first ':'. */
struct slice ids_user_localpart(struct user_id user);
/* "@localpart:server" in the arena; the localpart is not checked. */
struct arena;
struct user_id ids_make_user(struct arena *arena, struct slice localpart,
                             struct server_name server);
struct room_alias ids_make_alias(struct arena *arena, struct slice localpart,
                                 struct server_name server);
/* Host and port of a server name; port 0 when none is given. An IPv6 host keeps its brackets. */
struct slice ids_server_host(struct server_name name, uint16_t *port_out);

bool ids_user_eq(struct user_id a, struct user_id b);
bool ids_room_eq(struct room_id a, struct room_id b);
bool ids_event_eq(struct event_id a, struct event_id b);
bool ids_server_eq(struct server_name a,
                   struct server_name b); /* case-sensitive, as the spec says */
