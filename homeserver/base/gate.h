/* A gate stands between what a job changed and the sessions of the job's own user: it is closed
 * until the reply has left, so that a client has the answer to its write before its own sync shows
 * the write. Who waits for it must bound the wait: a handler may run long. Any thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct gate;

/* Closed, with one reference. */
struct gate *gate_new(uint64_t user);
struct gate *gate_hold(struct gate *gate);
void gate_release(struct gate **gate);
/* Whose sessions it concerns. */
uint64_t gate_user(const struct gate *gate);
/* fn(arg) will run once, on the thread that opens the gate. False: it is open already, or somebody
 * waits for it already (there is room for one). */
bool gate_await(struct gate *gate, void (*fn)(void *arg), void *arg);
/* Opening it twice does nothing. */
void gate_open(struct gate *gate);
