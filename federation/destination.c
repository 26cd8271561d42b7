/* From a server name to the places where it may be reached. What .well-known and DNS said is kept
 * for a while; which of several SRV targets comes first is drawn anew for each request.
 * Spec: server-server, "Resolving server names". */
#include "federation/fed_priv.h"

#include "federation/wellknown.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

enum {
    PORT_DEFAULT = 8448,
    HOSTS_CACHED_MAX = 20000,
    SRV_KEPT_MS = 300000,
    SRV_FAILED_KEPT_MS = 30000,
    SRV_MAX = 16,
    WELLKNOWN_BYTES_MAX = 1 << 16,
    WELLKNOWN_TIMEOUT_MS = 10000,
    WELLKNOWN_REDIRECTS_MAX = 8,
    NAME_BYTES_MAX = 256,
    QUESTIONS_MAX = 4, /* .well-known, SRV, SRV; one more when the cache was emptied */
};
static const int64_t stale_ms_max = INT64_C(48) * 3600 * 1000;

struct srv_target {
    uint16_t priority, weight, port;
    uint8_t len;
    char name[NAME_BYTES_MAX];
};

/* What is known about a host name. */
struct host {
    /* .well-known; mono times */
    int64_t wellknown_until_ms, delegated_at_ms;
    unsigned failures;
    uint16_t delegated_len; /* 0 = none */
    char delegated[NAME_BYTES_MAX];
    /* SRV */
    int64_t srv_until_ms;
    bool srv_refused; /* a record says that there is no such service */
    size_t srv_count;
    struct srv_target *srv;
};

struct fed_destinations {
    pthread_mutex_t lock; /* leaf */
    struct map *hosts;    /* lower case host name -> struct host */
};

struct fed_destinations *fed_destinations_new(void)
{
    struct fed_destinations *destinations = mem_alloc(sizeof *destinations);
    pthread_mutex_init(&destinations->lock, NULL);
    destinations->hosts = map_new();
    return destinations;
}

static void clear(struct fed_destinations *destinations)
{
    struct slice name;
    uint64_t value = 0;
    for (size_t at = 0; map_next(destinations->hosts, &at, &name, &value);) {
        struct host *host = (struct host *)(uintptr_t)value;
        mem_free(host->srv);
        mem_free(host);
    }
    map_free(&destinations->hosts);
}

void fed_destinations_free(struct fed_destinations **pointer)
{
    struct fed_destinations *destinations = *pointer;
    if (!destinations) {
        return;
    }
    clear(destinations);
    pthread_mutex_destroy(&destinations->lock);
    mem_free(destinations);
    *pointer = NULL;
}

/* With the lock held; a full cache begins again. */
static struct host *get_host(struct fed_destinations *destinations, struct slice name)
{
    struct host *host = map_get_ptr(destinations->hosts, name);
    if (host) {
        return host;
    }
    if (map_count(destinations->hosts) >= HOSTS_CACHED_MAX) {
        clear(destinations);
        destinations->hosts = map_new();
    }
    host = mem_alloc(sizeof *host);
    map_set_ptr(destinations->hosts, name, host);
    return host;
}

/* --- .well-known --- */

static struct slice copy_delegated(struct ctx *ctx, const struct host *host)
{
    struct slice text = {host->delegated, host->delegated_len};
    return text.len ? arena_copy(ctx->arena, text) : (struct slice){0};
}

/* A server that has delegated keeps its delegation for a time while it cannot be asked. */
static void take_wellknown(struct fed *fed, struct ctx *ctx, struct slice name,
                           const struct wellknown *found)
{
    struct fed_destinations *destinations = fed->destinations;
    int64_t now_ms = now_mono_ms(ctx->now);
    pthread_mutex_lock(&destinations->lock);
    struct host *host = get_host(destinations, name);
    host->wellknown_until_ms = now_ms + found->keep_ms;
    if (found->delegated.ptr) {
        memcpy(host->delegated, found->delegated.ptr, found->delegated.len);
        host->delegated_len = (uint16_t)found->delegated.len;
        host->delegated_at_ms = now_ms;
        host->failures = 0;
    } else {
        host->failures++;
        if (found->is_final || now_ms - host->delegated_at_ms > stale_ms_max) {
            host->delegated_len = 0;
        }
    }
    pthread_mutex_unlock(&destinations->lock);
}

static bool find_wellknown(struct fed *fed, struct ctx *ctx, struct slice name,
                           struct slice *delegated_out, unsigned *failures_out)
{
    struct fed_destinations *destinations = fed->destinations;
    pthread_mutex_lock(&destinations->lock);
    const struct host *host = get_host(destinations, name);
    bool fresh = host->wellknown_until_ms > now_mono_ms(ctx->now);
    *delegated_out = copy_delegated(ctx, host);
    *failures_out = host->failures;
    pthread_mutex_unlock(&destinations->lock);
    return fresh;
}

