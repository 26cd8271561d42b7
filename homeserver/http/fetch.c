#include "homeserver/base/mem.h"
#include "homeserver/base/stats.h"
#include "homeserver/http/fetch_priv.h"
#include "homeserver/http/url.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    HEADER_BYTES_MAX = 1 << 16,
    HEADERS_MAX = 100,
    TIMEOUT_MS_DEFAULT = 30000,
    CONNECT_TIMEOUT_MS = 10000,
    CONNECTIONS_DEFAULT = 1024,
    SHARD_CONNECTIONS = 64,        /* fewer are walked through in no time */
    CONNECTION_AGE_S = 300,        /* unused longer: not used again */
    UNWATCHED_BUFFER_BYTES = 4096, /* of one of thousands that run at once */
};

static void *run_thread(void *arg)
{
    struct http_strand *strand = arg;
    loop_run(strand->loop);
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

/* The handles do not get equal shares of the hosts, so each has room for a quarter more; and unused
 * connections must leave descriptors for those in use, here and in the other direction. */
static size_t connection_max(const struct http_fetcher *fetcher)
{
    struct rlimit limit;
    size_t wanted = fetcher->config.connection_max;
    wanted = wanted ? wanted : CONNECTIONS_DEFAULT;
    wanted += wanted / 4;
    getrlimit(RLIMIT_NOFILE, &limit);
    size_t most = (size_t)limit.rlim_max / 5 * 3;
    return wanted < most ? wanted : most;
}

/* A handshake is a millisecond of computing, and thousands may come at once; the other half of the
 * cores is for those who ask. */
static void open_strands(struct http_fetcher *fetcher)
{
    size_t count = fetcher->config.thread_count;
    if (count == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        count = cores > 2 ? (size_t)cores / 2 : 1;
    }
    count = count < HTTP_STRANDS_MAX ? count : HTTP_STRANDS_MAX;
    fetcher->strand_count = count < fetcher->shard_count ? count : fetcher->shard_count;
    for (size_t i = 0; i < fetcher->strand_count; i++) {
        fetcher->strands[i] = (struct http_strand){.fetcher = fetcher, .loop = loop_new()};
    }
}

static void open_shards(struct http_fetcher *fetcher)
{
    size_t most = connection_max(fetcher);
    size_t count = most / SHARD_CONNECTIONS;
    count = count < 1 ? 1 : count;
    count = count < HTTP_SHARDS_MAX ? count : HTTP_SHARDS_MAX;
    fetcher->shard_count = count;
    open_strands(fetcher);
    for (size_t i = 0; i < count; i++) {
        struct http_shard *shard = &fetcher->shards[i];
        struct http_strand *strand = &fetcher->strands[i % fetcher->strand_count];
        *shard = (struct http_shard){.strand = strand, .connection_max = (long)(most / count)};
        shard->timer = loop_timer_new(strand->loop, http_shard_on_timer, shard);
    }
}

static void close_shards(struct http_fetcher *fetcher)
{
    for (size_t i = 0; i < fetcher->shard_count; i++) { /* kept connections: their watches first */
        if (fetcher->shards[i].multi) {
            curl_multi_cleanup(fetcher->shards[i].multi);
        }
    }
}

static void free_timers(struct http_fetcher *fetcher)
{
    for (size_t i = 0; i < fetcher->shard_count; i++) {
        loop_timer_free(&fetcher->shards[i].timer);
    }
}

static void start_strand(struct http_strand *strand)
{
    int failed = pthread_create(&strand->thread, NULL, run_thread, strand);
    ASSERT(failed == 0);
    pthread_setname_np(strand->thread, "fetch");
}

static void start(struct http_fetcher *fetcher)
{
    sigset_t pipe;
    sigset_t old;
    pthread_mutex_init(&fetcher->waking, NULL);
    fetcher->links = http_links_new();
    open_shards(fetcher);
    fetcher->dns = http_dns_new(fetcher->strands[0].loop, fetcher->config.dns_server);
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &old);
    for (size_t i = 0; i < fetcher->strand_count; i++) {
        start_strand(&fetcher->strands[i]);
    }
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
    start(fetcher);
    *fetcher_out = fetcher;
    return OK;
}

