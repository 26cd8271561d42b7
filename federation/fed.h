/* The federation side: what its files share. One struct, built by app.c after the services; its
 * threads are the waiting pool (hs->waiters), so calls here may be plain and blocking.
 * Spec: server-server. */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/room/event.h"
#include "homeserver/service/rooms.h"

struct fed;

struct err fed_new(struct hs *hs, struct fed **fed_out) MUST_USE;
/* Starts what runs by itself: queues, resumed joins. */
struct err fed_start(struct fed *fed) MUST_USE;
void fed_stop(struct fed *fed);
void fed_free(struct fed **fed);

/* --- requests to other servers: destination.c, call.c --- */
enum { FED_SMALL_ANSWER = 1 << 18 }; /* bytes: room for one event, or words about fifty */
struct fed_call {
    struct slice destination;   /* server name */
    struct slice method;        /* empty = GET */
    struct slice path;          /* as on the wire, percent-encoded, with query */
    const struct json *content; /* NULL = no body */
    struct slice content_json;  /* the same as canonical bytes, in place of `content` */
    int64_t connect_ms;         /* for the connection; 0 = 10 s */
    int64_t timeout_ms;         /* 0 = 30 s */
    size_t body_bytes_max;      /* of the answer; 0 = 16 MiB: many wait for one at a time */
    int redirects_max;          /* for media; followed without the signature; 0 = none */
    uint32_t flags;             /* enum fed_call_flag */
    struct err (*sink)(void *arg, struct slice bytes); /* as http_fetch_request */
    void *sink_arg;
};
enum fed_call_flag {
    FED_CALL_UNSIGNED = 1, /* no X-Matrix: keys, well-known */
    FED_CALL_ANYWAY = 2,   /* also to a server in back-off; its answer resets it */
    FED_CALL_LIST = 4,     /* the answer is read with json_parse_list: events, or ids of a state */
};
struct fed_answer {
    int status;
    struct slice body;
    struct slice content_type, location, disposition; /* headers; empty = absent */
    struct json json; /* of a 2xx answer that is a JSON object; else JSON_NULL */
};
/* ERR_WAITS outside the waiting pool; ERR_UNAVAILABLE when the server is not reached (or in
 * back-off), ERR_TIMEOUT, ERR_LIMIT; M_FORBIDDEN when the configuration denies the destination. Any
 * status of the peer is a success here. */
struct err fed_call(struct fed *fed, struct ctx *ctx, const struct fed_call *call,
                    struct fed_answer *answer_out) MUST_USE;
/* fed_call, and OK for 2xx with a JSON object alone. Other answers become errors: the peer's
 * errcode and text when it gave those (remote.h says which pass), else ERR_UNAVAILABLE. */
struct err fed_call_json(struct fed *fed, struct ctx *ctx, const struct fed_call *call,
                         struct json *answer_out) MUST_USE;
/* The same for an answer that came through fed_call; the error of one that is not 2xx. */
struct err fed_answer_json(struct ctx *ctx, const struct fed_answer *answer,
                           struct json *answer_out) MUST_USE;
struct err fed_answer_error(struct ctx *ctx, const struct fed_answer *answer) MUST_USE;
/* A path: the format's %s are replaced by the percent-encoded slices, in order. */
struct slice fed_path(struct ctx *ctx, const char *format, const struct slice *parts, size_t count);
/* The server showed a sign of life (a request of it was accepted): ends its back-off. */
void fed_peer_alive(struct fed *fed, struct slice server);
/* Whether a call would be refused for back-off right now; until_out (wall ms) may be NULL. */
bool fed_peer_is_down(struct fed *fed, struct slice server, int64_t *until_out);

/* --- keys of other servers: keys.c --- */
/* Keys are fetched from the server, then from the notaries of the configuration, and kept in the
 * store; a failed refresh never loses a key. */
enum fed_key_use {
    FED_KEY_REQUEST, /* valid now, not an old key */
    FED_KEY_EVENT,   /* valid at `ts_ms`; old keys count */
};
struct fed_key_query {
    struct slice server, key_id;
    enum fed_key_use use;
    int64_t ts_ms;
};
struct err fed_key_get(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query,
                       struct ed25519_public *key_out, bool *found_out) MUST_USE;
/* Signatures of all servers that must have signed. Keys not here are fetched, those of many events
 * in few requests. verdicts_out[i]: OK, or M_FORBIDDEN with the text. */
struct err fed_check_signatures(struct fed *fed, struct ctx *ctx, const struct event *const *events,
                                size_t count, struct err *verdicts_out) MUST_USE;
/* Parses PDUs of any trust, checks signatures and hashes; those whose hash does not fit come back
 * redacted. Events that fail have events_out[i].id empty and the error in verdicts_out[i]. */
struct fed_pdus {
    const struct room_rules *rules;
    const struct json *pdus; /* array */
    struct slice room_id;    /* all must be of this room; empty = any */
};
struct err fed_pdus_check(struct fed *fed, struct ctx *ctx, const struct fed_pdus *pdus,
                          struct event *events_out, struct err *verdicts_out) MUST_USE;

/* --- requests from other servers: xmatrix.c --- */
/* The http layer's authenticate hook for HTTP_AUTH_SERVER routes. On success the peer's name is in
 * fed_origin. 401 M_UNAUTHORIZED when it does not hold. */
struct err fed_authenticate(struct fed *fed, struct ctx *ctx, struct http_request *request,
                            struct http_reply *reply) MUST_USE;
struct slice fed_origin(const struct http_request *request);

/* --- server ACLs: acl.c; pure --- */
/* Whether m.room.server_acl content (NULL = none) lets the server in. Spec: "Server ACLs". */
bool fed_acl_allows(const struct json *content, struct slice server);
/* The same by the room's current state: M_FORBIDDEN when it does not. */
struct err fed_acl_check(struct hs *hs, struct ctx *ctx, struct room *room,
                         struct slice server) MUST_USE;
/* The server has a user joined to the room now (or the room's servers say so while it is partial).
 */
struct err fed_is_resident(struct hs *hs, struct ctx *ctx, struct room *room, struct slice server,
                           bool *is_out) MUST_USE;

/* --- what goes out by itself: sender.c, edus.c --- */
/* Queues an EDU, in its wire form, for each of the servers; durable ones survive a restart and are
 * never dropped (to-device, device lists); others are dropped for a server in back-off, and a newer
 * one with the same `key` replaces one that waits. */
struct fed_edu {
    struct slice type;
    const struct json *content;
    bool is_durable;
    struct slice key; /* empty = none */
};
struct err fed_edu_queue(struct fed *fed, struct ctx *ctx, const struct slice *servers,
                         size_t count, const struct fed_edu *edu) MUST_USE;
/* Takes in one EDU of a transaction. Errors are for the log: EDUs never fail a transaction. */
struct err fed_edu_receive(struct fed *fed, struct ctx *ctx, struct slice origin,
                           const struct json *edu) MUST_USE;
