#include "homeserver/http/fetch.h"

#include "homeserver/base/loop.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/http/authorities.h"
#include "homeserver/http/cidr.h"
#include "homeserver/http/dns.h"
#include "homeserver/http/hosts.h"
#include "homeserver/http/url.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum {
    QUEUE_BYTES_MAX = 1 << 18, /* received and not yet taken by the caller */
    HEADER_BYTES_MAX = 1 << 16,
    HEADERS_MAX = 100,
    TIMEOUT_MS_DEFAULT = 30000,
    CONNECT_TIMEOUT_MS = 10000,
    BODY_BYTES_DEFAULT = 1 << 24,
    CONNECTIONS_DEFAULT = 1024,
};

struct http_fetcher {
    struct http_fetch_config config; /* slices in the arena */
    struct arena *arena;
    struct http_cidr *allow, *deny;
    struct http_hosts *hosts;
    struct http_dns *dns;
    struct http_authorities authorities;
    struct loop *loop;
    struct loop_timer *timer;
    CURLM *multi;
    pthread_t thread;
    struct transfer *transfers; /* running, of the loop */
    struct loop_task stop_task;
    _Atomic bool stopping;
};

/* One request; lives on the caller's stack until the loop has let go of it. */
struct transfer {
    struct http_fetcher *fetcher;
    const struct http_fetch_request *request;
    struct transfer *next, *prev;
    CURL *easy;
    struct curl_slist *headers, *connect_to, *resolved;
    struct loop_task start_task, resume_task, cancel_task;
    struct buf head; /* header lines of the last answer */
    size_t received;
    bool any_address;
    struct http_address named[HTTP_HOSTS_ADDRESSES_MAX]; /* the operator says where the host is */
    size_t named_count;
    bool denied, distrusted, too_large; /* why the transfer was broken off */
    /* protected by mutex (leaf lock) */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct buf queue;
    unsigned tasks; /* posted to the loop and not yet run */
    CURLcode code;
    bool success; /* the status is 2xx */
    bool paused, cancelled, done;
};

/* --- address checks --- */

static bool in_ranges(const struct http_cidr *ranges, size_t count,
                      const struct http_address *address)
{
    for (size_t i = 0; i < count; i++) {
        if (http_cidr_contains(&ranges[i], address)) {
            return true;
        }
    }
    return false;
}

static bool may_reach(struct transfer *transfer, const struct http_address *address)
{
    const struct http_fetcher *fetcher = transfer->fetcher;
    for (size_t i = 0; i < transfer->named_count; i++) {
        if (memcmp(&transfer->named[i], address, sizeof *address) == 0) {
            return true;
        }
    }
    if (in_ranges(fetcher->allow, fetcher->config.allow_count, address)) {
        return true;
    }
    bool denied = in_ranges(fetcher->deny, fetcher->config.deny_count, address) ||
                  (!transfer->any_address && !http_address_is_public(address));
    transfer->denied |= denied;
    return !denied;
}

