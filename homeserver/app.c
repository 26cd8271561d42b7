#include "homeserver/app.h"

#include "crypto/signing_key.h"
#include "federation/fed.h"
#include "federation/routes.h"
#include "homeserver/admin/routes.h"
#include "homeserver/appservice/appservice.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/client/routes.h"
#include "homeserver/http/fetch.h"
#include "homeserver/http/selfsigned.h"
#include "homeserver/http/server.h"
#include "homeserver/media/media.h"
#include "homeserver/media/media_sandbox.h"
#include "homeserver/search/search.h"
#include "homeserver/push/push.h"
#include "homeserver/service/delayed.h"
#include "homeserver/service/device_keys.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/media_usage.h"
#include "homeserver/service/memberships.h"
#include "homeserver/service/memory.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/pushers.h"
#include "homeserver/service/purge.h"
#include "homeserver/service/rates.h"
#include "homeserver/service/rendezvous.h"
#include "homeserver/service/requester.h"
#include "homeserver/service/rooms.h"
#include "homeserver/service/to_device.h"
#include "homeserver/service/tokens.h"
#include "homeserver/service/uia.h"
#include "homeserver/service/users.h"
#include "homeserver/sync/sync.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROOMS_CACHED_MAX = 10000, WORK_QUEUE_MAX = 100000, WAITERS = 128 };

struct app {
    struct arena *arena;
    struct app_options options;
    struct now now;
    struct hs hs;
    struct ctx ctx; /* of start and stop */
    struct http_server *server;
    struct fed *fed;
    struct as *as;
    unsigned char vapid_secret[P256_SECRET_BYTES];
    struct http_route_table tables[CS_TABLES_MAX + SS_TABLES_MAX];
    struct http_route_table admin_tables[1];
    size_t table_count;
    struct slice search_folder; /* to be removed; empty = none */
};

static struct slice data_path(struct app *app, const char *name)
{
    struct slice dir = app->options.conf->data_dir;
    return arena_printf(app->arena, "%.*s/%s", (int)dir.len, dir.ptr, name);
}

/* Ids of users and rooms hold the server's name: a store serves the one that it was made for. */
static struct err claim_store(struct app *app)
{
    const struct store_object meta = {.kind = STORE_META};
    struct slice name = app->options.conf->server_name;
    struct slice owner = {0};
    bool found = false;
    TRY(store_get(app->hs.store, &app->ctx, meta, LIT("server_name"), &owner, &found));
    if (found && !slice_eq(owner, name)) {
        return err_publicf(app->arena, ERR_IO,
                           "%.*s: the data are those of the server %.*s, and server_name is %.*s: "
                           "set it back, or give the other server a data_dir of its own",
                           (int)app->options.conf->data_dir.len, app->options.conf->data_dir.ptr,
                           (int)owner.len, owner.ptr, (int)name.len, name.ptr);
    }
    if (found || app->options.access == APP_READ_ONLY) {
        return OK;
    }
    struct store_update *update = store_update_new(&app->ctx, meta);
    store_put(update, LIT("server_name"), name);
    return store_write(app->hs.store, &app->ctx, &update, 1);
}

static struct err open_store(struct app *app)
{
    const struct conf *conf = app->options.conf;
    bool on_disk = app->options.storage == APP_ON_DISK;
    struct store_config config = {.path = on_disk ? data_path(app, "store") : (struct slice){0},
                                  .arena = app->arena,
                                  .cache_bytes = (size_t)conf->memory_store_cache,
                                  .fail_after_calls = app->options.fail_after_calls,
                                  .access = app->options.access == APP_READ_ONLY ? STORE_READ_ONLY
                                                                                 : STORE_READ_WRITE,
                                  .is_tended = app->options.mode != APP_OFFLINE,
                                  .log = app->options.log};
    TRY(store_open(&config, &app->hs.store));
    TRY(claim_store(app));
    if (app->options.access == APP_READ_WRITE) { /* the counter claims positions */
        TRY(positions_open(app->hs.store, &app->ctx, &app->hs.positions));
    }
    app->hs.states = state_store_new(app->hs.store, (size_t)conf->memory_state_cache);
    return OK;
}

static struct err load_keys(struct app *app)
{
    struct slice path = data_path(app, "signing.key");
    if (app->options.storage == APP_IN_MEMORY) {
        path = arena_printf(app->arena, "/tmp/myelin-%ld.key", (long)getpid());
    }
    TRY(signing_key_load(path, &app->hs.signing_key));
    app->hs.signer = signing_key_signer(app->hs.signing_key, ids_trust_server(app->hs.server_name));
    return OK;
}

