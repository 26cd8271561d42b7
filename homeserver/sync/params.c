#include "homeserver/sync/params.h"

#include "homeserver/base/mem.h"

#include <string.h>

static struct slice put(char **at, struct slice s)
{
    struct slice copy = {*at, s.len};
    if (s.ptr == NULL) {
        return s;
    }
    if (s.len > 0) {
        memcpy(*at, s.ptr, s.len);
    }
    *at += s.len;
    return copy;
}

void sync_params_copy(struct sync_params *params, const struct sync_request *from,
                      struct slice filter)
{
    char *at = mem_alloc_raw(from->user_id.len + from->device_id.len + filter.len + 1);
    *params = (struct sync_params){
        .text_owned = at,
        .user = from->user,
        .since = from->since,
        .initial = from->initial,
        .full_state = from->full_state,
        .use_state_after = from->use_state_after,
    };
    params->user_id = put(&at, from->user_id);
    params->device_id = put(&at, from->device_id);
    params->filter = put(&at, filter);
}

void sync_params_deinit(struct sync_params *params)
{
    mem_free(params->text_owned);
    *params = (struct sync_params){0};
}

struct err sync_params_respond(struct sync *sync, struct ctx *ctx, const struct sync_params *params,
                               struct buf *body, struct sync_answer *answer_out)
{
    struct sync_filter filter;
    struct sync_request request = {
        .user = params->user,
        .user_id = params->user_id,
        .device_id = params->device_id,
        .initial = params->initial,
        .since = params->since,
        .filter = &filter,
        .full_state = params->full_state,
        .use_state_after = params->use_state_after,
    };
    TRY(sync_find_filter(sync, ctx, params->user, params->filter, &filter));
    return sync_respond(sync, ctx, &request, body, answer_out);
}