static bool address_of(const struct curl_sockaddr *from, struct http_address *address_out)
{
    *address_out = (struct http_address){{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}};
    if (from->family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&from->addr;
        memcpy(address_out->bytes + 12, &in->sin_addr, 4);
        return true;
    }
    if (from->family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&from->addr;
        memcpy(address_out->bytes, &in6->sin6_addr, 16);
        return true;
    }
    return false;
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct http_address address;
    (void)purpose;
    if (!address_of(to, &address) || !may_reach(arg, &address)) {
        return CURL_SOCKET_BAD;
    }
    return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* The library checks the certificate's names; whether an authority vouches for it is checked here,
 * before each request, unless the request goes out without TLS. */
static bool is_trusted(struct transfer *transfer)
{
    const char *url = NULL;
    struct curl_tlssessioninfo *tls = NULL;
    curl_easy_getinfo(transfer->easy, CURLINFO_EFFECTIVE_URL, &url);
    bool plain = slice_eq_nocase(slice_sub(slice_of(url), 0, 7), LIT("http://"));
    if (plain || transfer->fetcher->config.skip_tls_checks) {
        return true;
    }
    curl_easy_getinfo(transfer->easy, CURLINFO_TLS_SSL_PTR, &tls);
    bool good = tls && tls->backend == CURLSSLBACKEND_GNUTLS && tls->internals &&
                http_authorities_vouch(&transfer->fetcher->authorities, tls->internals);
    transfer->distrusted |= !good;
    return good;
}

/* A reused connection was opened for another request, perhaps one that was allowed more. */
static int before_request(void *arg, char *remote, char *local, int remote_port, int local_port)
{
    struct http_address address;
    (void)local;
    (void)remote_port;
    (void)local_port;
    bool good = http_address_parse(slice_of(remote), &address) && may_reach(arg, &address) &&
                is_trusted(arg);
    return good ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

/* --- on the loop --- */

static size_t on_body(char *bytes, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    const struct http_fetch_request *request = transfer->request;
    size_t len = size * count;
    size_t max = request->body_bytes_max ? request->body_bytes_max : BODY_BYTES_DEFAULT;
    pthread_mutex_lock(&transfer->mutex);
    size_t taken = 0;
    if (transfer->received + len > max) {
        transfer->too_large = true;
    } else if (transfer->queue.len && transfer->queue.len + len > QUEUE_BYTES_MAX) {
        transfer->paused = true;
        taken = CURL_WRITEFUNC_PAUSE;
    } else if (!transfer->cancelled) {
        long status = 0;
        curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
        transfer->success = status / 100 == 2;
        buf_add(&transfer->queue, (struct slice){bytes, len});
        transfer->received += len;
        taken = len;
    }
    pthread_cond_signal(&transfer->changed);
    pthread_mutex_unlock(&transfer->mutex);
    return taken;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    struct slice line = {bytes, size * count};
    if (slice_has_prefix(line, LIT("HTTP/"))) { /* a further answer: only the last one counts */
        buf_clear(&transfer->head);
    }
    buf_add(&transfer->head, line);
    transfer->too_large |= transfer->head.overflow; /* headers without an end */
    return transfer->head.overflow ? 0 : line.len;
}

static void finish(struct transfer *transfer, CURLcode code)
{
    struct http_fetcher *fetcher = transfer->fetcher;
    curl_multi_remove_handle(fetcher->multi, transfer->easy);
    if (transfer->prev) {
        transfer->prev->next = transfer->next;
    } else {
        fetcher->transfers = transfer->next;
    }
    if (transfer->next) {
        transfer->next->prev = transfer->prev;
    }
    pthread_mutex_lock(&transfer->mutex);
    transfer->code = code;
    transfer->done = true;
    pthread_cond_signal(&transfer->changed);
    pthread_mutex_unlock(&transfer->mutex);
}

static void collect_done(struct http_fetcher *fetcher)
{
    int left = 0;
    for (CURLMsg *message = curl_multi_info_read(fetcher->multi, &left); message;
         message = curl_multi_info_read(fetcher->multi, &left)) {
        struct transfer *transfer = NULL;
        CURLcode code = message->data.result;
        if (message->msg == CURLMSG_DONE) {
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
            finish(transfer, code);
        }
    }
}

static void act(struct http_fetcher *fetcher, curl_socket_t fd, int events)
{
    int running = 0;
    curl_multi_socket_action(fetcher->multi, fd, events, &running);
    collect_done(fetcher);
}

struct socket_watch {
    struct http_fetcher *fetcher;
    struct loop_watch *watch;
    curl_socket_t fd;
};

static void on_socket_event(void *arg, unsigned events)
{
    struct socket_watch *socket_watch = arg;
    int mask =
        (events & LOOP_READ ? CURL_CSELECT_IN : 0) | (events & LOOP_WRITE ? CURL_CSELECT_OUT : 0);
    act(socket_watch->fetcher, socket_watch->fd, mask);
}

static int on_socket_interest(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct http_fetcher *fetcher = arg;
    struct socket_watch *socket_watch = known;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (socket_watch) {
            loop_watch_free(&socket_watch->watch);
            mem_free(socket_watch);
            curl_multi_assign(fetcher->multi, fd, NULL);
        }
        return 0;
    }
    if (!socket_watch) {
        socket_watch = mem_alloc(sizeof *socket_watch);
        *socket_watch = (struct socket_watch){.fetcher = fetcher, .fd = fd};
        socket_watch->watch = loop_watch_new(fetcher->loop, fd, on_socket_event, socket_watch);
        curl_multi_assign(fetcher->multi, fd, socket_watch);
    }
    loop_watch_set(socket_watch->watch,
                   (what & CURL_POLL_IN ? LOOP_READ : 0) | (what & CURL_POLL_OUT ? LOOP_WRITE : 0));
    return 0;
}

static void on_timer(void *arg)
{
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer_interest(CURLM *multi, long timeout_ms, void *arg)
{
    struct http_fetcher *fetcher = arg;
    (void)multi;
    if (timeout_ms < 0) {
        loop_timer_stop(fetcher->timer);
    } else {
        loop_timer_start(fetcher->timer, timeout_ms);
    }
    return 0;
}

static void task_done(struct transfer *transfer)
{
    pthread_mutex_lock(&transfer->mutex);
    transfer->tasks--;
    pthread_cond_signal(&transfer->changed);
    pthread_mutex_unlock(&transfer->mutex);
}

static void on_start(void *arg)
{
    struct transfer *transfer = arg;
    struct http_fetcher *fetcher = transfer->fetcher;
    transfer->next = fetcher->transfers;
    if (transfer->next) {
        transfer->next->prev = transfer;
    }
    fetcher->transfers = transfer;
    curl_multi_add_handle(fetcher->multi, transfer->easy);
    if (atomic_load(&fetcher->stopping)) {
        finish(transfer, CURLE_ABORTED_BY_CALLBACK);
    }
    task_done(transfer);
}

static bool is_done(struct transfer *transfer)
{
    pthread_mutex_lock(&transfer->mutex);
    bool done = transfer->done;
    pthread_mutex_unlock(&transfer->mutex);
    return done;
}

static void on_resume(void *arg)
{
    struct transfer *transfer = arg;
    struct http_fetcher *fetcher = transfer->fetcher;
    if (!is_done(transfer)) {
        curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
        act(fetcher, CURL_SOCKET_TIMEOUT, 0);
    }
    task_done(transfer);
}

static void on_cancel(void *arg)
{
    struct transfer *transfer = arg;
    if (!is_done(transfer)) {
        finish(transfer, CURLE_ABORTED_BY_CALLBACK);
    }
    task_done(transfer);
}

static void on_stop(void *arg)
{
    struct http_fetcher *fetcher = arg;
    while (fetcher->transfers) {
        finish(fetcher->transfers, CURLE_ABORTED_BY_CALLBACK);
    }
}

static void *run_thread(void *arg)
{
    struct http_fetcher *fetcher = arg;
    loop_run(fetcher->loop);
    return NULL;
}

/* --- life --- */

static struct err parse_ranges(struct http_fetcher *fetcher, const struct slice *texts,
                               size_t count, struct http_cidr **ranges_out)
{
    *ranges_out = arena_array(fetcher->arena, count, sizeof **ranges_out);
    for (size_t i = 0; i < count; i++) {
        if (!http_cidr_parse(texts[i], &(*ranges_out)[i])) {
            return err_public(ERR_IO, "an address range of outbound requests is malformed");
        }
    }
    return OK;
}

static void copy_config(struct http_fetcher *fetcher, const struct http_fetch_config *config)
{
    struct arena *arena = fetcher->arena;
    struct http_fetch_override *overrides =
        arena_array(arena, config->override_count, sizeof *overrides);
    fetcher->config = *config;
    for (size_t i = 0; i < config->override_count; i++) {
        overrides[i].host = arena_copy(arena, config->overrides[i].host);
        overrides[i].address = arena_copy(arena, config->overrides[i].address);
    }
    fetcher->config.overrides = overrides;
    fetcher->config.user_agent = arena_copy(arena, config->user_agent);
    fetcher->config.dns_server = arena_copy(arena, config->dns_server);
    fetcher->config.proxy = arena_copy(arena, config->proxy);
}

static void start(struct http_fetcher *fetcher)
{
    long connections = (long)(fetcher->config.connection_max ? fetcher->config.connection_max
                                                             : CONNECTIONS_DEFAULT);
    sigset_t pipe;
    sigset_t old;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    fetcher->multi = curl_multi_init();
    ASSERT(fetcher->multi);
    curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, on_socket_interest);
    curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
    curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, on_timer_interest);
    curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
    curl_multi_setopt(fetcher->multi, CURLMOPT_MAXCONNECTS, connections);
    fetcher->loop = loop_new();
    fetcher->timer = loop_timer_new(fetcher->loop, on_timer, fetcher);
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &old);
    int failed = pthread_create(&fetcher->thread, NULL, run_thread, fetcher);
    ASSERT(failed == 0);
    pthread_setname_np(fetcher->thread, "fetch");
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

