/* Requests to other servers that nobody waits for: between two steps (.well-known, SRV, addresses,
 * the request) they hold no thread. */
#pragma once
#include "federation/fed.h"

/* Called once, on a thread that may use the store, perhaps before fed_call_start returns. The
 * answer lives until it returns. */
typedef void (*fed_called_fn)(void *arg, struct ctx *ctx, struct err err,
                              const struct fed_answer *answer);
struct fed_called {
    /* The first question is on its way: before `fn`, on any thread; NULL = nobody cares. */
    void (*started)(void *arg);
    fed_called_fn fn;
    void *arg;
};

/* As fed_call, for requests of which each server gets one at a time: they do not count against the
 * number that may run to it. The call's texts are copied. */
void fed_call_start(struct fed *fed, const struct fed_call *call, const struct fed_called *done);
