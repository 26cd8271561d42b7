/* Requests to the homeserver, one at a time, over libcurl.
 * Spec: client-server, "API Standards". */
#pragma once
#include "homeserver/base/json.h"

struct api;

struct api_options {
    struct slice server; /* base URL */
    struct slice token;  /* empty before login */
    const char *ca_file; /* NULL = the system's certificates */
    enum { API_VERIFY, API_INSECURE } check;
};

struct api_reply {
    int status;
    struct json json;
};

struct err api_new(const struct api_options *options, struct api **api_out) MUST_USE;
void api_free(struct api **api);
/* One request; any status is a reply, ERR_IO when there was none or no JSON. `path` begins after
 * /_matrix/client. The reply lives in the arena. */
struct err api_request(struct api *api, struct arena *arena, const char *method, struct slice path,
                       struct slice body, struct api_reply *reply_out) MUST_USE;
/* The same, where every status but 200 is an error that says what the server said. */
struct err api_call(struct api *api, struct arena *arena, const char *method, struct slice path,
                    struct slice body, struct json *json_out) MUST_USE;
/* A sync that waits up to timeout_ms; watches descriptor `fd` meanwhile (-1 = none) and calls
 * ready(arg) when there is something to read. */
struct api_wait {
    struct slice path;
    int fd;
    void (*ready)(void *arg);
    void *arg;
};
struct err api_wait(struct api *api, struct arena *arena, const struct api_wait *wait,
                    struct api_reply *reply_out) MUST_USE;
struct slice api_encode(struct arena *arena, struct slice text);