void http_fetcher_stop(struct http_fetcher *fetcher)
{
    if (!atomic_exchange(&fetcher->stopping, true)) {
        for (size_t i = 0; i < fetcher->strand_count; i++) {
            struct http_strand *strand = &fetcher->strands[i];
            strand->stop_task = (struct loop_task){.fn = http_strand_on_stop, .arg = strand};
            loop_post(strand->loop, &strand->stop_task);
        }
    }
}

struct passing {
    struct loop_task task;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool has_passed;
};

static void on_pass(void *arg)
{
    struct passing *passing = arg;
    pthread_mutex_lock(&passing->mutex);
    passing->has_passed = true;
    pthread_cond_signal(&passing->changed);
    pthread_mutex_unlock(&passing->mutex);
}

static void await_strand(struct http_strand *strand)
{
    struct passing passing = {.task = {.fn = on_pass, .arg = &passing}};
    pthread_mutex_init(&passing.mutex, NULL);
    pthread_cond_init(&passing.changed, NULL);
    loop_post(strand->loop, &passing.task);
    pthread_mutex_lock(&passing.mutex);
    while (!passing.has_passed) {
        pthread_cond_wait(&passing.changed, &passing.mutex);
    }
    pthread_mutex_unlock(&passing.mutex);
    pthread_cond_destroy(&passing.changed);
    pthread_mutex_destroy(&passing.mutex);
}

void http_fetcher_await(struct http_fetcher *fetcher)
{
    for (size_t i = 0; i < fetcher->strand_count; i++) {
        await_strand(&fetcher->strands[i]);
    }
}

void http_fetcher_free(struct http_fetcher **pointer)
{
    struct http_fetcher *fetcher = *pointer;
    if (!fetcher) {
        return;
    }
    http_fetcher_stop(fetcher);
    for (size_t i = 0; i < fetcher->strand_count; i++) {
        loop_stop(fetcher->strands[i].loop);
        pthread_join(fetcher->strands[i].thread, NULL);
    }
    close_shards(fetcher);
    http_dns_free(&fetcher->dns);
    free_timers(fetcher);
    for (size_t i = 0; i < fetcher->strand_count; i++) {
        loop_free(&fetcher->strands[i].loop);
    }
    http_links_free(&fetcher->links);
    if (fetcher->is_awake) {
        curl_global_cleanup();
    }
    pthread_mutex_destroy(&fetcher->waking);
    http_hosts_free(&fetcher->hosts);
    http_authorities_deinit(&fetcher->authorities);
    arena_free(&fetcher->arena);
    mem_free(fetcher);
    *pointer = NULL;
}

bool http_fetch_is_linked(struct http_fetcher *fetcher, struct slice peer)
{
    return http_links_has(fetcher->links, peer);
}

bool http_fetch_knows(struct http_fetcher *fetcher, struct arena *arena,
                      const struct http_fetch_question *question,
                      struct http_dns_answer *answer_out)
{
    struct slice found[HTTP_HOSTS_ADDRESSES_MAX];
    struct http_address literal;
    *answer_out = (struct http_dns_answer){0};
    bool is_named = http_hosts_find(fetcher->hosts, arena, question->name, found) != 0;
    if (question->kind == HTTP_DNS_SRV) {
        return is_named;
    }
    for (size_t i = 0; i < fetcher->config.override_count && !is_named; i++) {
        is_named = slice_eq_nocase(fetcher->config.overrides[i].host, question->name);
    }
    answer_out->is_needless =
        is_named || fetcher->config.proxy.len || http_url_is_literal(question->name, &literal);
    return answer_out->is_needless ||
           http_dns_find_kept(fetcher->dns, arena, question->name, &answer_out->addresses);
}

static struct slice dns_name(struct arena *arena, const struct http_fetch_question *question)
{
    if (question->kind != HTTP_DNS_SRV) {
        return question->name;
    }
    return arena_concat(arena, arena_concat(arena, question->service, LIT(".")), question->name);
}

void http_fetch_ask(struct http_fetcher *fetcher, struct arena *arena,
                    const struct http_fetch_question *question, http_dns_done_fn done, void *arg)
{
    http_dns_ask(fetcher->dns, question->kind, dns_name(arena, question), done, arg);
}

