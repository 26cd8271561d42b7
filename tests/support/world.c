#include "tests/support/world.h"

static int64_t wall(void *arg)
{
    return ((struct world *)arg)->wall_ms;
}

static int64_t mono(void *arg)
{
    return ((struct world *)arg)->mono_ms;
}

void world_open(struct world *world, int32_t fail_after_calls)
{
    struct store_config config = {.fail_after_calls = fail_after_calls};
    *world = (struct world){.wall_ms = 1700000000000, .mono_ms = 1000};
    world->conf_arena = arena_new();
    world->now = (struct now){wall, mono, world};
    conf_defaults(world->conf_arena, LIT("test"), &world->conf);
    world->conf.password_hash_cost = CONF_PASSWORD_COST_LOWEST;
    world->conf.registration_open = true;
    world->ctx = (struct ctx){.arena = arena_new(), .now = &world->now};
    world->hs = (struct hs){.server_name = LIT("test"), .conf = &world->conf, .now = &world->now};
    struct err err = store_open(&config, &world->hs.store);
    ASSERT(err.code == 0);
    world->hs.workers = workers_new("test", 1, 100);
    world->hs.users = hs_users_new(&world->hs);
    world->hs.tokens = hs_tokens_new(&world->hs);
    world->hs.uia = hs_uia_new(&world->hs);
}

void world_close(struct world *world)
{
    ctx_finish(&world->ctx);
    hs_uia_free(&world->hs.uia);
    hs_tokens_free(&world->hs.tokens);
    hs_users_free(&world->hs.users);
    workers_free(&world->hs.workers);
    store_close(&world->hs.store);
    arena_free(&world->ctx.arena);
    arena_free(&world->conf_arena);
}

void world_wait(struct world *world, int64_t ms)
{
    world->wall_ms += ms;
    world->mono_ms += ms;
}

uint64_t world_user(struct world *world, const char *name)
{
    uint64_t user = 0;
    struct account_draft draft = {
        .user_id = arena_printf(world->ctx.arena, "@%s:test", name),
        .password = LIT("secret"),
    };
    struct err err = hs_account_create(&world->hs, &world->ctx, &draft, &user);
    ASSERT(err.code == 0);
    return user;
}
