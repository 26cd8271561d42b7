/* Account services over a store in memory and a clock that tests set. */
#pragma once
#include "homeserver/service/tokens.h"
#include "homeserver/service/uia.h"
#include "homeserver/service/users.h"

struct world {
    struct hs hs;
    struct conf conf;
    struct now now;
    struct ctx ctx;
    struct arena *conf_arena;
    int64_t wall_ms, mono_ms;
};

/* fail_after_calls as in struct store_config; 0 = never. The name of the server is "test". */
void world_open(struct world *world, int32_t fail_after_calls);
void world_close(struct world *world);
/* Moves both clocks. */
void world_wait(struct world *world, int64_t ms);
/* An account "@<name>:test" with the password "secret"; fails the test when that does not work. */
uint64_t world_user(struct world *world, const char *name);