struct http_fetch_request fed_destination_wellknown(struct fed *fed, struct arena *arena,
                                                    const struct fed_finding *finding)
{
    return (struct http_fetch_request){
        .url = arena_printf(arena, "https://%.*s/.well-known/matrix/server", (int)finding->name.len,
                            finding->name.ptr),
        .timeout_ms = WELLKNOWN_TIMEOUT_MS,
        .body_bytes_max = WELLKNOWN_BYTES_MAX,
        .redirects_max = WELLKNOWN_REDIRECTS_MAX,
        .flags = fed_fetch_flags(fed),
    };
}

struct err fed_destination_take_wellknown(struct fed *fed, struct ctx *ctx,
                                          struct fed_finding *finding, struct err err,
                                          const struct http_fetch_reply *reply)
{
    struct wellknown found = {.keep_ms = wellknown_failure_ms(finding->failures)};
    if (err.code == ERR_CANCELLED) {
        return err;
    }
    if (!err.code) {
        found = wellknown_read(ctx->arena, reply, now_wall_ms(ctx->now), finding->failures);
    }
    take_wellknown(fed, ctx, finding->name, &found);
    return OK;
}

/* --- SRV --- */

static void keep_srv(struct host *host, const struct http_dns_srvs *found)
{
    for (size_t i = 0; i < found->count && host->srv_count < SRV_MAX; i++) {
        const struct http_dns_srv *from = &found->items[i];
        struct srv_target *to = &host->srv[host->srv_count];
        if (from->target.len == 0 || from->target.len >= NAME_BYTES_MAX ||
            !ids_is_server_name(from->target)) {
            continue;
        }
        *to = (struct srv_target){from->priority, from->weight, from->port,
                                  (uint8_t)from->target.len, ""};
        memcpy(to->name, from->target.ptr, from->target.len);
        host->srv_count++;
    }
    /* Spec: RFC 2782: a target of "." says that the service is not offered. */
    host->srv_refused = found->count == 1 && found->items[0].target.len == 0;
}

/* The newer service name first; the deprecated one when there is no such record. */
static const struct slice services[] = {{"_matrix-fed._tcp", 16}, {"_matrix._tcp", 12}};

struct err fed_destination_take_srv(struct fed *fed, struct ctx *ctx, struct fed_finding *finding,
                                    struct err err, const struct http_dns_srvs *srvs)
{
    if (err.code == ERR_CANCELLED) {
        return err;
    }
    if (!err.code && !srvs->count && ++finding->service_index < COUNT_OF(services)) {
        return OK;
    }
    pthread_mutex_lock(&fed->destinations->lock);
    struct host *host = get_host(fed->destinations, finding->name);
    host->srv_until_ms = now_mono_ms(ctx->now) + (err.code ? SRV_FAILED_KEPT_MS : SRV_KEPT_MS);
    if (!err.code) { /* else what was known before stays */
        host->srv_count = 0;
        host->srv = mem_grow(host->srv, SRV_MAX * sizeof *host->srv);
        keep_srv(host, srvs);
    }
    pthread_mutex_unlock(&fed->destinations->lock);
    finding->service_index = 0;
    return OK;
}

struct srv_list {
    struct srv_target *items;
    size_t count;
    bool refused;
};

static bool find_srv(struct fed *fed, struct ctx *ctx, struct slice name, struct srv_list *out)
{
    pthread_mutex_lock(&fed->destinations->lock);
    const struct host *host = get_host(fed->destinations, name);
    bool fresh = host->srv_until_ms > now_mono_ms(ctx->now);
    out->items = arena_array(ctx->arena, host->srv_count, sizeof *out->items);
    out->count = host->srv_count;
    out->refused = host->srv_refused;
    if (host->srv_count) {
        memcpy(out->items, host->srv, host->srv_count * sizeof *out->items);
    }
    pthread_mutex_unlock(&fed->destinations->lock);
    return fresh;
}

static uint32_t random_below(uint32_t bound)
{
    uint32_t value = 0;
    (void)!getrandom(&value, sizeof value, 0);
    return bound ? value % bound : 0;
}

/* Spec: RFC 2782: lowest priority first; among equals one is drawn by weight, those of weight 0
 * hardly ever. */
static size_t draw(const struct srv_target *items, size_t count)
{
    uint16_t lowest = UINT16_MAX;
    uint32_t total = 0;
    for (size_t i = 0; i < count; i++) {
        lowest = items[i].priority < lowest ? items[i].priority : lowest;
    }
    for (size_t i = 0; i < count; i++) {
        total += items[i].priority == lowest ? items[i].weight : 0;
    }
    uint32_t left = random_below(total + 1);
    size_t last = count;
    for (size_t i = 0; i < count; i++) {
        if (items[i].priority != lowest) {
            continue;
        }
        last = i;
        if (items[i].weight >= left) {
            return i;
        }
        left -= items[i].weight;
    }
    return last;
}

