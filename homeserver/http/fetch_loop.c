/* What runs on the fetcher's threads: libcurl's sockets and timer, and what it calls back. */
#include "homeserver/base/mem.h"
#include "homeserver/http/fetch_priv.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

enum {
    QUEUE_BYTES_MAX = 1 << 18, /* received and not yet taken by the caller */
    KEEP_ALIVE_IDLE_S = 60,
    KEEP_ALIVE_INTERVAL_S = 10,
    KEEP_ALIVE_PROBES = 3,
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

/* A peer that is gone without a word does not keep a connection for long, nor does a middlebox
 * forget it. */
static void keep_alive(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEP_ALIVE_PROBES},
    };
    for (size_t i = 0; i < COUNT_OF(options); i++) {
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
    }
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
    struct transfer *transfer = arg;
    struct http_address address;
    (void)purpose;
    if (!address_of(to, &address) || !may_reach(transfer, &address)) {
        return CURL_SOCKET_BAD;
    }
    int fd = socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
    if (fd >= 0) {
        keep_alive(fd);
    }
    if (fd >= 0 && transfer->request->peer.len > 0) {
        http_links_add(transfer->fetcher->links, fd, transfer->request->peer);
    }
    return fd;
}

/* Perhaps long after the transfer for which it was opened. */
static int close_socket(void *arg, curl_socket_t fd)
{
    struct http_fetcher *fetcher = arg;
    http_links_remove(fetcher->links, fd);
    return close(fd);
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
    size_t max = request->body_bytes_max ? request->body_bytes_max : HTTP_FETCH_BODY_DEFAULT;
    pthread_mutex_lock(&transfer->mutex);
    size_t taken = 0;
    if (transfer->received + len > max) {
        transfer->too_large = true;
    } else if (!transfer->on_done && transfer->queue.len &&
               transfer->queue.len + len > QUEUE_BYTES_MAX) {
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
    struct http_strand *strand = transfer->shard->strand;
    curl_multi_remove_handle(transfer->shard->multi, transfer->easy);
    if (transfer->prev) {
        transfer->prev->next = transfer->next;
    } else {
        strand->transfers = transfer->next;
    }
    if (transfer->next) {
        transfer->next->prev = transfer->prev;
    }
    pthread_mutex_lock(&transfer->mutex);
    transfer->code = code;
    transfer->done = true;
    bool over = transfer->on_done && transfer->tasks == 0;
    pthread_cond_signal(&transfer->changed);
    pthread_mutex_unlock(&transfer->mutex);
    if (over) { /* from here on the transfer may be gone */
        transfer->on_done(transfer->on_done_arg);
    }
}

static void collect_done(struct http_shard *shard)
{
    int left = 0;
    for (CURLMsg *message = curl_multi_info_read(shard->multi, &left); message;
         message = curl_multi_info_read(shard->multi, &left)) {
        struct transfer *transfer = NULL;
        CURLcode code = message->data.result;
        if (message->msg == CURLMSG_DONE) {
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
            finish(transfer, code);
        }
    }
}

static void act(struct http_shard *shard, curl_socket_t fd, int events)
{
    int running = 0;
    curl_multi_socket_action(shard->multi, fd, events, &running);
    collect_done(shard);
}

struct socket_watch {
    struct http_shard *shard;
    struct loop_watch *watch;
    curl_socket_t fd;
};

static void on_socket_event(void *arg, unsigned events)
{
    struct socket_watch *socket_watch = arg;
    int mask =
        (events & LOOP_READ ? CURL_CSELECT_IN : 0) | (events & LOOP_WRITE ? CURL_CSELECT_OUT : 0);
    act(socket_watch->shard, socket_watch->fd, mask);
}

static int on_socket_interest(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct http_shard *shard = arg;
    struct socket_watch *socket_watch = known;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (socket_watch) {
            loop_watch_free(&socket_watch->watch);
            mem_free(socket_watch);
            curl_multi_assign(shard->multi, fd, NULL);
        }
        return 0;
    }
    if (!socket_watch) {
        socket_watch = mem_alloc(sizeof *socket_watch);
        *socket_watch = (struct socket_watch){.shard = shard, .fd = fd};
        socket_watch->watch =
            loop_watch_new(shard->strand->loop, fd, on_socket_event, socket_watch);
        curl_multi_assign(shard->multi, fd, socket_watch);
    }
    loop_watch_set(socket_watch->watch,
                   (what & CURL_POLL_IN ? LOOP_READ : 0) | (what & CURL_POLL_OUT ? LOOP_WRITE : 0));
    return 0;
}

void http_shard_on_timer(void *arg)
{
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int on_timer_interest(CURLM *multi, long timeout_ms, void *arg)
{
    struct http_shard *shard = arg;
    (void)multi;
    if (timeout_ms < 0) {
        loop_timer_stop(shard->timer);
    } else {
        loop_timer_start(shard->timer, timeout_ms);
    }
    return 0;
}

static void open_shard(struct http_shard *shard)
{
    if (!shard->multi) {
        shard->multi = curl_multi_init();
        ASSERT(shard->multi);
        curl_multi_setopt(shard->multi, CURLMOPT_SOCKETFUNCTION, on_socket_interest);
        curl_multi_setopt(shard->multi, CURLMOPT_SOCKETDATA, shard);
        curl_multi_setopt(shard->multi, CURLMOPT_TIMERFUNCTION, on_timer_interest);
        curl_multi_setopt(shard->multi, CURLMOPT_TIMERDATA, shard);
        curl_multi_setopt(shard->multi, CURLMOPT_MAXCONNECTS, shard->connection_max);
    }
}

static void task_done(struct transfer *transfer)
{
    pthread_mutex_lock(&transfer->mutex);
    transfer->tasks--;
    bool over = transfer->on_done && transfer->tasks == 0 && transfer->done;
    pthread_cond_signal(&transfer->changed);
    pthread_mutex_unlock(&transfer->mutex);
    if (over) {
        transfer->on_done(transfer->on_done_arg);
    }
}

void http_transfer_on_start(void *arg)
{
    struct transfer *transfer = arg;
    struct http_strand *strand = transfer->shard->strand;
    transfer->next = strand->transfers;
    if (transfer->next) {
        transfer->next->prev = transfer;
    }
    strand->transfers = transfer;
    if (transfer->on_begun) {
        transfer->on_begun(transfer->on_done_arg);
    }
    open_shard(transfer->shard);
    curl_multi_add_handle(transfer->shard->multi, transfer->easy);
    if (atomic_load(&strand->fetcher->stopping)) {
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

void http_transfer_on_resume(void *arg)
{
    struct transfer *transfer = arg;
    if (!is_done(transfer)) {
        curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
        act(transfer->shard, CURL_SOCKET_TIMEOUT, 0);
    }
    task_done(transfer);
}

void http_transfer_on_cancel(void *arg)
{
    struct transfer *transfer = arg;
    if (!is_done(transfer)) {
        finish(transfer, CURLE_ABORTED_BY_CALLBACK);
    }
    task_done(transfer);
}

void http_strand_on_stop(void *arg)
{
    struct http_strand *strand = arg;
    if (strand == &strand->fetcher->strands[0]) {
        http_dns_stop(strand->fetcher->dns);
    }
    while (strand->transfers) {
        finish(strand->transfers, CURLE_ABORTED_BY_CALLBACK);
    }
}

void http_transfer_set_callbacks(struct transfer *transfer)
{
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, transfer->fetcher); /* outlives the transfer */
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_request);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
}
