#include "homeserver/base/gate.h"

#include "homeserver/base/mem.h"

#include <stdatomic.h>

enum gate_state { GATE_CLOSED = 0, GATE_AWAITED, GATE_OPEN };

struct gate {
    uint64_t user;
    void (*fn)(void *arg); /* set before the state says GATE_AWAITED */
    void *arg;
    _Atomic int state;
    _Atomic int refs;
};

struct gate *gate_new(uint64_t user)
{
    struct gate *gate = mem_alloc(sizeof *gate);
    gate->user = user;
    atomic_init(&gate->state, GATE_CLOSED);
    atomic_init(&gate->refs, 1);
    return gate;
}

struct gate *gate_hold(struct gate *gate)
{
    atomic_fetch_add(&gate->refs, 1);
    return gate;
}

void gate_release(struct gate **gate)
{
    if (*gate && atomic_fetch_sub(&(*gate)->refs, 1) == 1) {
        mem_free(*gate);
    }
    *gate = NULL;
}

uint64_t gate_user(const struct gate *gate)
{
    return gate->user;
}

bool gate_await(struct gate *gate, void (*fn)(void *arg), void *arg)
{
    int expected = GATE_CLOSED;
    if (atomic_load(&gate->state) != GATE_CLOSED) {
        return false;
    }
    gate->fn = fn;
    gate->arg = arg;
    return atomic_compare_exchange_strong(&gate->state, &expected, GATE_AWAITED);
}

void gate_open(struct gate *gate)
{
    if (atomic_exchange(&gate->state, GATE_OPEN) == GATE_AWAITED) {
        gate->fn(gate->arg);
    }
}
