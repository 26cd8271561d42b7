/* The helper processes (myelin-media), which read foreign pictures and pages where these can do no
 * harm: started when first needed, one job each at a time, ended when a job takes too long and
 * when they have done many. */
#pragma once
#include "homeserver/media/media_job.h"
#include "homeserver/service/hs.h"

struct media_sandbox;

/* Finds the program; without it, helpers are not available and that is said once. */
struct media_sandbox *media_sandbox_new(struct hs *hs);
/* Ends what runs; jobs answer ERR_CANCELLED from now on. */
void media_sandbox_stop(struct media_sandbox *sandbox);
void media_sandbox_free(struct media_sandbox **sandbox);
bool media_sandbox_is_there(const struct media_sandbox *sandbox);

/* Runs a job over what the descriptor holds, which stays the caller's; blocks, so only where
 * ctx->may_wait. The answer is in ctx's arena. A helper that died or took too long answers
 * MEDIA_RESULT_NONE. ERR_UNAVAILABLE: too many wait, or no helper can be started. */
struct err media_sandbox_run(struct media_sandbox *sandbox, struct ctx *ctx,
                             const struct media_job *job, int input_fd,
                             struct media_reply *reply_out) MUST_USE;

/* One of those who want the same thing makes it; the others wait until it is made and look again.
 * is_first_out: this caller makes it, and calls media_sandbox_end. ERR_UNAVAILABLE: many wait. */
struct err media_sandbox_begin(struct media_sandbox *sandbox, struct slice what,
                               bool *is_first_out) MUST_USE;
void media_sandbox_end(struct media_sandbox *sandbox, struct slice what);
