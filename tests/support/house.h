/* All services of a server over a store in memory, for tests of what stands above them: users,
 * rooms and events in a few words. The name of the server is "test". */
#pragma once
#include "homeserver/service/sending.h"
#include "homeserver/sync/sync.h"

struct signing_key;

struct house {
    struct hs hs;
    struct conf conf;
    struct now now;
    struct ctx ctx;
    struct arena *conf_arena;
    _Atomic int64_t wall_ms, mono_ms;
    char folder[64];
};

struct guest {
    struct actor actor;
    struct slice device_id;
};

void house_open(struct house *house);
/* With another name than "test"; borrowed. */
void house_open_as(struct house *house, const char *name);
void house_close(struct house *house);
/* Ends the job of house->ctx and begins another: its results are gone. */
void house_next_job(struct house *house);
/* Everything reserved so far is published. */
void house_settle(struct house *house);

/* An account of this name with a device; fails the test when that does not work, like all below.
 */
struct guest house_guest(struct house *house, const char *name);
/* A room by the body of createRoom. */
struct room *house_room(struct house *house, const struct guest *guest, const char *body);
void house_member(struct house *house, struct room *room, const struct guest *actor,
                  const struct guest *target, enum membership membership);
/* Event id of what was sent. content is JSON. */
struct slice house_send(struct house *house, struct room *room, const struct guest *guest,
                        const char *type, const char *content);
struct slice house_state(struct house *house, struct room *room, const struct guest *guest,
                         const char *type, const char *content);
/* m.room.message with this text. */
struct slice house_say(struct house *house, struct room *room, const struct guest *guest,
                       const char *text);
