/* An application service that is played by the test: what it is sent is kept, in order. */
#pragma once
#include "homeserver/appservice/appservice.h"
#include "tests/support/house.h"

#include <pthread.h>
#include <stdatomic.h>

enum { BRIDGE_TXNS_MAX = 2000 };

struct bridge {
    struct house *house;
    struct as *as;
    _Atomic int status; /* of its answers to transactions; 0 = it cannot be reached */
    _Atomic int silent; /* so many of its next answers do not come */
    _Atomic int calls, pauses;
    pthread_mutex_t lock; /* below */
    struct arena *arena;
    struct {
        struct slice id;
        struct slice body;
    } txns[BRIDGE_TXNS_MAX]; /* each one once; a repeated one must be the same */
    size_t txn_count;
    struct slice last_url;
};

/* Registers "fax" with users @fax_*, aliases #fax_* (exclusive) and what `more` adds to its YAML.
 */
void bridge_open(struct bridge *bridge, struct house *house, const char *more);
/* Starts what bridge_crash or bridge_stop ended. */
void bridge_start(struct bridge *bridge, const char *more);
void bridge_stop(struct bridge *bridge);
void bridge_crash(struct bridge *bridge);
void bridge_close(struct bridge *bridge);
/* Everything that can be sent has been. */
void bridge_settle(struct bridge *bridge);
/* All items of one list of all transactions, in order, as a JSON array in the house's arena. */
struct json bridge_items(struct bridge *bridge, const char *key);
/* A user of the service. */
struct guest bridge_ghost(struct bridge *bridge, const char *name);
