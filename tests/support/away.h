/* A house whose guest ann has joined a room of a made-up server: what tests of taking in events
 * begin with. Everything fails the test when it does not work. */
#pragma once
#include "homeserver/service/intake.h"
#include "tests/support/house.h"
#include "tests/support/peer.h"

struct away {
    struct house h;
    struct guest ann;
    struct peer far;
    struct peer_room r;    /* as the far server has it */
    struct slice ria, rob; /* its users: the creator, and one who joined */
    struct peer_draft by_ria, by_rob, by_ann;
    struct room *room; /* as the house has it */
};

/* Without the join. */
void away_open(struct away *away, const char *version);
/* Joins, with the state of the room's newest event; partial: rob's member event is left out. */
enum away_join { AWAY_WHOLE, AWAY_PARTIAL };
struct err away_try_join(struct away *away, enum away_join how);
void away_join(struct away *away, enum away_join how);
/* Ends the partial time with the state of these events, which are here. */
struct err away_complete(struct away *away, const struct event_id *ids, size_t count);
/* Checks the store, too. */
void away_close(struct away *away);
void away_expect_sound(struct away *away);
/* Ends the job and loads the room anew. */
void away_restart(struct away *away);

struct intake_report away_take(struct away *away, size_t at);
/* A message in the room of the far server, after `prev` or the newest event (NULL). */
size_t away_say(struct away *away, const struct peer_draft *by, const size_t *prev, size_t count);
enum membership away_membership(struct away *away, struct slice user);
size_t away_end_count(struct away *away);
struct stored_event away_stored(struct away *away, size_t at);
