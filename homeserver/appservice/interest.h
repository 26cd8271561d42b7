/* Which application services hear of what. A set of them is a number: bit i is the i-th of the
 * present table that has a URL. What is remembered follows the stream of changes, so all of this
 * belongs to the thread that tails it, but for as_interest_of_user_id.
 *
 * A service hears of an event when its sender or, of a member event, its target is a user of the
 * service, when a user of the service is joined to the room at that event, or when the room or one
 * of its local aliases is in a namespace. Spec: application-service, "Registration". */
#pragma once
#include "homeserver/service/appservices.h"
#include "homeserver/service/rooms.h"

typedef uint64_t as_set;

struct as_interest;

struct as_interest *as_interest_new(struct hs *hs);
void as_interest_free(struct as_interest **interest);
/* Forgets everything: another table is in force, or changes were missed. */
void as_interest_reset(struct as_interest *interest);
/* The room's state changed by something else than an event. */
void as_interest_drop_room(struct as_interest *interest, uint64_t room);

/* Services that have this user in a namespace, or as their sender. */
as_set as_interest_of_user_id(const struct hs *hs, struct slice user_id);
struct err as_interest_of_user(struct as_interest *interest, struct ctx *ctx, uint64_t user,
                               as_set *set_out) MUST_USE;
/* Of a timeline event, parsed when it is a member event; each event of a room once, in order. What
 * a member event says of the room's services is noted. */
struct as_event_interest {
    as_set set;
    as_set first, last; /* services of which the first user came with it, the last one went */
};
struct err as_interest_of_event(struct as_interest *interest, struct ctx *ctx, struct room *room,
                                const struct stored_event *event,
                                struct as_event_interest *out) MUST_USE;
struct as_sharing {
    uint64_t user, pos; /* of the change */
    as_set wanted;
};
/* Of a room, for a change at `pos` that is no event (typing, receipts). */
struct err as_interest_of_room(struct as_interest *interest, struct ctx *ctx, struct room *room,
                               uint64_t pos, as_set *set_out) MUST_USE;
/* Of `wanted`: services whose users share a room with the user of this change, and those whose user
 * it is. */
struct err as_interest_of_sharing(struct as_interest *interest, struct ctx *ctx,
                                  const struct as_sharing *sharing, as_set *set_out) MUST_USE;
