/* Inside media: fetching from the web what anybody named. Each step of a redirection is checked
 * like the first: web addresses only, hosts that the operator lets through, and public addresses
 * (the fetcher sees to those). */
#pragma once
#include "homeserver/media/media.h"

struct media_want {
    struct slice url;    /* as media_web_check gives it */
    struct slice accept; /* media types */
    int64_t bytes_max;
    struct media_upload *upload; /* where the bytes go; NULL: to media_got.body */
};
struct media_got {
    struct slice url; /* where the redirections ended */
    struct slice content_type;
    struct slice body; /* cut at bytes_max */
};

/* The URL without its fragment. M_INVALID_PARAM, M_FORBIDDEN. */
struct err media_web_check(struct hs *hs, struct ctx *ctx, struct slice url,
                           struct slice *url_out) MUST_USE;
/* ERR_UNAVAILABLE and others of http_fetch; any answer that is no success is ERR_UNAVAILABLE too.
 * An upload that is larger: M_TOO_LARGE. */
struct err media_web_get(struct hs *hs, struct ctx *ctx, const struct media_want *want,
                         struct media_got *got_out) MUST_USE;
