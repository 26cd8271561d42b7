/* Federation over services in memory and a network of the test's making. The server is "test". */
#pragma once
#include "federation/fed_priv.h"
#include "tests/support/world.h"

struct fed_world {
    struct world world;
    struct fed *fed;
    /* Answers requests; NULL: nothing can be reached. */
    struct err (*on_fetch)(struct fed_world *fw, const struct http_fetch_request *request,
                           struct http_fetch_reply *reply);
    struct err (*on_srv)(struct fed_world *fw, struct slice service, struct slice host,
                         struct http_dns_srvs *srvs);
    void *arg;
    _Atomic unsigned fetches;
};

void fed_world_open(struct fed_world *fw);
void fed_world_close(struct fed_world *fw);
/* Unpadded base64 in the arena of the job. */
struct slice fed_world_base64(struct fed_world *fw, const void *bytes, size_t len);
/* A reply with this body and "Name: value" lines. */
struct http_fetch_reply fed_world_reply(struct fed_world *fw, int status, const char *body,
                                        const char *headers);
