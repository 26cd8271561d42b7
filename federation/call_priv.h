/* Inside of call.c and call_start.c: the parts of a request to another server. */
#pragma once
#include "federation/fed_priv.h"

/* The signature stands for the request however it is sent. */
struct fed_outgoing {
    const struct fed_call *call;
    int64_t began_ms;
    struct http_header headers[3];
    struct http_fetch_request request;
};

struct err fed_call_check(struct fed *fed, struct ctx *ctx, const struct fed_call *call) MUST_USE;
void fed_call_compose(struct fed *fed, struct ctx *ctx, const struct fed_call *call,
                      struct fed_outgoing *out);
/* Whether the target may be used at the addresses that DNS gave. */
struct err fed_call_check_target(const struct fed_target *target,
                                 const struct http_dns_answer *answer) MUST_USE;
/* `addresses` may be NULL: not known. */
void fed_call_aim(struct ctx *ctx, struct fed_outgoing *out, const struct fed_target *target,
                  const struct http_dns_addresses *addresses);
/* What was sent to a connection that was then refused may be sent again elsewhere; after any byte
 * of an answer, or no answer in time, it may have been acted upon. */
bool fed_call_may_go_on(struct err err);
/* What the end of the request says about the server. */
void fed_call_note(struct fed *fed, struct ctx *ctx, const struct fed_outgoing *out, struct err err,
                   const struct http_fetch_reply *reply);
void fed_call_read(struct ctx *ctx, uint32_t flags, const struct http_fetch_reply *reply,
                   struct fed_answer *answer_out);
