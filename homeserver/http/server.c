#include "homeserver/http/server.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/http/certificate.h"
#include "homeserver/http/priv.h"
#include "spec/errcodes.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    LOOPS_MAX = 4,
    FDS_RESERVED = 512, /* for the store, outbound HTTP and listeners */
    IDLE_TIMEOUT_MS = 60000,
    REQUEST_TIMEOUT_MS = 30000,
    STOP_POLL_MS = 5,
    STOP_HARD_MS = 2000, /* after the grace: for jobs that still run */
};

/* Raises the soft limit of open files to the hard one; what is left for connections. */
static size_t connection_limit(struct log *log)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    size_t fds = limit.rlim_cur > 1 << 24 ? 1 << 24 : (size_t)limit.rlim_cur;
    size_t left = fds > 2 * FDS_RESERVED ? fds - FDS_RESERVED : fds / 2;
    log_info(log, "connection_limit", .pos = (int64_t)left);
    return left;
}

static void copy_config(struct http_server *server, const struct http_server_config *config)
{
    struct arena *arena = server->arena;
    struct http_server_config *own = &server->config;
    *own = *config;
    struct http_listener *listeners = arena_array(arena, config->listener_count, sizeof *listeners);
    for (size_t i = 0; i < config->listener_count; i++) {
        listeners[i] = config->listeners[i];
        listeners[i].host = arena_copy(arena, config->listeners[i].host);
    }
    struct slice *proxies = arena_array(arena, config->trusted_proxy_count, sizeof *proxies);
    for (size_t i = 0; i < config->trusted_proxy_count; i++) {
        proxies[i] = arena_copy(arena, config->trusted_proxies[i]);
    }
    own->listeners = listeners;
    own->trusted_proxies = proxies;
    own->tls_certificate = arena_copy(arena, config->tls_certificate);
    own->tls_key = arena_copy(arena, config->tls_key);
    own->idle_timeout_ms = config->idle_timeout_ms ? config->idle_timeout_ms : IDLE_TIMEOUT_MS;
    own->request_timeout_ms =
        config->request_timeout_ms ? config->request_timeout_ms : REQUEST_TIMEOUT_MS;
    if (!config->connection_max) {
        own->connection_max = connection_limit(config->log);
    }
}

static size_t default_loops(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > LOOPS_MAX ? LOOPS_MAX : (size_t)cores;
}

static void on_tick(void *arg)
{
    struct http_loop *home = arg;
    home->ticking = false;
    http_wheel_advance(&home->wheel, loop_mono_ms(home->loop));
}

static void before_sleep(void *arg)
{
    struct http_loop *home = arg;
    http_front_run(home->front);
    if (home->wheel.count && !home->ticking) {
        home->ticking = true;
        loop_timer_start(home->tick, HTTP_WHEEL_TICK_MS);
    }
}

static void name_stats(struct stats *stats)
{
    for (uint32_t code = ERR_M_NONE + 1; code < ERR_M_END; code++) {
        stats_family_value(stats, STAT_errors_total, errcode_get(code)->name);
    }
}

/* The text of the error goes with the server. */
static struct err check_certificate(struct http_server *server)
{
    const struct http_server_config *config = &server->config;
    struct slice warning = {0};
    TRY(http_certificate_check(server->arena, config->tls_certificate, config->tls_key,
                               now_wall_ms(config->now), &warning));
    if (warning.len) {
        log_warn(config->log, "certificate", .note = config->tls_certificate, .err = warning);
    }
    return OK;
}

static struct err init_tls(struct http_server *server)
{
    const struct http_server_config *config = &server->config;
    for (size_t i = 0; i < config->listener_count; i++) {
        if (config->listeners[i].tls && !server->tls) {
            TRY(check_certificate(server));
            TRY(http_tls_new(config->tls_certificate, config->tls_key, &server->tls));
        }
    }
    return OK;
}

static struct err init_loop(struct http_server *server, size_t index)
{
    struct http_loop *home = &server->loops[index];
    home->server = server;
    home->index = (uint32_t)index;
    home->hangup_fd = -1;
    home->loop = loop_new();
    http_wheel_init(&home->wheel, loop_mono_ms(home->loop));
    home->tick = loop_timer_new(home->loop, on_tick, home);
    http_accept_init(home);
    home->front = http_front_new(home);
    if (!home->front) {
        return err_make(ERR_IO, "the HTTP library does not start");
    }
    TRY(http_park_init(home));
    loop_before_sleep(home->loop, before_sleep, home);
    return OK;
}

struct err http_server_new(const struct http_server_config *config, struct http_server **server_out)
{
    struct http_server *server = mem_alloc(sizeof *server);
    server->arena = arena_new();
    copy_config(server, config);
    if (getrandom(&server->id_seed, sizeof server->id_seed, 0) < 0) {
        server->id_seed = (uint32_t)getpid();
    }
    name_stats(config->stats);
    server->router = http_router_new(config->tables, config->table_count);
    server->admin_router = http_router_new(config->admin_tables, config->admin_table_count);
    server->addresses = http_addresses_new(config->connection_max_per_address);
    server->ports = arena_array(server->arena, config->listener_count, sizeof *server->ports);
    size_t count = config->loop_count ? config->loop_count : default_loops();
    server->loops = arena_array(server->arena, count, sizeof *server->loops);
    struct err err = OK;
    while (server->loop_count < count && !err.code) {
        err = init_loop(server, server->loop_count++);
    }
    if (!err.code) {
        err = init_tls(server);
    }
    if (!err.code) {
        err = http_accept_listen(server);
    }
    *server_out = server;
    if (err.code) {
        err.text = config->texts ? arena_cstr(config->texts, slice_of(err.text)) : "";
        http_server_free(server_out);
    }
    return err;
}

