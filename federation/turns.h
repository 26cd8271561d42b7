/* Whose turn it is: one transaction of an origin at a time, the others in the order they came; and
 * the answers that were given last. All bounded: what an origin sends beyond is turned away.
 * Lock: turns.mutex, a leaf, but for http_unpark, which is called outside of it. Any thread. */
#pragma once
#include "homeserver/base/buf.h"

struct turns;

/* Who waits; embedded in what waits. */
struct turn {
    struct turn *next;
    bool (*wake)(struct turn *turn); /* false: it gave up already */
    size_t bytes;
};

struct turns *turns_new(void);
void turns_free(struct turns **turns);
/* Whether the origin has its turn now: then turns_leave must follow. */
bool turns_enter(struct turns *turns, struct slice origin);
/* Ends the turn, and begins that of the next who waits. */
void turns_leave(struct turns *turns, struct slice origin);
/* Waits behind others. False: too many or too much wait, of this origin or altogether. */
bool turns_queue(struct turns *turns, struct slice origin, struct turn *turn);
/* Takes it out of the queue. False: its turn has begun. */
bool turns_withdraw(struct turns *turns, struct slice origin, struct turn *turn);

/* The answer to one of the last transactions of an origin, and the ticket of what it wrote. */
bool turns_recall(struct turns *turns, struct slice origin, struct slice txn_id, struct buf *out,
                  uint64_t *ticket_out);
void turns_remember(struct turns *turns, struct slice origin, struct slice txn_id,
                    struct slice answer, uint64_t ticket);