struct err http_fetcher_new(const struct http_fetch_config *config,
                            struct http_fetcher **fetcher_out)
{
    struct http_fetcher *fetcher = mem_alloc(sizeof *fetcher);
    fetcher->arena = arena_new();
    copy_config(fetcher, config);
    struct err err = parse_ranges(fetcher, config->allow, config->allow_count, &fetcher->allow);
    if (!err.code) {
        err = parse_ranges(fetcher, config->deny, config->deny_count, &fetcher->deny);
    }
    if (!err.code) {
        err = http_authorities_init(&fetcher->authorities, config->ca_files, config->ca_file_count);
    }
    if (err.code) {
        arena_free(&fetcher->arena);
        mem_free(fetcher);
        return err;
    }
    fetcher->hosts = http_hosts_new(config->hosts_file);
    fetcher->dns = http_dns_new(config->dns_server);
    start(fetcher);
    *fetcher_out = fetcher;
    return OK;
}

void http_fetcher_stop(struct http_fetcher *fetcher)
{
    if (!atomic_exchange(&fetcher->stopping, true)) {
        fetcher->stop_task = (struct loop_task){.fn = on_stop, .arg = fetcher};
        loop_post(fetcher->loop, &fetcher->stop_task);
    }
}

void http_fetcher_free(struct http_fetcher **pointer)
{
    struct http_fetcher *fetcher = *pointer;
    if (!fetcher) {
        return;
    }
    http_fetcher_stop(fetcher);
    loop_stop(fetcher->loop);
    pthread_join(fetcher->thread, NULL);
    curl_multi_cleanup(fetcher->multi); /* closes kept connections: their watches go first */
    loop_timer_free(&fetcher->timer);
    loop_free(&fetcher->loop);
    curl_global_cleanup();
    http_dns_free(&fetcher->dns);
    http_hosts_free(&fetcher->hosts);
    http_authorities_deinit(&fetcher->authorities);
    arena_free(&fetcher->arena);
    mem_free(fetcher);
    *pointer = NULL;
}

