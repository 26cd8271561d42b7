/* Two whole servers in one process that know each other: over TLS on 127.0.0.1, each with its own
 * certificate and folder. Their names are "localhost:<port>". For integration tests. */
#pragma once
#include "federation/fed_priv.h"
#include "homeserver/app.h"

struct pair_server {
    struct app *app;
    struct hs *hs;
    struct conf conf;
    char name[32], folder[64], certificate[80];
    uint16_t port; /* of the TLS listener */
};

struct pair {
    struct arena *arena;
    struct now now;
    struct pair_server servers[2];
    struct ctx ctx; /* of the test's own thread, which may wait */
};

/* `more` is added to each configuration: lines of YAML, or "". Fails the test on errors. */
void pair_open(struct pair *pair, const char *more);
void pair_close(struct pair *pair);
/* Stops a server, and starts it again with what lies in its folder. */
void pair_stop(struct pair *pair, size_t index);
void pair_start(struct pair *pair, size_t index);
/* Ends the job of pair->ctx and begins another. */
void pair_next_job(struct pair *pair);