/* Threads that run at once: those of the configuration, or one for each core and one for a job that
 * waits for the disk; more only take turns. Beside them stand threads for password checks, which
 * pause while they compute or wait. */
static struct workers *new_workers(const struct conf *conf)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t awake = (size_t)(cores > 0 ? cores : 1) + 1;
    awake = conf->threads_workers ? (size_t)conf->threads_workers : awake;
    size_t waiting = (size_t)conf->limits_password_checks + HS_PASSWORD_WAITING_MAX;
    struct workers *workers = workers_new("worker", awake + waiting, WORK_QUEUE_MAX);
    workers_limit_awake(workers, awake);
    return workers;
}

static void build_services(struct app *app)
{
    struct hs *hs = &app->hs;
    hs->users = hs_users_new(hs);
    hs->tokens = hs_tokens_new(hs);
    hs->uia = hs_uia_new(hs);
    hs->rooms = hs_rooms_new(hs, ROOMS_CACHED_MAX);
    hs->keys = hs_keys_new(hs);
    hs->inbox = hs_inbox_new(hs);
    hs->ephemeral = hs_ephemeral_new(hs);
    hs->prefs = hs_prefs_new(hs);
    hs->delayed = hs_delayed_new(hs);
    hs->rendezvous = hs_rendezvous_new(hs->conf->rendezvous_life);
    hs->appservices = hs_appservices_new();
    hs->pushers = hs_pushers_new(hs);
    hs_memberships_hook(hs);
    hs_pushers_hook(hs);
    hs->media_waits = media_waits_new(hs);
    hs->sync = sync_new(hs);
    hs->memory = hs_memory_new(hs->conf, hs->now);
    hs->ratelimit = hs_rates_new(hs->conf);
    hs->stats = stats_new();
    hs_intake_count(hs->stats);
}

static void free_services(struct app *app)
{
    struct hs *hs = &app->hs;
    stats_free(&hs->stats);
    http_ratelimit_free(&hs->ratelimit);
    hs_rendezvous_free(&hs->rendezvous);
    hs_delayed_free(&hs->delayed);
    hs_appservices_free(&hs->appservices);
    hs_pushers_free(&hs->pushers);
    hs_prefs_free(&hs->prefs);
    hs_memory_free(&hs->memory);
    hs_ephemeral_free(&hs->ephemeral);
    hs_inbox_free(&hs->inbox);
    hs_keys_free(&hs->keys);
    hs_rooms_free(&hs->rooms);
    hs_uia_free(&hs->uia);
    hs_tokens_free(&hs->tokens);
    hs_users_free(&hs->users);
}

struct tls_paths {
    struct slice certificate, key;
};

/* The files of the configuration; without them, ones made once in data_dir, so that https works
 * before the operator has a certificate. */
static struct err find_certificate(struct app *app, struct tls_paths *paths_out)
{
    const struct conf *conf = app->options.conf;
    bool needed = false;
    *paths_out = (struct tls_paths){conf->tls_certificate, conf->tls_key};
    for (size_t i = 0; i < conf->listen.count; i++) {
        needed = needed || conf->listen.items[i].tls;
    }
    if (!needed || conf->tls_certificate.len > 0) {
        return OK;
    }
    *paths_out = (struct tls_paths){data_path(app, "tls.crt"), data_path(app, "tls.key")};
    if (access(paths_out->certificate.ptr, R_OK) == 0 && access(paths_out->key.ptr, R_OK) == 0) {
        return OK;
    }
    log_info(app->options.log, "certificate_made", .note = paths_out->certificate);
    return http_selfsigned_make(paths_out->certificate, paths_out->key, conf->server_name);
}

/* The listeners of the configuration in their order, then that of the operator, if any. */
static struct http_listener *collect_listeners(struct app *app, size_t *count_out)
{
    const struct conf *conf = app->options.conf;
    struct http_listener *listeners =
        arena_array(app->arena, conf->listen.count + 1, sizeof *listeners);
    size_t count = 0;
    for (; count < conf->listen.count; count++) {
        const struct conf_listener *from = &conf->listen.items[count];
        listeners[count] =
            (struct http_listener){.host = from->host, .port = from->port, .tls = from->tls};
    }
    if (conf->admin_port) {
        listeners[count++] = (struct http_listener){
            .host = conf->admin_host, .port = (uint16_t)conf->admin_port, .admin = true};
    }
    *count_out = count;
    return listeners;
}