struct http_dns_answer http_fetch_find(struct http_fetcher *fetcher, struct ctx *ctx,
                                       const struct http_fetch_question *question)
{
    struct http_dns_answer answer;
    if (http_fetch_knows(fetcher, ctx->arena, question, &answer)) {
        return answer;
    }
    struct slice name = dns_name(ctx->arena, question);
    answer.err = question->kind == HTTP_DNS_SRV
                     ? http_dns_find_srv(fetcher->dns, ctx, name, &answer.srvs)
                     : http_dns_find_addresses(fetcher->dns, ctx, name, &answer.addresses);
    return answer;
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
    if (count == 0 && request->address_count) {
        count = request->address_count < COUNT_OF(found) ? request->address_count : COUNT_OF(found);
        memcpy(found, request->addresses, count * sizeof *found);
    } else if (count == 0 && !http_url_is_literal(host, &literal)) {
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
    /* The library looks through all names it has kept after each request, which costs more than the
     * request when there are thousands; these are given to it anew each time. */
    if (!request->redirects_max) {
        curl_easy_setopt(transfer->easy, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
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
    int64_t connect_ms = request->connect_ms ? request->connect_ms : CONNECT_TIMEOUT_MS;
    connect_ms = timeout_ms < connect_ms ? timeout_ms : connect_ms;
    curl_easy_setopt(easy, CURLOPT_URL, arena_cstr(ctx->arena, request->url));
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, request->redirects_max ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)request->redirects_max);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)CONNECTION_AGE_S);
    curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L); /* it would be this request's alone */
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    transfer->any_address = (request->flags & HTTP_FETCH_ANY_ADDRESS) != 0;
    set_target(transfer, ctx);
    set_headers(transfer, ctx->arena);
    set_method(transfer, ctx->arena);
    set_trust(transfer);
    http_transfer_set_callbacks(transfer);
}

/* Posts with the mutex held. */
static void post(struct transfer *transfer, struct loop_task *task, void (*fn)(void *arg))
{
    *task = (struct loop_task){.fn = fn, .arg = transfer};
    transfer->tasks++;
    loop_post(transfer->shard->strand->loop, task);
}

