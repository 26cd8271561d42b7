/* The answer to send_join, and that to /state, which is much the same, read piece by piece.
 * Spec: server-server, PUT /send_join and GET /state. */
#pragma once
#include "federation/bulk.h"
#include "federation/fed.h"

/* What it says beside the events; slices borrow from its bytes or live in the arena. */
struct join_answer {
    struct slice state, auth_chain; /* arrays, unparsed (`pdus` of /state is the state) */
    struct slice event;             /* empty = none */
    bool members_omitted;
    struct slice *servers;
    size_t server_count;
};

/* M_REMOTE when it has not the form of an answer. */
struct err join_answer_parse(struct ctx *ctx, struct slice bytes,
                             struct join_answer *answer_out) MUST_USE;

enum join_answer_part { JOIN_ANSWER_AUTH, JOIN_ANSWER_STATE };
/* Takes one event that holds; ctx lives for a batch of them. */
typedef struct err (*join_answer_fn)(void *arg, struct ctx *ctx, enum join_answer_part part,
                                     const struct event *event);
struct join_answer_reader {
    struct fed *fed;
    struct ctx *ctx;
    const struct room_rules *rules;
    struct slice room_id;
    struct bulk *bulk; /* whose bytes they are: what was read is given back; may be NULL */
    join_answer_fn fn;
    void *arg;
};
/* In the order of depth, so that what an event cites comes before it. Events that do not parse, are
 * of another room or whose signatures do not hold are left out: one bad event does not keep a user
 * out of a room. */
struct err join_answer_read(const struct join_answer *answer,
                            const struct join_answer_reader *reader) MUST_USE;
