/* What a user's own sessions do not see yet: changes that one of the user's requests made and
 * whose reply has not left (base/gate.h). A hold ends when the gate opens, or after
 * SYNC_HOLD_MS_MAX. One mutex, a leaf. Spec: architecture.md, "Sync". */
#pragma once
#include "homeserver/base/gate.h"

#include <stddef.h>

enum { SYNC_HOLD_MS_MAX = 250 };

struct sync_holds;

/* `ended` is told, without a lock, that the user may see more. On any thread. */
struct sync_holds *sync_holds_new(void (*ended)(void *arg, uint64_t user), void *arg);
/* Nobody may open a gate any more. */
void sync_holds_free(struct sync_holds **holds);
/* Holds the change at pos, and all later ones, back from the gate's user. Before pos is published,
 * in order of positions. */
void sync_holds_add(struct sync_holds *holds, struct gate *gate, uint64_t pos);
/* The newest position that the user may see, given the newest published one, which must have been
 * read before. */
uint64_t sync_holds_limit(struct sync_holds *holds, uint64_t user, uint64_t published);
/* Blocks until the holds that the user has now have ended. */
void sync_holds_wait(struct sync_holds *holds, uint64_t user);