/* --- targets --- */

static void add_target(struct ctx *ctx, struct fed_finding *finding, struct slice authority,
                       struct slice host, uint16_t port)
{
    if (finding->count < FED_TARGETS_MAX) {
        finding->targets[finding->count++] = (struct fed_target){
            .authority = authority,
            .host = host,
            .connect_to =
                arena_printf(ctx->arena, "%.*s:%u", (int)host.len, host.ptr, (unsigned)port),
        };
    }
}

/* Steps 3.3 to 3.5, and 4 to 6: SRV, then the default port. Host header and certificate are of the
 * name that was asked for, never of an SRV target. */
static struct err add_by_srv(struct fed *fed, struct ctx *ctx, struct slice name,
                             struct fed_finding *finding)
{
    struct srv_list list;
    if (!find_srv(fed, ctx, name, &list)) {
        finding->need = FED_NEED_SRV;
        finding->name = name;
        finding->service = services[finding->service_index];
        return OK;
    }
    if (list.refused) {
        return err_make(ERR_UNAVAILABLE, "the server's SRV record says that it does not federate");
    }
    if (list.count == 0) {
        add_target(ctx, finding, name, name, PORT_DEFAULT);
    }
    while (list.count) {
        size_t at = draw(list.items, list.count);
        struct slice target = {list.items[at].name, list.items[at].len};
        add_target(ctx, finding, name, arena_copy(ctx->arena, target), list.items[at].port);
        finding->targets[finding->count - 1].is_service = true;
        list.items[at] = list.items[--list.count];
    }
    return OK;
}

static bool is_literal(struct slice host)
{
    struct http_address address;
    return host.ptr[0] == '[' || http_address_parse(host, &address);
}

/* Steps 1 and 2, or 3.1 and 3.2: an address or an explicit port needs no further question. */
static bool add_plain(struct ctx *ctx, struct slice name, struct fed_finding *finding)
{
    uint16_t port = 0;
    struct slice host = ids_server_host(ids_trust_server(name), &port);
    bool has_port = host.len < name.len;
    if (!has_port && !is_literal(host)) {
        return false;
    }
    add_target(ctx, finding, name, host, has_port ? port : PORT_DEFAULT);
    return true;
}

static struct slice lower(struct ctx *ctx, struct slice name)
{
    char *text = arena_alloc(ctx->arena, name.len + 1);
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        text[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    return (struct slice){text, name.len};
}

struct err fed_destination_look(struct fed *fed, struct ctx *ctx, struct fed_finding *finding)
{
    struct slice delegated;
    finding->need = FED_NEED_NOTHING;
    finding->count = 0;
    if (add_plain(ctx, finding->server, finding)) {
        return OK;
    }
    struct slice name = lower(ctx, finding->server);
    if (!find_wellknown(fed, ctx, name, &delegated, &finding->failures)) {
        finding->need = FED_NEED_WELLKNOWN;
        finding->name = name;
        return OK;
    }
    if (delegated.ptr && add_plain(ctx, delegated, finding)) {
        return OK;
    }
    return add_by_srv(fed, ctx, lower(ctx, delegated.ptr ? delegated : name), finding);
}

static struct err ask_wellknown(struct fed *fed, struct ctx *ctx, struct fed_finding *finding)
{
    struct http_fetch_reply reply;
    struct http_fetch_request request = fed_destination_wellknown(fed, ctx->arena, finding);
    struct err err = fed->net.fetch(fed->net.arg, ctx, &request, &reply);
    return fed_destination_take_wellknown(fed, ctx, finding, err, &reply);
}

static struct err ask_srv(struct fed *fed, struct ctx *ctx, struct fed_finding *finding)
{
    struct http_dns_srvs found = {0};
    struct err err = fed->net.find_srv(fed->net.arg, ctx, finding->service, finding->name, &found);
    return fed_destination_take_srv(fed, ctx, finding, err, &found);
}

struct err fed_destination_find(struct fed *fed, struct ctx *ctx, struct fed_finding *finding)
{
    TRY(fed_destination_look(fed, ctx, finding));
    for (size_t i = 0; i < QUESTIONS_MAX && finding->need != FED_NEED_NOTHING; i++) {
        TRY(finding->need == FED_NEED_SRV ? ask_srv(fed, ctx, finding)
                                          : ask_wellknown(fed, ctx, finding));
        TRY(fed_destination_look(fed, ctx, finding));
    }
    return finding->need == FED_NEED_NOTHING
               ? OK
               : err_make(ERR_UNAVAILABLE, "the way to the server could not be found");
}
