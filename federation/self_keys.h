/* This server's keys as it publishes them. Spec: server-server, "Publishing Keys". */
#pragma once
#include "homeserver/service/hs.h"

/* Signed by itself. */
struct json self_keys(struct hs *hs, struct ctx *ctx);
