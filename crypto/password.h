/* Password hashes: Argon2id in libsodium's text form, which names algorithm and cost, so that costs
 * can be raised later. A hash takes tens of milliseconds and much memory: a gate lets only a few
 * run at once and a few more wait; the rest is told to come back. */
#pragma once
#include "homeserver/base/arena.h"
#include "homeserver/base/err.h"

enum password_cost {
    PASSWORD_COST_LOWEST,      /* tests */
    PASSWORD_COST_INTERACTIVE, /* 64 MiB, about 70 ms */
    PASSWORD_COST_MODERATE,    /* 256 MiB, about 0.4 s */
};
enum { PASSWORD_BYTES_MAX = 1024 };

struct password_gate;

/* At most `running_max` hashes at once, at most `waiting_max` callers waiting. */
struct password_gate *password_gate_new(enum password_cost cost, size_t running_max,
                                        size_t waiting_max);
void password_gate_free(struct password_gate **gate);
/* The hash of a password, in the arena. ERR_UNAVAILABLE when too many wait. Blocks. */
struct err password_hash(struct password_gate *gate, struct arena *arena, struct slice password,
                         struct slice *hash_out) MUST_USE;
/* Whether the password has this hash. An empty hash never matches but takes as long. */
struct err password_check(struct password_gate *gate, struct slice password, struct slice hash,
                          bool *right_out) MUST_USE;
/* Whether the hash was made at another cost than the gate's. */
bool password_is_stale(const struct password_gate *gate, struct slice hash);
