/* Which servers are in a room. */
#include "homeserver/service/intake.h"
#include "homeserver/service/room_priv.h"

#include <stdlib.h>
#include <string.h>

static void count_server(struct map *servers, struct slice user_id, bool joins)
{
    struct slice server = ids_user_domain(ids_trust_user(user_id)).s;
    uint64_t count = 0;
    map_get(servers, server, &count);
    if (joins) {
        map_set(servers, server, count + 1);
    } else if (count > 1) {
        map_set(servers, server, count - 1);
    } else {
        map_remove(servers, server);
    }
}

void room_servers_change(struct room *room, const struct derived_members *members)
{
    pthread_mutex_lock(&room->lock);
    for (size_t i = 0; room->servers_owned && i < members->count; i++) {
        const struct derived_member *member = &members->items[i];
        bool was = member->previous == MEMBERSHIP_JOIN;
        bool is = member->membership == MEMBERSHIP_JOIN;
        if (was != is) {
            count_server(room->servers_owned, member->user_id, is);
        }
    }
    pthread_mutex_unlock(&room->lock);
}

void room_servers_forget(struct room *room)
{
    pthread_mutex_lock(&room->lock);
    map_free(&room->servers_owned);
    pthread_mutex_unlock(&room->lock);
}

static struct err count_joined(void *arg, struct ctx *page, const struct room_member *member)
{
    (void)page;
    if (member->membership == MEMBERSHIP_JOIN) {
        count_server(arg, member->user_id, true);
    }
    return OK;
}

static struct err load(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct map *servers = map_new();
    struct err err = hs_room_members_each(hs, ctx, room, count_joined, servers);
    if (err.code != 0) {
        map_free(&servers);
        return err;
    }
    pthread_mutex_lock(&room->lock);
    map_free(&room->servers_owned);
    room->servers_owned = servers;
    pthread_mutex_unlock(&room->lock);
    return OK;
}

static int by_name(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

static void add(const struct hs *hs, struct ctx *ctx, struct slice name, struct slice *servers,
                size_t *count)
{
    if (!hs_is_local(hs, name)) {
        servers[(*count)++] = arena_copy(ctx->arena, name);
    }
}

/* Sorted, without doubles. */
static size_t tidy(struct slice *servers, size_t count)
{
    size_t kept = 0;
    if (count) {
        qsort(servers, count, sizeof *servers, by_name);
    }
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || !slice_eq(servers[kept - 1], servers[i])) {
            servers[kept++] = servers[i];
        }
    }
    return kept;
}

static struct err list(struct hs *hs, struct ctx *ctx, struct room *room,
                       struct slice **servers_out, size_t *count_out)
{
    struct room_partial partial = {0};
    size_t cursor = 0;
    size_t count = 0;
    struct slice name;
    uint64_t members = 0;
    if (!room->servers_owned) {
        TRY(load(hs, ctx, room));
    }
    if (room->is_partial) {
        TRY(room_partial_get(hs, ctx, room, &partial));
    }
    pthread_mutex_lock(&room->lock);
    struct slice *servers = arena_array(
        ctx->arena, map_count(room->servers_owned) + partial.server_count + 1, sizeof *servers);
    while (map_next(room->servers_owned, &cursor, &name, &members)) {
        add(hs, ctx, name, servers, &count);
    }
    pthread_mutex_unlock(&room->lock);
    for (size_t i = 0; i < partial.server_count; i++) {
        add(hs, ctx, partial.servers[i], servers, &count);
    }
    *servers_out = servers;
    *count_out = tidy(servers, count);
    return OK;
}

struct err hs_room_servers(struct hs *hs, struct ctx *ctx, struct room *room,
                           struct slice **servers_out, size_t *count_out)
{
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = list(hs, ctx, room, servers_out, count_out);
    workers_lane_leave(hs->workers, lane);
    return err;
}
