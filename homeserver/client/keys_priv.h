/* What the handlers of keys share. */
#pragma once
#include "homeserver/client/routes_priv.h"

/* cross_signing.c */
struct err cs_device_signing_upload(void *app, struct ctx *ctx, const struct http_request *request,
                                    struct http_reply *reply) MUST_USE;
struct err cs_signatures_upload(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply) MUST_USE;
