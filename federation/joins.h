/* What joins and invites that are under way know of each other.
 * Lock: fed_joins.mutex, a leaf; who waits on it waits at most the time given here. */
#pragma once
#include "federation/fed.h"

struct fed_joins;

struct fed_joins *fed_joins_new(void);
void fed_joins_free(struct fed_joins **joins);

/* Around asking another server to sign an invite and storing it: the invited user may join by it
 * before it is stored here. */
void fed_invite_begin(struct fed *fed, struct slice room_id, struct slice user_id);
void fed_invite_end(struct fed *fed, struct slice room_id, struct slice user_id);
/* Waits until no such invite is under way, 10 s at most. ERR_WAITS when it would wait outside the
 * waiting pool. */
struct err fed_invite_await(struct fed *fed, struct ctx *ctx, struct slice room_id,
                            struct slice user_id) MUST_USE;

/* One join of a room at a time goes out from this server; the next one waits for it (ERR_TIMEOUT
 * after 60 s) and will mostly find the room here. */
struct err fed_join_enter(struct fed *fed, struct slice room_id) MUST_USE;
void fed_join_leave(struct fed *fed, struct slice room_id);
