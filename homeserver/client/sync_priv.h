/* What the forms of sync share. Spec: client-server, "Syncing". */
#pragma once
#include "homeserver/base/ctx.h"
#include "homeserver/service/ephemeral.h"

/* Of the parameter set_presence; ptr NULL means online. M_INVALID_PARAM. */
struct err cs_sync_presence(struct slice text, enum presence *presence_out) MUST_USE;
/* A client that has the answer to its write finds it in its next sync, though a reply leaves before
 * its change is published: what is under way is waited for, one flush at most, and so are the
 * user's own replies under way, whose changes are held back until then. A poll that may wait
 * is woken instead. ERR_WAITS on a loop when there is something to wait for. */
struct err cs_sync_catch_up(struct hs *hs, const struct ctx *ctx, uint64_t user) MUST_USE;
