#include "homeserver/service/room_priv.h"

struct ctx room_page_begin(const struct ctx *ctx)
{
    struct ctx page = *ctx;
    page.deferred = NULL;
    page.arena = arena_new();
    return page;
}

void room_page_next(struct ctx *page)
{
    ctx_finish(page);
    arena_reset(page->arena);
}

struct err room_page_end(struct ctx *ctx, struct ctx *page, struct err err)
{
    ctx->write_ticket = page->write_ticket;
    if (err.text) {
        err.text = arena_cstr(ctx->arena, slice_of(err.text));
    }
    ctx_finish(page);
    arena_free(&page->arena);
    return err;
}