struct err http_fetch_find_srv(struct http_fetcher *fetcher, struct ctx *ctx, struct slice service,
                               struct slice host, struct http_dns_srvs *srvs_out)
{
    struct slice found[HTTP_HOSTS_ADDRESSES_MAX];
    *srvs_out = (struct http_dns_srvs){0};
    if (http_hosts_find(fetcher->hosts, ctx->arena, host, found)) {
        return OK;
    }
    struct slice parts = arena_concat(ctx->arena, service, LIT("."));
    return http_dns_find_srv(fetcher->dns, ctx, arena_concat(ctx->arena, parts, host), srvs_out);
}

/* --- the call --- */

/* Only the very address that the operator named is allowed by that; a redirect leads elsewhere. */
static void allow_named(struct transfer *transfer, struct slice host)
{
    struct http_address address;
    if (!http_url_is_literal(host, &address)) {
        transfer->any_address = true; /* a name, of the operator's choice too */
    } else if (transfer->named_count < COUNT_OF(transfer->named)) {
        transfer->named[transfer->named_count++] = address;
    }
}

/* Addresses that are known go to libcurl's cache of names, for this transfer's host and port. A
 * literal needs none. */
static void set_addresses(struct transfer *transfer, struct ctx *ctx, struct slice host,
                          struct slice port)
{
    struct arena *arena = ctx->arena;
    const struct http_fetch_request *request = transfer->request;
    struct slice found[HTTP_HOSTS_ADDRESSES_MAX];
    size_t count = http_hosts_find(transfer->fetcher->hosts, arena, host, found);
    struct http_address literal;
    for (size_t i = 0; i < count; i++) {
        allow_named(transfer, found[i]);
    }
    if (count == 0 && !http_url_is_literal(host, &literal)) {
        count = http_dns_choose(transfer->fetcher->dns, ctx, host, found, COUNT_OF(found));
    }
    if (count == 0) {
        return;
    }
    if (port.len < 2) {
        port = slice_has_prefix(request->url, LIT("http://")) ? LIT(":80") : LIT(":443");
    }
    struct slice rule =
        arena_printf(arena, "+%.*s%.*s", (int)host.len, host.ptr, (int)port.len, port.ptr);
    for (size_t i = 0; i < count; i++) {
        struct slice part = arena_concat(arena, i == 0 ? LIT(":") : LIT(","), found[i]);
        rule = arena_concat(arena, rule, part);
    }
    transfer->resolved = curl_slist_append(NULL, arena_cstr(arena, rule));
    curl_easy_setopt(transfer->easy, CURLOPT_RESOLVE, transfer->resolved);
}

