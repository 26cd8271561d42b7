/* A homeserver that the play acts itself: own name, key and TLS listener. It answers as scripted,
 * or in the usual way from the rooms it knows, and remembers what it was asked. It is small on
 * purpose: its view of a room's state is the newest event it saw for each key.
 * Spec: server-server API. */
#pragma once
#include "crypto/json_sign.h"
#include "homeserver/room/event.h"
#include "tools/myelin-conform/ask.h"

#include <pthread.h>

struct peer_listener;

/* An event that the peer knows, with the state before it (for /state and /state_ids). */
struct peer_event {
    struct slice id;
    struct json tree;
    int64_t depth;
    bool is_state;
    struct peer_event **before;
    size_t before_count;
};

struct peer_room {
    struct slice id;
    const struct room_rules *rules;
    struct peer_event **events; /* in the order they came */
    size_t event_count;
    struct peer_event **state; /* newest of each key */
    size_t state_count;
    struct peer_event **heads; /* forward extremities */
    size_t head_count;
};

/* What the peer was asked. */
struct peer_request {
    struct slice method;
    struct slice uri;  /* as sent: path and query */
    struct slice path; /* percent-decoded, with the query */
    struct slice body;
    struct ask_header *headers;
    size_t header_count;
};

struct peer_reply {
    unsigned status; /* 0: the connection is closed without an answer */
    struct slice body;
    struct ask_header *headers;
    size_t header_count;
};

/* A scripted answer; the newest that fits counts. */
struct peer_script {
    struct slice method;
    struct slice glob;
    struct peer_reply reply;
};

struct peer {
    struct slice actor; /* as the play calls it */
    struct slice name;  /* server name: 127.0.0.1:PORT */
    struct slice key_id;
    struct ed25519_key key;
    struct peer_listener *listener;
    pthread_mutex_t lock; /* guards all below, between the listener's thread and the scene */
    struct arena *arena;
    struct peer_request *requests;
    size_t request_count;
    struct peer_script *scripts;
    size_t script_count;
    struct peer_room *rooms;
    size_t room_count;
};

/* PEM texts for the listener; must hold for 127.0.0.1. */
struct peer_tls {
    struct slice certificate;
    struct slice key;
};

/* Ports are given out once in a run: servers remember the keys of a name. */
typedef _Atomic unsigned peer_ports;
enum { PEER_PORT_FIRST = 20000, PEER_PORTS = 12000 };

/* Starts listening on a free port of 127.0.0.1. ERR_IO. */
struct err peer_start(struct slice actor, const struct peer_tls *tls, peer_ports *ports,
                      struct peer **peer_out) MUST_USE;
void peer_stop(struct peer **peer);
struct json_signer peer_signer(const struct peer *peer);
/* Unpadded base64. */
struct slice peer_public_key(struct arena *arena, const struct peer *peer);
void peer_lock(struct peer *peer);
void peer_unlock(struct peer *peer);

/* The answer to a request, which is remembered. Called by the listener, takes the lock. The answer
 * lives as long as the peer. */
struct peer_reply peer_answer(struct peer *peer, const struct peer_request *request);

/* The Authorization header of a request. `changes` (NULL for none) replaces members of what is
 * signed, and with `key`, `sig` and `omit` what is sent. Spec: "Request Authentication". */
struct peer_call {
    struct slice method;
    struct slice uri;
    struct slice destination;
    const struct json *content;
    const struct json *changes;
};
struct slice peer_authorization(struct arena *arena, const struct peer *peer,
                                const struct peer_call *call);
