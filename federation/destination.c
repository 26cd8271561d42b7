#include "federation/fed_priv.h"

#include "homeserver/base/mem.h"

enum { PORT_DEFAULT = 8448 };

struct fed_destinations {
    int unused;
};

struct fed_destinations *fed_destinations_new(void)
{
    return mem_alloc(sizeof(struct fed_destinations));
}

void fed_destinations_free(struct fed_destinations **destinations)
{
    mem_free(*destinations);
    *destinations = NULL;
}

struct err fed_destination_find(struct fed *fed, struct ctx *ctx, struct slice server,
                                struct fed_target targets_out[FED_TARGETS_MAX], size_t *count_out)
{
    uint16_t port = 0;
    struct slice host = ids_server_host(ids_trust_server(server), &port);
    (void)fed;
    targets_out[0] = (struct fed_target){
        .authority = server,
        .connect_to = arena_printf(ctx->arena, "%.*s:%u", (int)host.len, host.ptr,
                                   port ? port : PORT_DEFAULT),
    };
    *count_out = 1;
    return OK;
}