/* libcurl's form is HOST:PORT:CONNECT-HOST:CONNECT-PORT; an empty port means any, or unchanged. */
static void set_target(struct transfer *transfer, struct ctx *ctx)
{
    struct arena *arena = ctx->arena;
    const struct http_fetch_request *request = transfer->request;
    const struct http_fetch_config *config = &transfer->fetcher->config;
    struct slice from = http_url_without_port(http_url_authority(request->url));
    struct slice target = request->connect_to.len ? request->connect_to : from;
    struct slice host = http_url_without_port(target);
    struct slice port = slice_from(target, host.len); /* with its colon */
    bool replaced = request->connect_to.len != 0;
    for (size_t i = 0; i < config->override_count; i++) {
        if (slice_eq_nocase(config->overrides[i].host, host)) {
            host = http_url_without_port(config->overrides[i].address);
            struct slice own = slice_from(config->overrides[i].address, host.len);
            port = own.len ? own : port;
            allow_named(transfer, host);
            replaced = true;
            break;
        }
    }
    struct slice url_port = slice_from(http_url_authority(request->url), from.len);
    set_addresses(transfer, ctx, host, port.len > 1 ? port : url_port);
    if (replaced) {
        port = port.len ? port : LIT(":");
        struct slice rule = arena_printf(arena, "%.*s::%.*s%.*s", (int)from.len, from.ptr,
                                         (int)host.len, host.ptr, (int)port.len, port.ptr);
        transfer->connect_to = curl_slist_append(NULL, arena_cstr(arena, rule));
        curl_easy_setopt(transfer->easy, CURLOPT_CONNECT_TO, transfer->connect_to);
    }
}

static void set_headers(struct transfer *transfer, struct arena *arena)
{
    const struct http_fetch_request *request = transfer->request;
    transfer->headers = curl_slist_append(NULL, "Expect:");
    for (size_t i = 0; i < request->header_count; i++) {
        struct slice line = arena_concat(arena, request->headers[i].name, LIT(": "));
        line = arena_concat(arena, line, request->headers[i].value);
        transfer->headers = curl_slist_append(transfer->headers, line.ptr);
    }
    curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers);
}

static void set_method(struct transfer *transfer, struct arena *arena)
{
    const struct http_fetch_request *request = transfer->request;
    CURL *easy = transfer->easy;
    if (request->body.ptr) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body.ptr);
    }
    if (slice_eq(request->method, LIT("HEAD"))) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (request->method.len) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, arena_cstr(arena, request->method));
    } else if (request->body.ptr) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "GET");
    }
}

