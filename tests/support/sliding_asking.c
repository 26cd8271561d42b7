#include "tests/support/sliding_asking.h"

#include <stdio.h>
#include <stdlib.h>

struct err sliding_ask(struct house *house, const struct guest *guest, const char *request_text,
                       struct slice pos, struct asked *out)
{
    struct sliding_request request;
    struct json json;
    struct buf body;
    house_settle(house);
    struct err parsed = json_parse(house->ctx.arena, slice_of(request_text), &json);
    ASSERT(parsed.code == 0);
    TRY(sync_sliding_parse(house->ctx.arena, &json, guest->actor.user_id, &request));
    struct sliding_asking asking = {.user = guest->actor.user,
                                    .user_id = guest->actor.user_id,
                                    .device_id = guest->device_id,
                                    .request = &request,
                                    .pos = pos};
    buf_init_arena(&body, house->ctx.arena, 1 << 26);
    TRY(sync_sliding_respond(house->hs.sync, &house->ctx, &asking, &body, &out->answer));
    struct slice written = buf_slice(&body);
    if (getenv("SHOW")) {
        printf("%.*s\n\n", (int)written.len, written.ptr);
    }
    parsed = json_parse(house->ctx.arena, written, &out->body);
    ASSERT(parsed.code == 0);
    out->pos = json_get_string(&out->body, LIT("pos"));
    return OK;
}

const struct json *asked_extension(const struct asked *asked, const char *name)
{
    return json_get(json_get(&asked->body, LIT("extensions")), slice_of(name));
}