struct err http_server_reload(struct http_server *server)
{
    if (!server->tls) {
        return OK;
    }
    TRY(check_certificate(server));
    return http_tls_reload(server->tls, server->config.tls_certificate, server->config.tls_key);
}

uint16_t http_server_port(const struct http_server *server, size_t listener)
{
    return server->ports[listener];
}

static void *run_loop(void *arg)
{
    struct http_loop *home = arg;
    loop_run(home->loop);
    return NULL;
}

struct err http_server_start(struct http_server *server)
{
    sigset_t pipe;
    sigset_t old;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &old); /* the loops inherit it */
    for (size_t i = 0; i < server->loop_count; i++) {
        struct http_loop *home = &server->loops[i];
        char title[16];
        http_accept_start(home);
        int failed = pthread_create(&home->thread, NULL, run_loop, home);
        ASSERT(failed == 0);
        snprintf(title, sizeof title, "http-%zu", i % 1000);
        pthread_setname_np(home->thread, title);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    server->started = true;
    return OK;
}

static void on_drain(void *arg)
{
    struct http_loop *home = arg;
    home->draining = true;
    http_accept_stop(home);
    http_ws_drain(home);
    struct http_connection *next = NULL;
    for (struct http_connection *at = home->connections; at; at = next) {
        next = at->next;
        if (at->phase == HTTP_PHASE_PARKED) {
            http_park_expire(at);
        } else if (at->phase == HTTP_PHASE_IDLE) {
            http_front_cut(at, OK);
        }
    }
}

static void on_hard_stop(void *arg)
{
    struct http_loop *home = arg;
    http_ws_cut(home);
    http_tls_cut(home);
    for (struct http_connection *at = home->connections; at; at = at->next) {
        http_front_cut(at, OK);
    }
}

static void post_to_loops(struct http_server *server, void (*fn)(void *arg))
{
    for (size_t i = 0; i < server->loop_count; i++) {
        struct http_loop *home = &server->loops[i];
        struct loop_task *task = fn == on_drain ? &home->drain_task : &home->hard_task;
        *task = (struct loop_task){.fn = fn, .arg = home};
        loop_post(home->loop, task);
    }
}

static bool is_quiet(struct http_server *server)
{
    return atomic_load(&server->running) == 0 && atomic_load(&server->connection_count) == 0 &&
           atomic_load(&server->sockets) == 0 && atomic_load(&server->pipes) == 0;
}

static void wait_quiet(struct http_server *server, int64_t at_most_ms)
{
    int64_t until_us = now_mono_us() + at_most_ms * 1000;
    while (!is_quiet(server) && now_mono_us() < until_us) {
        nanosleep(&(struct timespec){.tv_nsec = STOP_POLL_MS * 1000000L}, NULL);
    }
}

void http_server_stop(struct http_server *server, int64_t grace_ms)
{
    if (!server->started || atomic_exchange(&server->draining, true)) {
        return;
    }
    post_to_loops(server, on_drain);
    wait_quiet(server, grace_ms);
    if (!is_quiet(server)) {
        log_warn(server->config.log, "drain_incomplete",
                 .pos = (int64_t)atomic_load(&server->connection_count));
        post_to_loops(server, on_hard_stop);
        wait_quiet(server, STOP_HARD_MS);
    }
}

/* What is still suspended has lost its workers; MHD wants it resumed before it stops. */
static void free_loop(struct http_loop *home)
{
    http_accept_stop(home);
    for (struct http_connection *at = home->connections; at; at = at->next) {
        if (at->phase == HTTP_PHASE_PARKED || at->phase == HTTP_PHASE_WORK) {
            http_front_resume(at);
        }
    }
    http_tls_cut(home);
    http_front_free(&home->front);
    http_park_deinit(home);
    loop_timer_free(&home->tick);
    while (home->arena_count) {
        arena_free(&home->arenas[--home->arena_count]);
    }
    loop_free(&home->loop);
}

void http_server_free(struct http_server **pointer)
{
    struct http_server *server = *pointer;
    if (!server) {
        return;
    }
    for (size_t i = 0; server->started && i < server->loop_count; i++) {
        loop_stop(server->loops[i].loop);
        pthread_join(server->loops[i].thread, NULL);
    }
    for (size_t i = 0; i < server->loop_count; i++) {
        free_loop(&server->loops[i]);
    }
    http_router_free(&server->router);
    http_router_free(&server->admin_router);
    http_addresses_free(&server->addresses);
    http_tls_free(&server->tls);
    arena_free(&server->arena);
    mem_free(server);
    *pointer = NULL;
}