static void set_trust(struct transfer *transfer)
{
    const struct http_fetch_config *config = &transfer->fetcher->config;
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L); /* is_trusted does this part */
    curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
    curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    if (config->skip_tls_checks) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    curl_easy_setopt(easy, CURLOPT_PROXY, config->proxy.len ? config->proxy.ptr : "");
    curl_easy_setopt(easy, CURLOPT_USERAGENT,
                     config->user_agent.len ? config->user_agent.ptr : "Myelin");
}

static void set_callbacks(struct transfer *transfer)
{
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_request);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
}

static int64_t timeout_of(struct ctx *ctx, const struct http_fetch_request *request)
{
    int64_t timeout_ms = request->timeout_ms ? request->timeout_ms : TIMEOUT_MS_DEFAULT;
    if (ctx->deadline_mono_ms) {
        int64_t left_ms = ctx->deadline_mono_ms - now_mono_ms(ctx->now);
        timeout_ms = left_ms < timeout_ms ? left_ms : timeout_ms;
    }
    return timeout_ms;
}

static void set_options(struct transfer *transfer, struct ctx *ctx, int64_t timeout_ms)
{
    const struct http_fetch_request *request = transfer->request;
    CURL *easy = transfer->easy;
    bool secure = (request->flags & HTTP_FETCH_HTTPS_ONLY) != 0;
    long connect_ms = timeout_ms < CONNECT_TIMEOUT_MS ? (long)timeout_ms : CONNECT_TIMEOUT_MS;
    curl_easy_setopt(easy, CURLOPT_URL, arena_cstr(ctx->arena, request->url));
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, request->redirects_max ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)request->redirects_max);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    transfer->any_address = (request->flags & HTTP_FETCH_ANY_ADDRESS) != 0;
    set_target(transfer, ctx);
    set_headers(transfer, ctx->arena);
    set_method(transfer, ctx->arena);
    set_trust(transfer);
    set_callbacks(transfer);
}

/* Posts with the mutex held. */
static void post(struct transfer *transfer, struct loop_task *task, void (*fn)(void *arg))
{
    *task = (struct loop_task){.fn = fn, .arg = transfer};
    transfer->tasks++;
    loop_post(transfer->fetcher->loop, task);
}

/* Takes pieces off the queue until the loop has let go of the transfer. */
static struct err consume(struct transfer *transfer, struct buf *body)
{
    const struct http_fetch_request *request = transfer->request;
    struct err err = OK;
    pthread_mutex_lock(&transfer->mutex);
    post(transfer, &transfer->start_task, on_start);
    while (transfer->queue.len || !transfer->done || transfer->tasks) {
        if (!transfer->queue.len) {
            pthread_cond_wait(&transfer->changed, &transfer->mutex);
            continue;
        }
        struct buf piece = transfer->queue;
        bool success = transfer->success;
        buf_init(&transfer->queue, SIZE_MAX / 2);
        if (transfer->paused) {
            transfer->paused = false;
            post(transfer, &transfer->resume_task, on_resume);
        }
        pthread_mutex_unlock(&transfer->mutex);
        if (!err.code && request->sink && success) {
            err = request->sink(request->sink_arg, buf_slice(&piece));
        } else if (!err.code) {
            buf_add(body, buf_slice(&piece));
        }
        buf_deinit(&piece);
        pthread_mutex_lock(&transfer->mutex);
        if (err.code && !transfer->cancelled) {
            transfer->cancelled = true;
            post(transfer, &transfer->cancel_task, on_cancel);
        }
    }
    pthread_mutex_unlock(&transfer->mutex);
    return err;
}

