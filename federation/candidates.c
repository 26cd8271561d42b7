/* Which servers are in a room, and whom to ask about it. */
#include "federation/inbound.h"

enum { MEMBERS_LOOKED_AT = 2000, SERVERS_MAX = 50 };

static bool has(const struct slice *names, size_t count, struct slice name)
{
    bool found = false;
    for (size_t i = 0; !found && i < count; i++) {
        found = slice_eq(names[i], name);
    }
    return found;
}

struct err fed_is_resident(struct hs *hs, struct ctx *ctx, struct room *room, struct slice server,
                           bool *is_out)
{
    struct slice *servers = NULL;
    size_t count = 0;
    TRY(hs_room_servers(hs, ctx, room, &servers, &count));
    *is_out = hs_is_local(hs, server) || has(servers, count, server);
    return OK;
}

struct choice {
    struct hs *hs;
    struct slice *names;
    size_t count, max;
};

static void choose(struct choice *choice, struct slice server)
{
    bool fits = choice->count < choice->max && server.len && !hs_is_local(choice->hs, server);
    if (fits && !has(choice->names, choice->count, server)) {
        choice->names[choice->count++] = server;
    }
}

struct err fed_servers_to_ask(struct hs *hs, struct ctx *ctx, struct room *room,
                              const struct fed_candidates *candidates, struct slice **servers_out,
                              size_t *count_out)
{
    struct choice choice = {.hs = hs, .max = candidates->max};
    struct room_members members;
    struct slice *servers = NULL;
    size_t count = 0;
    choice.max = choice.max && choice.max < SERVERS_MAX ? choice.max : SERVERS_MAX;
    choice.names = arena_array(ctx->arena, choice.max, sizeof *choice.names);
    choose(&choice, candidates->first);
    choose(&choice, candidates->second);
    /* Members are by event number: who has been there longest is likely to know most. */
    TRY(hs_room_members(hs, ctx, room, MEMBERSHIP_JOIN, MEMBERS_LOOKED_AT, &members));
    for (size_t i = 0; i < members.count; i++) {
        choose(&choice, ids_user_domain(ids_trust_user(members.items[i].user_id)).s);
    }
    if (choice.count < choice.max) {
        TRY(hs_room_servers(hs, ctx, room, &servers, &count));
        for (size_t i = 0; i < count; i++) {
            choose(&choice, servers[i]);
        }
    }
    *servers_out = choice.names;
    *count_out = choice.count;
    return OK;
}
