/* A server with a room of another one that it is in, and that other server as a script: it answers
 * from the room as tests/support/peer.h has it, or wrongly where a test says so. The server is
 * "test", its user @alice:test; the other is "remote:8448", its user @bob:remote:8448. */
#pragma once
#include "federation/fed_priv.h"
#include "tests/support/house.h"
#include "tests/support/peer.h"

#include <pthread.h>

enum { INBOUND_ASKED_MAX = 2000 };

struct inbound_world {
    struct house house;
    struct fed *fed;
    struct peer us, remote;
    struct peer_room theirs;
    struct guest alice;
    struct slice bob;
    struct room *room;
    size_t joined; /* index of the event with which this server joined */
    pthread_mutex_t mutex;
    char asked[INBOUND_ASKED_MAX][96]; /* what the other server was asked, in order */
    size_t asked_count;
    /* How the other server behaves. Each is looked at before the answer; may be NULL. True: *body
     * is the answer (status 200), or the server refuses (404) when its ptr is NULL. */
    bool (*lie)(struct inbound_world *w, struct arena *arena, struct slice path,
                struct slice *body);
    struct slice given; /* body of the request that is answered */
    size_t shown; /* their events from this index on are not known to the script; 0 = all are */
    _Atomic bool is_down; /* nothing but its keys can be reached */
    bool was_file;        /* the last answer came as a file */
    unsigned txn;
};

struct inbound_world *inbound_new(const char *version);
void inbound_free(struct inbound_world **w);
/* The other server makes an event; its index. prev NULL: the event before. */
size_t inbound_make(struct inbound_world *w, const char *type, const char *state_key,
                    const char *content);
/* A message of bob after the events of these indices. */
size_t inbound_say(struct inbound_world *w, const size_t *prev, size_t prev_count);
/* Sends these events in one transaction of the other server. The answer's `pdus`; waits until
 * nothing that was taken in is under work any more. */
struct json inbound_send(struct inbound_world *w, const size_t *events, size_t count);
/* The same with any bodies: PDUs as JSON text. */
struct json inbound_send_text(struct inbound_world *w, const char *const *pdus, size_t count);
/* The answer's error for an event; ptr NULL: it was taken. Fails the test when it is not told. */
struct slice inbound_error(const struct json *pdus, struct slice event_id);
/* Whether the event is here, with a place in the graph and good. */
bool inbound_has(struct inbound_world *w, size_t event);
/* How often the other server was asked for a path that holds this text. */
size_t inbound_asked(struct inbound_world *w, const char *text);
/* A request of the other server to a GET route of this one: "backfill/..." with its query. */
struct err inbound_get(struct inbound_world *w, struct slice server, const char *target,
                       struct json *answer_out);
struct err inbound_put(struct inbound_world *w, struct slice server, const char *target,
                       const char *body, struct json *answer_out);
struct err inbound_post(struct inbound_world *w, struct slice server, const char *target,
                        const char *body, struct json *answer_out);