/* What reaches other servers: the fetcher, the threads that may wait for it, federation. */
static struct err build_outbound(struct app *app)
{
    const struct conf *conf = app->options.conf;
    const struct http_fetch_config config = {
        .user_agent = LIT("Myelin/" MYELIN_VERSION),
        .ca_files = conf->tls_trusted_ca.items,
        .ca_file_count = conf->tls_trusted_ca.count,
        .hosts_file = conf->network_hosts_file,
        .dns_server = conf->network_dns_server,
        .proxy = conf->network_proxy,
        .connection_max = (size_t)conf->network_kept_connections,
        .allow = conf->network_allow.items,
        .allow_count = conf->network_allow.count,
        .deny = conf->network_deny.items,
        .deny_count = conf->network_deny.count,
        .log = app->options.log,
        .stats = app->hs.stats,
    };
    TRY(http_fetcher_new(&config, &app->hs.fetcher));
    app->hs.sandbox = media_sandbox_new(&app->hs);
    app->hs.waiters = workers_new("waiter", WAITERS, WORK_QUEUE_MAX);
    TRY(fed_new(&app->hs, &app->fed));
    return as_new(&app->hs, NULL, &app->as);
}

/* The key of web push is made once: subscriptions are bound to it. */
static struct err build_push(struct app *app)
{
    bool on_disk = app->options.storage == APP_ON_DISK;
    if (!app->options.conf->push_enabled) {
        return OK;
    }
    if (on_disk) {
        TRY(p256_load(data_path(app, "vapid.key"), app->vapid_secret));
    } else {
        struct p256_key once;
        TRY(p256_make(&once));
        memcpy(app->vapid_secret, once.secret, sizeof app->vapid_secret);
    }
    app->hs.push = push_new(&app->hs, &(struct push_config){.vapid_secret = app->vapid_secret});
    return OK;
}

static struct err build_server(struct app *app)
{
    const struct conf *conf = app->options.conf;
    struct tls_paths tls;
    size_t listener_count = 0;
    TRY(find_certificate(app, &tls));
    if (conf->admin_port) {
        TRY(admin_token_load(app->arena, data_path(app, "admin.token"), &app->hs.admin_token));
    }
    struct http_listener *listeners = collect_listeners(app, &listener_count);
    app->admin_tables[0] = admin_routes;
    app->table_count = cs_routes_collect(app->tables);
    app->table_count += ss_routes_collect(app->tables + app->table_count);
    struct http_server_config config = {
        .listeners = listeners,
        .listener_count = listener_count,
        .tls_certificate = tls.certificate,
        .tls_key = tls.key,
        .loop_count = (size_t)conf->threads_loops,
        .connection_max = (size_t)conf->limits_connections,
        .connection_max_per_address = (size_t)conf->limits_connections_per_address,
        .idle_timeout_ms = conf->limits_idle_timeout,
        .request_timeout_ms = conf->limits_request_timeout,
        .trusted_proxies = conf->network_trusted_proxies.items,
        .trusted_proxy_count = conf->network_trusted_proxies.count,
        .tables = app->tables,
        .table_count = app->table_count,
        .admin_tables = app->admin_tables,
        .admin_table_count = COUNT_OF(app->admin_tables),
        .app = &app->hs,
        .authenticate = hs_authenticate,
        .lane_of = hs_lane_of_requester,
        .check_rate = hs_check_rate,
        .stats = app->hs.stats,
        .when_durable =
            (void (*)(void *, uint64_t, void (*)(void *, struct err), void *))store_when_durable,
        .store = app->hs.store,
        .workers = app->hs.workers,
        .waiters = app->hs.waiters,
        .now = app->hs.now,
        .log = app->hs.log,
        .texts = app->arena,
    };
    return http_server_new(&config, &app->server);
}

/* The file of a server in memory lies in a folder of its own, until the end. */
static struct err build_search(struct app *app)
{
    struct slice folder = app->options.conf->data_dir;
    if (app->options.storage == APP_IN_MEMORY) {
        char name[] = "/tmp/myelin-search-XXXXXX";
        if (!mkdtemp(name)) {
            return err_make(ERR_IO, "no folder below /tmp can be made");
        }
        app->search_folder = folder = arena_copy(app->arena, slice_of(name));
    }
    return search_new(&app->hs, folder, &app->hs.search);
}

