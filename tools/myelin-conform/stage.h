/* Plays one scene against a server: registers its users, asks, compares. */
#pragma once
#include "tools/myelin-conform/ask.h"
#include "tools/myelin-conform/peer.h"
#include "tools/myelin-conform/play.h"
#include "tools/myelin-conform/record.h"
#include "tools/myelin-conform/vars.h"

struct stage_target {
    struct slice base_url;
    struct slice registration_token; /* empty: open registration */
    struct slice shared_secret;      /* empty: register through the client API */
    struct slice server_name;
    struct slice ca_file;
    struct peer_tls tls;       /* for played servers; empty: their scenes are left out */
    struct recorder *recorder; /* may be NULL */
};

struct actor {
    struct slice name; /* alice or alice/phone */
    struct slice user_id;
    struct slice token;
    struct slice device_id;
    struct slice password;
    struct slice next_batch;
    struct slice last_since;
};

struct stage {
    struct arena *arena;
    struct asker *asker;
    const struct stage_target *target;
    struct vars vars;
    struct actor *actors;
    size_t actor_count;
    struct answer answer; /* of the last request */
    struct slice asked;   /* the last request, for messages */
    peer_ports *ports;    /* shared by all scenes */
    struct peer **peers;
    size_t peer_count;
    struct json target_keys; /* the server's own answer about its keys, once asked for */
};

/* Plays the scene. On failure `report_out` tells step, expectation and answer; empty otherwise. */
bool stage_play(struct stage *stage, const struct scene *scene, struct slice *report_out);
/* Registers a user. */
struct err stage_register(struct stage *stage, struct slice name) MUST_USE;
/* The actor of this name, who logs in first when it is an unknown device of a known user. */
struct err stage_actor(struct stage *stage, struct slice name, struct actor **actor_out) MUST_USE;
/* A session to act with, from an answer to /register or /login. */
struct err stage_adopt(struct stage *stage, struct slice name, const struct json *session) MUST_USE;
/* Asks and keeps the answer. `path` begins with `/`. */
struct err stage_ask(struct stage *stage, const struct ask *ask) MUST_USE;
struct err stage_ask_json(struct stage *stage, const char *method, const char *path,
                          const struct json *body) MUST_USE;
/* A request of a played server. */
struct err stage_ask_as(struct stage *stage, struct peer *peer,
                        const struct peer_call *call) MUST_USE;
/* Whether the last answer fits every expectation of the step; else why not. */
bool stage_fits(struct stage *stage, const struct step *step, struct slice *why_out);
/* The played server of this name; NULL when there is none. */
struct peer *stage_peer(struct stage *stage, struct slice actor);
