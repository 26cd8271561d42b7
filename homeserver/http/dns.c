#include "homeserver/http/dns.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

enum {
    ATTEMPT_MS = 2000,
    ATTEMPTS = 2,
    ANSWER_MS_MAX = 8000,
    RECORDS_MAX = 32,
    NAMES_CACHED_MAX = 4096,
    CACHED_MS = 30000,
};

struct cached {
    int64_t until_ms;
    size_t count;
    char texts[RECORDS_MAX / 4][INET6_ADDRSTRLEN];
};

struct http_dns {
    char *server; /* NULL = those of the system */
    pthread_mutex_t lock;
    struct map *addresses; /* name -> struct cached */
};

struct http_dns *http_dns_new(struct slice server)
{
    struct http_dns *dns = mem_alloc(sizeof *dns);
    pthread_mutex_init(&dns->lock, NULL);
    dns->addresses = map_new();
    if (server.len) {
        dns->server = mem_alloc(server.len + 1);
        memcpy(dns->server, server.ptr, server.len);
    }
    ares_library_init(ARES_LIB_INIT_ALL);
    return dns;
}

static void forget_all(struct http_dns *dns)
{
    struct slice name;
    uint64_t value = 0;
    for (size_t at = 0; map_next(dns->addresses, &at, &name, &value);) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&dns->addresses);
}

void http_dns_free(struct http_dns **pointer)
{
    struct http_dns *dns = *pointer;
    if (!dns) {
        return;
    }
    forget_all(dns);
    ares_library_cleanup();
    pthread_mutex_destroy(&dns->lock);
    mem_free(dns->server);
    mem_free(dns);
    *pointer = NULL;
}

/* One question, on a channel of its own: names are asked for seldom. */
struct question {
    struct ctx *ctx;
    struct http_dns_srvs *srvs;
    struct http_dns_addresses *addresses;
    bool answered; /* also: there is no such record */
};

static bool says_none(int status)
{
    return status == ARES_ENODATA || status == ARES_ENOTFOUND;
}

static void on_srv(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct question *question = arg;
    struct arena *arena = question->ctx->arena;
    struct ares_srv_reply *replies = NULL;
    (void)timeouts;
    question->answered = says_none(status);
    if (status != ARES_SUCCESS) {
        return;
    }
    status = ares_parse_srv_reply(bytes, len, &replies);
    question->answered = status == ARES_SUCCESS || says_none(status);
    question->srvs->items = arena_array(arena, RECORDS_MAX, sizeof *question->srvs->items);
    for (const struct ares_srv_reply *reply = replies; reply && status == ARES_SUCCESS;
         reply = reply->next) {
        if (question->srvs->count == RECORDS_MAX) {
            break;
        }
        struct slice target = slice_of(reply->host);
        target = slice_has_suffix(target, LIT(".")) ? slice_sub(target, 0, target.len - 1) : target;
        question->srvs->items[question->srvs->count++] = (struct http_dns_srv){
            reply->priority, reply->weight, reply->port, arena_copy(arena, target)};
    }
    if (replies) {
        ares_free_data(replies);
    }
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct question *question = arg;
    struct http_dns_addresses *out = question->addresses;
    (void)timeouts;
    question->answered = status == ARES_SUCCESS || says_none(status);
    out->items = arena_array(question->ctx->arena, RECORDS_MAX, sizeof *out->items);
    for (const struct ares_addrinfo_node *node = info ? info->nodes : NULL; node;
         node = node->ai_next) {
        char text[INET6_ADDRSTRLEN] = "";
        if (out->count == COUNT_OF(((struct cached *)0)->texts)) {
            break;
        }
        if (node->ai_family == AF_INET) {
            const struct sockaddr_in *in = (const void *)node->ai_addr;
            inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
        } else {
            const struct sockaddr_in6 *in6 = (const void *)node->ai_addr;
            inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
        }
        out->items[out->count++] = arena_copy(question->ctx->arena, slice_of(text));
    }
    if (info) {
        ares_freeaddrinfo(info);
    }
}

static bool open_channel(const struct http_dns *dns, ares_channel *channel)
{
    struct ares_options options = {.timeout = ATTEMPT_MS, .tries = ATTEMPTS};
    if (ares_init_options(channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES) != ARES_SUCCESS) {
        return false;
    }
    if (dns->server && ares_set_servers_ports_csv(*channel, dns->server) != ARES_SUCCESS) {
        ares_destroy(*channel);
        return false;
    }
    return true;
}

