/* The parameters of a sync as heap memory, for polls and streams that outlive the request. */
#pragma once
#include "homeserver/sync/sync.h"

struct sync_params {
    char *text_owned;
    uint64_t user;
    struct slice user_id, device_id;
    struct slice filter; /* the parameter; ptr NULL = none */
    struct sync_token since;
    bool initial, full_state, use_state_after;
};

/* Copies what `from` points to; the filter is the parameter as given. */
void sync_params_copy(struct sync_params *params, const struct sync_request *from,
                      struct slice filter);
void sync_params_deinit(struct sync_params *params);
/* Answers them now. `arena` memory of ctx is used for the filter. */
struct err sync_params_respond(struct sync *sync, struct ctx *ctx, const struct sync_params *params,
                               struct buf *body, struct sync_answer *answer_out) MUST_USE;