/* Takes pieces off the queue until the loop has let go of the transfer. */
static struct err consume(struct transfer *transfer, struct buf *body)
{
    const struct http_fetch_request *request = transfer->request;
    struct err err = OK;
    pthread_mutex_lock(&transfer->mutex);
    post(transfer, &transfer->start_task, http_transfer_on_start);
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
            post(transfer, &transfer->resume_task, http_transfer_on_resume);
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
            post(transfer, &transfer->cancel_task, http_transfer_on_cancel);
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

static void wake_library(struct http_fetcher *fetcher)
{
    pthread_mutex_lock(&fetcher->waking);
    if (!fetcher->is_awake) {
        curl_global_init(CURL_GLOBAL_DEFAULT);
        fetcher->is_awake = true;
    }
    pthread_mutex_unlock(&fetcher->waking);
}

/* A transfer that may be started; to be ended in any case when there is no error. */
static struct err begin(struct transfer *transfer, struct ctx *ctx)
{
    int64_t timeout_ms = timeout_of(ctx, transfer->request);
    if (atomic_load(&transfer->fetcher->stopping)) {
        return err_make(ERR_CANCELLED, "the server stops");
    }
    if (timeout_ms <= 0) {
        return err_make(ERR_TIMEOUT, "the deadline has passed");
    }
    if (!is_clean(transfer->request)) {
        return err_make(ERR_SYNTAX, "a header or the URL of an outbound request is malformed");
    }
    wake_library(transfer->fetcher);
    transfer->easy = curl_easy_init();
    ASSERT(transfer->easy);
    pthread_mutex_init(&transfer->mutex, NULL);
    pthread_cond_init(&transfer->changed, NULL);
    buf_init(&transfer->queue, SIZE_MAX / 2);
    buf_init(&transfer->head, HEADER_BYTES_MAX);
    struct slice host = http_url_authority(transfer->request->url);
    size_t shard = (size_t)(slice_hash(host) % transfer->fetcher->shard_count);
    transfer->shard = &transfer->fetcher->shards[shard];
    set_options(transfer, ctx, timeout_ms);
    return OK;
}

static struct err end(struct transfer *transfer, struct arena *arena, struct err err,
                      struct http_fetch_reply *reply)
{
    struct stats *stats = transfer->fetcher->config.stats;
    err = err.code ? err : result_of(transfer);
    stats_add(stats, STAT_http_fetches_total, 1);
    parse_head(transfer, arena, reply);
    if (err.code) {
        stats_add(stats, STAT_http_fetch_failures_total, 1);
    }
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    curl_slist_free_all(transfer->connect_to);
    curl_slist_free_all(transfer->resolved);
    buf_deinit(&transfer->queue);
    buf_deinit(&transfer->head);
    pthread_cond_destroy(&transfer->changed);
    pthread_mutex_destroy(&transfer->mutex);
    return err;
}

/* RFC 9113, 8.1: a server that answers before it has read the request may reset the stream at once;
 * the library then loses the answer. Nothing has been given out of it, so the request may be made
 * once more. */
static bool is_lost(const struct transfer *transfer)
{
    return transfer->code == CURLE_HTTP2_STREAM && transfer->received == 0 &&
           !atomic_load(&transfer->fetcher->stopping);
}

enum version { VERSION_BEST, VERSION_1 };

static struct err fetch_once(struct transfer *transfer, struct ctx *ctx, enum version version,
                             struct http_fetch_reply *reply_out, bool *lost_out)
{
    struct buf body;
    TRY(begin(transfer, ctx));
    if (version == VERSION_1) {
        curl_easy_setopt(transfer->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    }
    buf_init_arena(&body, ctx->arena, SIZE_MAX / 2);
    struct err err = consume(transfer, &body);
    *lost_out = is_lost(transfer);
    err = end(transfer, ctx->arena, err, reply_out);
    reply_out->body = err.code ? reply_out->body : buf_slice(&body);
    return err;
}

struct err http_fetch(struct http_fetcher *fetcher, struct ctx *ctx,
                      const struct http_fetch_request *request, struct http_fetch_reply *reply_out)
{
    struct transfer transfer = {.fetcher = fetcher, .request = request};
    bool lost = false;
    *reply_out = (struct http_fetch_reply){0};
    struct err err = fetch_once(&transfer, ctx, VERSION_BEST, reply_out, &lost);
    if (!lost) {
        return err;
    }
    transfer = (struct transfer){.fetcher = fetcher, .request = request};
    return fetch_once(&transfer, ctx, VERSION_1, reply_out, &lost);
}

/* --- requests that nobody waits for --- */

struct http_fetching {
    struct transfer transfer;
};

struct err http_fetch_start(struct http_fetcher *fetcher, struct ctx *ctx,
                            const struct http_fetch_request *request,
                            const struct http_fetch_watcher *watcher,
                            struct http_fetching **fetching_out)
{
    struct http_fetching *fetching = mem_alloc(sizeof *fetching);
    struct transfer *transfer = &fetching->transfer;
    transfer->fetcher = fetcher;
    transfer->request = request;
    transfer->on_begun = watcher->on_start;
    transfer->on_done = watcher->on_done;
    transfer->on_done_arg = watcher->arg;
    struct err err = begin(transfer, ctx);
    if (err.code) {
        mem_free(fetching);
        return err;
    }
    curl_easy_setopt(transfer->easy, CURLOPT_BUFFERSIZE, (long)UNWATCHED_BUFFER_BYTES);
    *fetching_out = fetching; /* the watcher may be told before this returns */
    pthread_mutex_lock(&transfer->mutex);
    post(transfer, &transfer->start_task, http_transfer_on_start);
    pthread_mutex_unlock(&transfer->mutex);
    return OK;
}

struct err http_fetch_end(struct http_fetching **pointer, struct arena *arena,
                          struct http_fetch_reply *reply_out)
{
    struct http_fetching *fetching = *pointer;
    *reply_out = (struct http_fetch_reply){0};
    reply_out->body = arena_copy(arena, buf_slice(&fetching->transfer.queue));
    struct err err = end(&fetching->transfer, arena, OK, reply_out);
    mem_free(fetching);
    *pointer = NULL;
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