/* Drives the channel until its question is answered. */
static void drive(ares_channel channel, struct ctx *ctx)
{
    int64_t until_ms = now_mono_us() / 1000 + ANSWER_MS_MAX;
    (void)ctx;
    while (now_mono_us() / 1000 < until_ms) {
        ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
        struct pollfd fds[ARES_GETSOCK_MAXNUM];
        /* low bits: to read, high bits: to write; the library's own macros shift into the sign */
        unsigned mask = (unsigned)ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
        nfds_t count = 0;
        for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
            bool reads = (mask >> i & 1U) != 0;
            bool writes = (mask >> (i + ARES_GETSOCK_MAXNUM) & 1U) != 0;
            short events = (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
            if (events) {
                fds[count++] = (struct pollfd){.fd = sockets[i], .events = events};
            }
        }
        if (count == 0) {
            return;
        }
        struct timeval most = {.tv_usec = 500000};
        struct timeval left;
        const struct timeval *wait = ares_timeout(channel, &most, &left);
        poll(fds, count, (int)(wait->tv_sec * 1000 + wait->tv_usec / 1000) + 1);
        for (nfds_t i = 0; i < count; i++) {
            bool in = (fds[i].revents & (POLLIN | POLLERR | POLLHUP)) != 0;
            bool out = (fds[i].revents & POLLOUT) != 0;
            ares_process_fd(channel, in ? fds[i].fd : ARES_SOCKET_BAD,
                            out ? fds[i].fd : ARES_SOCKET_BAD);
        }
        ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* time-outs */
    }
}

static struct err no_answer(void)
{
    return err_make(ERR_UNAVAILABLE, "DNS gives no answer");
}

struct err http_dns_find_srv(struct http_dns *dns, struct ctx *ctx, struct slice name,
                             struct http_dns_srvs *srvs_out)
{
    struct question question = {.ctx = ctx, .srvs = srvs_out};
    ares_channel channel;
    *srvs_out = (struct http_dns_srvs){0};
    if (!open_channel(dns, &channel)) {
        return no_answer();
    }
    ares_query(channel, arena_cstr(ctx->arena, name), ns_c_in, ns_t_srv, on_srv, &question);
    drive(channel, ctx);
    ares_destroy(channel); /* answers what is still open */
    return question.answered ? OK : no_answer();
}

static bool find_cached(struct http_dns *dns, struct ctx *ctx, struct slice name,
                        struct http_dns_addresses *out)
{
    pthread_mutex_lock(&dns->lock);
    const struct cached *cached = map_get_ptr(dns->addresses, name);
    bool fresh = cached && cached->until_ms > now_mono_us() / 1000;
    if (fresh) {
        out->items = arena_array(ctx->arena, cached->count, sizeof *out->items);
        for (; out->count < cached->count; out->count++) {
            out->items[out->count] = arena_copy(ctx->arena, slice_of(cached->texts[out->count]));
        }
    }
    pthread_mutex_unlock(&dns->lock);
    return fresh;
}

static void keep(struct http_dns *dns, struct slice name, const struct http_dns_addresses *found)
{
    pthread_mutex_lock(&dns->lock);
    if (map_count(dns->addresses) >= NAMES_CACHED_MAX) {
        forget_all(dns);
        dns->addresses = map_new();
    }
    struct cached *cached = map_get_ptr(dns->addresses, name);
    if (!cached) {
        cached = mem_alloc(sizeof *cached);
        map_set_ptr(dns->addresses, name, cached);
    }
    cached->until_ms = now_mono_us() / 1000 + CACHED_MS;
    cached->count = found->count;
    for (size_t i = 0; i < found->count; i++) {
        memcpy(cached->texts[i], found->items[i].ptr, found->items[i].len + 1);
    }
    pthread_mutex_unlock(&dns->lock);
}

struct err http_dns_find_addresses(struct http_dns *dns, struct ctx *ctx, struct slice name,
                                   struct http_dns_addresses *addresses_out)
{
    struct question question = {.ctx = ctx, .addresses = addresses_out};
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    ares_channel channel;
    *addresses_out = (struct http_dns_addresses){0};
    if (find_cached(dns, ctx, name, addresses_out)) {
        return OK;
    }
    if (!open_channel(dns, &channel)) {
        return no_answer();
    }
    ares_getaddrinfo(channel, arena_cstr(ctx->arena, name), NULL, &hints, on_addresses, &question);
    drive(channel, ctx);
    ares_destroy(channel);
    if (!question.answered) {
        return no_answer();
    }
    keep(dns, name, addresses_out);
    return OK;
}

size_t http_dns_choose(struct http_dns *dns, struct ctx *ctx, struct slice name,
                       struct slice *addresses_out, size_t max)
{
    struct http_dns_addresses addresses;
    if (!dns->server || http_dns_find_addresses(dns, ctx, name, &addresses).code) {
        return 0;
    }
    size_t count = addresses.count < max ? addresses.count : max;
    for (size_t i = 0; i < count; i++) {
        addresses_out[i] = addresses.items[i];
    }
    return count;
}