static struct err open_all(struct app *app)
{
    TRY(open_store(app));
    TRY(load_keys(app));
    app->hs.workers = new_workers(app->options.conf);
    if (app->options.access == APP_READ_ONLY) { /* what reads alone */
        app->hs.users = hs_users_new(&app->hs);
        return OK;
    }
    build_services(app);
    if (app->options.mode == APP_OFFLINE) {
        return OK;
    }
    TRY(build_search(app));
    TRY(build_outbound(app));
    TRY(build_push(app));
    return build_server(app);
}

struct err app_new(const struct app_options *options, struct app **app_out)
{
    struct app *app = mem_alloc(sizeof *app);
    app->arena = arena_new();
    app->options = *options;
    app->now = options->now ? *options->now : now_system();
    app->ctx = (struct ctx){.arena = app->arena, .now = &app->now, .log = options->log};
    app->hs = (struct hs){.server_name = options->conf->server_name,
                          .conf = options->conf,
                          .now = &app->now,
                          .log = options->log};
    struct err err = open_all(app);
    if (err.code != 0) {
        err.text = options->texts ? arena_cstr(options->texts, slice_of(err.text)) : "";
        app_free(&app);
        return err;
    }
    *app_out = app;
    return OK;
}

struct hs *app_hs(struct app *app)
{
    return &app->hs;
}

struct err app_start(struct app *app)
{
    struct ctx ctx = {.arena = arena_new(), .now = &app->now, .log = app->options.log};
    struct err err = hs_purges_finish(&app->hs, &ctx);
    err = err.code ? err : hs_deactivations_finish(&app->hs, &ctx);
    err = err.code ? err : hs_media_usage_start(&app->hs, &ctx);
    err = err.code ? err : hs_delayed_start(&app->hs, &ctx);
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    TRY(err);
    TRY(app->as ? as_prepare(app->as) : OK);
    TRY(search_start(app->hs.search));
    TRY(app->hs.push ? push_start(app->hs.push) : OK);
    TRY(http_server_start(app->server));
    TRY(app->as ? as_start(app->as) : OK);
    return fed_start(app->fed);
}

uint16_t app_port(const struct app *app, size_t listener)
{
    return http_server_port(app->server, listener);
}

struct err app_reload(struct app *app)
{
    struct err err = app->as ? as_reload(app->as) : OK;
    TRY(http_server_reload(app->server));
    return err;
}

void app_tend(struct app *app)
{
    hs_memory_tend(app->hs.memory);
    hs_rooms_tend(&app->hs);
    store_tend(app->hs.store, now_mono_ms(&app->now));
}

void app_free(struct app **app)
{
    struct app *a = *app;
    if (!a) {
        return;
    }
    if (a->server) {
        http_server_stop(a->server, a->options.conf->limits_drain_timeout);
    }
    hs_delayed_stop(&a->hs);
    if (a->as) {
        as_stop(a->as);
    }
    if (a->fed) {
        fed_stop(a->fed);
    }
    if (a->hs.push) {
        push_stop(a->hs.push);
    }
    if (a->hs.fetcher) {
        http_fetcher_stop(a->hs.fetcher);
    }
    if (a->hs.sandbox) {
        media_sandbox_stop(a->hs.sandbox);
    }
    workers_join(a->hs.waiters);
    workers_join(a->hs.workers);
    search_stop(a->hs.search);
    as_free(&a->as);
    push_free(&a->hs.push);
    fed_free(&a->fed);
    http_fetcher_free(&a->hs.fetcher);
    media_sandbox_free(&a->hs.sandbox);
    if (a->server) {
        http_server_free(&a->server);
    }
    search_free(&a->hs.search);
    if (a->search_folder.len) {
        search_remove(a->search_folder);
        rmdir(a->search_folder.ptr);
    }
    free_services(a);
    signing_key_free(&a->hs.signing_key);
    positions_close(&a->hs.positions); /* it gives the workers jobs to the end */
    workers_free(&a->hs.waiters);
    workers_free(&a->hs.workers);
    sync_free(&a->hs.sync);
    media_waits_free(&a->hs.media_waits);
    state_store_free(&a->hs.states);
    store_close(&a->hs.store);
    ctx_finish(&a->ctx);
    arena_free(&a->arena);
    mem_free(a);
    *app = NULL;
}