static struct err result_of(const struct transfer *transfer)
{
    if (transfer->code == CURLE_OK) {
        return OK;
    }
    if (transfer->too_large) {
        return err_make(ERR_LIMIT, "the answer is larger than allowed");
    }
    if (transfer->denied) {
        return err_make(ERR_UNAVAILABLE, "the address is not allowed");
    }
    if (transfer->distrusted) {
        return err_make(ERR_UNAVAILABLE, "no trusted authority vouches for the certificate");
    }
    if (atomic_load(&transfer->fetcher->stopping)) {
        return err_make(ERR_CANCELLED, "the server stops");
    }
    if (transfer->code == CURLE_OPERATION_TIMEDOUT) {
        return err_make(ERR_TIMEOUT, "no answer in time");
    }
    return err_make(ERR_UNAVAILABLE, curl_easy_strerror(transfer->code)); /* static text */
}

static void parse_head(struct transfer *transfer, struct arena *arena,
                       struct http_fetch_reply *reply)
{
    struct slice rest = arena_copy(arena, buf_slice(&transfer->head));
    long status = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    reply->status = (int)status;
    reply->headers = arena_array(arena, HEADERS_MAX, sizeof *reply->headers);
    while (rest.len && reply->header_count < HEADERS_MAX) {
        struct slice line;
        struct slice name;
        rest = slice_cut(rest, '\n', &line);
        struct slice value = slice_cut(line, ':', &name);
        if (value.ptr && !slice_has_prefix(line, LIT("HTTP/"))) {
            reply->headers[reply->header_count++] =
                (struct http_header){slice_trim(name), slice_trim(value)};
        }
    }
    reply->content_type = http_fetch_header(reply, LIT("Content-Type"));
}

static bool is_clean(const struct http_fetch_request *request)
{
    for (size_t i = 0; i < request->header_count; i++) {
        struct slice value = request->headers[i].value;
        if (slice_find(value, '\n') < value.len || slice_find(value, '\r') < value.len ||
            slice_find(value, '\0') < value.len) {
            return false;
        }
    }
    return slice_find(request->url, '\0') == request->url.len;
}

struct err http_fetch(struct http_fetcher *fetcher, struct ctx *ctx,
                      const struct http_fetch_request *request, struct http_fetch_reply *reply_out)
{
    int64_t timeout_ms = timeout_of(ctx, request);
    struct transfer transfer = {.fetcher = fetcher, .request = request};
    struct buf body;
    *reply_out = (struct http_fetch_reply){0};
    if (atomic_load(&fetcher->stopping)) {
        return err_make(ERR_CANCELLED, "the server stops");
    }
    if (timeout_ms <= 0) {
        return err_make(ERR_TIMEOUT, "the deadline has passed");
    }
    if (!is_clean(request)) {
        return err_make(ERR_SYNTAX, "a header or the URL of an outbound request is malformed");
    }
    transfer.easy = curl_easy_init();
    ASSERT(transfer.easy);
    pthread_mutex_init(&transfer.mutex, NULL);
    pthread_cond_init(&transfer.changed, NULL);
    buf_init(&transfer.queue, SIZE_MAX / 2);
    buf_init(&transfer.head, HEADER_BYTES_MAX);
    buf_init_arena(&body, ctx->arena, SIZE_MAX / 2);
    set_options(&transfer, ctx, timeout_ms);
    struct err err = consume(&transfer, &body);
    err = err.code ? err : result_of(&transfer);
    stats_add(fetcher->config.stats, STAT_http_fetches_total, 1);
    parse_head(&transfer, ctx->arena, reply_out);
    if (err.code) {
        stats_add(fetcher->config.stats, STAT_http_fetch_failures_total, 1);
    } else {
        reply_out->body = buf_slice(&body);
    }
    curl_easy_cleanup(transfer.easy);
    curl_slist_free_all(transfer.headers);
    curl_slist_free_all(transfer.connect_to);
    curl_slist_free_all(transfer.resolved);
    buf_deinit(&transfer.queue);
    buf_deinit(&transfer.head);
    pthread_cond_destroy(&transfer.changed);
    pthread_mutex_destroy(&transfer.mutex);
    return err;
}

struct slice http_fetch_header(const struct http_fetch_reply *reply, struct slice name)
{
    for (size_t i = 0; i < reply->header_count; i++) {
        if (slice_eq_nocase(reply->headers[i].name, name)) {
            return reply->headers[i].value;
        }
    }
    return (struct slice){0};
}
