/* Builds and wires every object of a server and takes it down in reverse: the only place that knows
 * all of them. Used by main, myelinctl (without a front) and tests (in memory). */
#pragma once
#include "homeserver/service/hs.h"

struct app;
struct http_server;

struct app_options {
    const struct conf *conf;              /* borrowed; outlives the app */
    const struct now *now;                /* NULL = the machine's clocks */
    struct log *log;                      /* may be NULL */
    struct arena *texts;                  /* of errors of app_new; NULL: they are not to be read */
    enum { APP_SERVE, APP_OFFLINE } mode; /* OFFLINE: no listeners */
    enum { APP_ON_DISK, APP_IN_MEMORY } storage;
    int32_t fail_after_calls;                      /* in memory: see store_config */
    enum { APP_READ_WRITE, APP_READ_ONLY } access; /* READ_ONLY: offline, nothing is changed */
};

/* Opens everything. Errors carry a text for the operator. */
struct err app_new(const struct app_options *options, struct app **app_out) MUST_USE;
/* The services, for jobs of the caller. */
struct hs *app_hs(struct app *app);
/* Starts answering requests. */
struct err app_start(struct app *app) MUST_USE;
/* The port of a listener of the configuration, by index. */
uint16_t app_port(const struct app *app, size_t listener);
/* Reads certificates again. */
struct err app_reload(struct app *app) MUST_USE;
/* To be called every few seconds: what was freed since a peak goes back to the system. */
void app_tend(struct app *app);
/* Drains and closes. */
void app_free(struct app **app);
