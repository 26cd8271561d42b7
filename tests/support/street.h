/* Several servers over stores in memory that reach each other by calls of their route handlers: no
 * ports, no threads of their own, requests count as signed by whom they come from. For tests of
 * what passes between servers. Their names are "a.test:1", "b.test:1", "c.test:1". */
#pragma once
#include "federation/fed_priv.h"
#include "homeserver/http/router.h"
#include "tests/support/house.h"

enum { STREET_HOUSES = 3 };

struct street {
    struct house houses[STREET_HOUSES];
    struct http_router *router;
    bool is_down[STREET_HOUSES];
    /* Answers in place of a house when it says so; may be NULL. */
    bool (*intercept)(struct street *street, size_t to, const struct http_fetch_request *request,
                      struct http_fetch_reply *reply);
    void *arg;
    char asked[STREET_HOUSES][64]; /* path of the newest request that each answered, up to '/' 6 */
};

void street_open(struct street *street);
void street_close(struct street *street);
/* Ends the jobs of all houses and begins others. */
void street_next_jobs(struct street *street);

struct street_request {
    size_t from, to;
    const char *method;
    struct slice target; /* with query */
    const struct json *content;
};
/* Status, and the body in the arena of house `from`. */
int street_ask(struct street *street, const struct street_request *request, struct slice *body_out);
/* A user of one house as a stranger in another. */
struct slice street_name(size_t house);
