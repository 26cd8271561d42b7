#include "homeserver/base/ctx.h"

struct ctx_deferred {
    struct ctx_deferred *next;
    void (*fn)(void *owner, void *thing);
    void *owner;
    void *thing;
};

void ctx_defer(struct ctx *ctx, void (*fn)(void *owner, void *thing), void *owner, void *thing)
{
    struct ctx_deferred *deferred = arena_alloc(ctx->arena, sizeof *deferred);
    *deferred = (struct ctx_deferred){ctx->deferred, fn, owner, thing};
    ctx->deferred = deferred;
}

void ctx_finish(struct ctx *ctx)
{
    while (ctx->deferred) {
        struct ctx_deferred *deferred = ctx->deferred;
        ctx->deferred = deferred->next;
        deferred->fn(deferred->owner, deferred->thing);
    }
}

struct gate *ctx_gate(struct ctx *ctx)
{
    if (!ctx->gate && ctx->author) {
        ctx->gate = gate_new(ctx->author);
    }
    return ctx->gate;
}

void ctx_open_gate(struct ctx *ctx)
{
    if (ctx->gate) {
        gate_open(ctx->gate);
        gate_release(&ctx->gate);
    }
}
