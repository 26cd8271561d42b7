#include "homeserver/http/dns.h"

#include "homeserver/base/loop.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <ares.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

enum {
    ATTEMPT_MS = 2000,
    ATTEMPTS = 2,
    RECORDS_MAX = 32,
    ADDRESSES_MAX = 8,
    NAMES_KEPT_MAX = 20000,
    KEPT_MS_MIN = 30 * 1000,
    KEPT_MS_MAX = 300 * 1000,
    CHANNELS = 8, /* each has ports of its own; a question takes one at random */
    CHANNEL_MS_MAX = 30 * 1000,
    RUNNING_MAX = 512, /* questions; the others wait for their turn */
};

struct kept {
    int64_t until_ms;
    size_t count;
    bool is_alias;
    char texts[ADDRESSES_MAX][INET6_ADDRSTRLEN];
};

struct channel_socket {
    struct channel_socket *next;
    struct channel *channel;
    struct loop_watch *watch;
    ares_socket_t fd;
};

/* Of the loop. */
struct channel {
    struct http_dns *dns;
    ares_channel ares; /* NULL = not open */
    size_t running;
    int64_t opened_ms;
    struct loop_timer *timer;
    struct channel_socket *sockets;
};

struct question {
    struct question *next;
    struct http_dns *dns;
    struct channel *channel;
    enum http_dns_kind kind;
    char *name;
    struct arena *arena; /* owned; has this struct's texts */
    struct http_dns_answer answer;
    int ttl_s;
    bool answered; /* also: there is no such record */
    http_dns_done_fn done;
    void *done_arg;
    struct loop_task task;
};

struct http_dns {
    char *server; /* NULL = those of the system */
    struct loop *loop;
    pthread_mutex_t lock; /* leaf; guards the map */
    struct map *kept;     /* name -> struct kept */
    /* of the loop */
    struct channel channels[CHANNELS];
    struct question *waiting_first, *waiting_last;
    size_t running;
    bool stopping;
};

/* --- addresses that are kept --- */

static void forget_all(struct http_dns *dns)
{
    struct slice name;
    uint64_t value = 0;
    for (size_t at = 0; map_next(dns->kept, &at, &name, &value);) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&dns->kept);
}

bool http_dns_find_kept(struct http_dns *dns, struct arena *arena, struct slice name,
                        struct http_dns_addresses *out)
{
    pthread_mutex_lock(&dns->lock);
    const struct kept *kept = map_get_ptr(dns->kept, name);
    bool fresh = kept && kept->until_ms > now_mono_us() / 1000;
    *out = (struct http_dns_addresses){0};
    if (fresh) {
        out->is_alias = kept->is_alias;
        out->items = arena_array(arena, kept->count, sizeof *out->items);
        for (; out->count < kept->count; out->count++) {
            out->items[out->count] = arena_copy(arena, slice_of(kept->texts[out->count]));
        }
    }
    pthread_mutex_unlock(&dns->lock);
    return fresh;
}

static void keep(struct http_dns *dns, const struct question *question)
{
    const struct http_dns_addresses *found = &question->answer.addresses;
    struct slice name = slice_of(question->name);
    int64_t keep_ms = (int64_t)question->ttl_s * 1000;
    keep_ms = keep_ms < KEPT_MS_MAX ? keep_ms : KEPT_MS_MAX;
    pthread_mutex_lock(&dns->lock);
    if (map_count(dns->kept) >= NAMES_KEPT_MAX) {
        forget_all(dns);
        dns->kept = map_new();
    }
    struct kept *kept = map_get_ptr(dns->kept, name);
    if (!kept) {
        kept = mem_alloc(sizeof *kept);
        map_set_ptr(dns->kept, name, kept);
    }
    kept->until_ms = now_mono_us() / 1000 + (keep_ms > KEPT_MS_MIN ? keep_ms : KEPT_MS_MIN);
    kept->count = found->count;
    kept->is_alias = found->is_alias;
    for (size_t i = 0; i < found->count; i++) {
        memcpy(kept->texts[i], found->items[i].ptr, found->items[i].len + 1);
    }
    pthread_mutex_unlock(&dns->lock);
}

/* --- answers; on the loop --- */

static void tell(struct question *question)
{
    struct http_dns *dns = question->dns;
    if (dns->stopping) {
        question->answer = (struct http_dns_answer){.err = err_make(ERR_CANCELLED, "stopping")};
    } else if (!question->answered) {
        question->answer =
            (struct http_dns_answer){.err = err_make(ERR_UNAVAILABLE, "DNS gives no answer")};
    } else if (question->kind == HTTP_DNS_ADDRESSES) {
        keep(dns, question);
    }
    question->done(question->done_arg, &question->answer);
    if (question->channel) {
        question->channel->running--;
        dns->running--;
    }
    struct arena *arena = question->arena;
    arena_free(&arena);
}

static bool says_none(int status)
{
    return status == ARES_ENODATA || status == ARES_ENOTFOUND;
}

static void read_srvs(struct question *question, const struct ares_srv_reply *reply)
{
    struct http_dns_srvs *out = &question->answer.srvs;
    out->items = arena_array(question->arena, RECORDS_MAX, sizeof *out->items);
    for (; reply && out->count < RECORDS_MAX; reply = reply->next) {
        struct slice target = slice_of(reply->host);
        target = slice_has_suffix(target, LIT(".")) ? slice_sub(target, 0, target.len - 1) : target;
        out->items[out->count++] = (struct http_dns_srv){
            reply->priority, reply->weight, reply->port, arena_copy(question->arena, target)};
    }
}

static void on_srv(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
    struct question *question = arg;
    struct ares_srv_reply *replies = NULL;
    (void)timeouts;
    question->answered = says_none(status);
    if (status == ARES_SUCCESS) {
        status = ares_parse_srv_reply(bytes, len, &replies);
        question->answered = status == ARES_SUCCESS || says_none(status);
        read_srvs(question, status == ARES_SUCCESS ? replies : NULL);
    }
    if (replies) {
        ares_free_data(replies);
    }
    tell(question);
}

static void read_addresses(struct question *question, const struct ares_addrinfo *info)
{
    struct http_dns_addresses *out = &question->answer.addresses;
    out->items = arena_array(question->arena, ADDRESSES_MAX, sizeof *out->items);
    out->is_alias = info->cnames != NULL;
    question->ttl_s = INT32_MAX;
    for (const struct ares_addrinfo_node *node = info->nodes; node && out->count < ADDRESSES_MAX;
         node = node->ai_next) {
        char text[INET6_ADDRSTRLEN] = "";
        if (node->ai_family == AF_INET) {
            const struct sockaddr_in *in = (const void *)node->ai_addr;
            inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
        } else {
            const struct sockaddr_in6 *in6 = (const void *)node->ai_addr;
            inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
        }
        question->ttl_s = node->ai_ttl < question->ttl_s ? node->ai_ttl : question->ttl_s;
        out->items[out->count++] = arena_copy(question->arena, slice_of(text));
    }
}

static void on_addresses(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct question *question = arg;
    (void)timeouts;
    question->answered = status == ARES_SUCCESS || says_none(status);
    if (info) {
        read_addresses(question, info);
        ares_freeaddrinfo(info);
    }
    tell(question);
}

/* --- channels; on the loop --- */

static void start_waiting(struct http_dns *dns);

/* The library's time-outs are seen to as well. */
static void act(struct channel *channel, ares_socket_t to_read, ares_socket_t to_write)
{
    struct timeval left;
    ares_process_fd(channel->ares, to_read, to_write);
    const struct timeval *wait = ares_timeout(channel->ares, NULL, &left);
    if (wait) {
        loop_timer_start(channel->timer, (int64_t)wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1);
    } else {
        loop_timer_stop(channel->timer);
    }
}

static void on_timer(void *arg)
{
    struct channel *channel = arg;
    if (channel->ares) {
        act(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        start_waiting(channel->dns);
    }
}

static void on_socket(void *arg, unsigned events)
{
    const struct channel_socket *one = arg;
    struct channel *channel = one->channel;
    ares_socket_t fd = one->fd;
    act(channel, events & LOOP_READ ? fd : ARES_SOCKET_BAD,
        events & LOOP_WRITE ? fd : ARES_SOCKET_BAD);
    start_waiting(channel->dns);
}

static void on_socket_state(void *arg, ares_socket_t fd, int reads, int writes)
{
    struct channel *channel = arg;
    struct channel_socket **at = &channel->sockets;
    while (*at && (*at)->fd != fd) {
        at = &(*at)->next;
    }
    struct channel_socket *one = *at;
    if (!reads && !writes) {
        if (one) {
            *at = one->next;
            loop_watch_free(&one->watch);
            mem_free(one);
        }
        return;
    }
    if (!one) {
        one = mem_alloc(sizeof *one);
        *one = (struct channel_socket){.next = channel->sockets, .channel = channel, .fd = fd};
        one->watch = loop_watch_new(channel->dns->loop, fd, on_socket, one);
        channel->sockets = one;
    }
    loop_watch_set(one->watch, (reads ? LOOP_READ : 0U) | (writes ? LOOP_WRITE : 0U));
}

static void close_channel(struct channel *channel)
{
    if (channel->ares) {
        ares_destroy(channel->ares); /* answers what is still open */
        channel->ares = NULL;
        loop_timer_stop(channel->timer);
    }
}

/* What the system says of its servers is read anew from time to time. */
static bool open_channel(struct channel *channel)
{
    struct http_dns *dns = channel->dns;
    int64_t now_ms = loop_mono_ms(dns->loop);
    struct ares_options options = {.timeout = ATTEMPT_MS,
                                   .tries = ATTEMPTS,
                                   .sock_state_cb = on_socket_state,
                                   .sock_state_cb_data = channel};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
    if (channel->ares && channel->running == 0 && now_ms - channel->opened_ms > CHANNEL_MS_MAX) {
        close_channel(channel);
    }
    if (channel->ares) {
        return true;
    }
    channel->opened_ms = now_ms;
    if (ares_init_options(&channel->ares, &options, mask) != ARES_SUCCESS) {
        channel->ares = NULL;
        return false;
    }
    if (dns->server && ares_set_servers_ports_csv(channel->ares, dns->server) != ARES_SUCCESS) {
        close_channel(channel);
    }
    return channel->ares != NULL;
}

static void start_question(struct http_dns *dns, struct question *question)
{
    static const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC,
                                                     .ai_socktype = SOCK_STREAM};
    uint8_t random = 0;
    (void)!getrandom(&random, sizeof random, 0);
    struct channel *channel = &dns->channels[random % CHANNELS];
    if (dns->stopping || !open_channel(channel)) {
        tell(question);
        return;
    }
    question->channel = channel;
    channel->running++;
    dns->running++;
    if (question->kind == HTTP_DNS_SRV) {
        ares_query(channel->ares, question->name, ns_c_in, ns_t_srv, on_srv, question);
    } else {
        ares_getaddrinfo(channel->ares, question->name, NULL, &hints, on_addresses, question);
    }
    act(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void start_waiting(struct http_dns *dns)
{
    while (dns->waiting_first && (dns->running < RUNNING_MAX || dns->stopping)) {
        struct question *question = dns->waiting_first;
        dns->waiting_first = question->next;
        dns->waiting_last = dns->waiting_first ? dns->waiting_last : NULL;
        start_question(dns, question);
    }
}

static void on_ask(void *arg)
{
    struct question *question = arg;
    struct http_dns *dns = question->dns;
    if (dns->waiting_last) {
        dns->waiting_last->next = question;
    } else {
        dns->waiting_first = question;
    }
    dns->waiting_last = question;
    start_waiting(dns);
}

/* --- life --- */

struct http_dns *http_dns_new(struct loop *loop, struct slice server)
{
    struct http_dns *dns = mem_alloc(sizeof *dns);
    pthread_mutex_init(&dns->lock, NULL);
    dns->kept = map_new();
    dns->loop = loop;
    if (server.len) {
        dns->server = mem_alloc(server.len + 1);
        memcpy(dns->server, server.ptr, server.len);
    }
    ares_library_init(ARES_LIB_INIT_ALL);
    for (size_t i = 0; i < CHANNELS; i++) {
        dns->channels[i].dns = dns;
        dns->channels[i].timer = loop_timer_new(loop, on_timer, &dns->channels[i]);
    }
    return dns;
}

void http_dns_stop(struct http_dns *dns)
{
    dns->stopping = true;
    for (size_t i = 0; i < CHANNELS; i++) {
        close_channel(&dns->channels[i]);
    }
    start_waiting(dns);
}

void http_dns_free(struct http_dns **pointer)
{
    struct http_dns *dns = *pointer;
    if (!dns) {
        return;
    }
    http_dns_stop(dns);
    for (size_t i = 0; i < CHANNELS; i++) {
        loop_timer_free(&dns->channels[i].timer);
    }
    forget_all(dns);
    ares_library_cleanup();
    pthread_mutex_destroy(&dns->lock);
    mem_free(dns->server);
    mem_free(dns);
    *pointer = NULL;
}

void http_dns_ask(struct http_dns *dns, enum http_dns_kind kind, struct slice name,
                  http_dns_done_fn done, void *arg)
{
    struct arena *arena = arena_new();
    struct question *question = arena_alloc(arena, sizeof *question);
    *question = (struct question){.dns = dns,
                                  .kind = kind,
                                  .name = arena_cstr(arena, name),
                                  .arena = arena,
                                  .done = done,
                                  .done_arg = arg,
                                  .task = {.fn = on_ask, .arg = question}};
    loop_post(dns->loop, &question->task);
}

struct http_dns_answer http_dns_answer_copy(struct arena *arena,
                                            const struct http_dns_answer *answer)
{
    struct http_dns_answer copy = *answer;
    copy.srvs.items = arena_array(arena, answer->srvs.count, sizeof *copy.srvs.items);
    for (size_t i = 0; i < answer->srvs.count; i++) {
        copy.srvs.items[i] = answer->srvs.items[i];
        copy.srvs.items[i].target = arena_copy(arena, answer->srvs.items[i].target);
    }
    copy.addresses.items =
        arena_array(arena, answer->addresses.count, sizeof *copy.addresses.items);
    for (size_t i = 0; i < answer->addresses.count; i++) {
        copy.addresses.items[i] = arena_copy(arena, answer->addresses.items[i]);
    }
    return copy;
}

/* --- blocking --- */

struct waiting {
    struct ctx *ctx;
    struct http_dns_answer answer;
    pthread_mutex_t mutex;
    pthread_cond_t told;
    bool is_told;
};

/* The arena's owner sleeps. */
static void on_told(void *arg, const struct http_dns_answer *answer)
{
    struct waiting *waiting = arg;
    pthread_mutex_lock(&waiting->mutex);
    waiting->answer = http_dns_answer_copy(waiting->ctx->arena, answer);
    waiting->is_told = true;
    pthread_cond_signal(&waiting->told);
    pthread_mutex_unlock(&waiting->mutex);
}

static struct http_dns_answer ask_and_wait(struct http_dns *dns, struct ctx *ctx,
                                           enum http_dns_kind kind, struct slice name)
{
    struct waiting waiting = {.ctx = ctx};
    pthread_mutex_init(&waiting.mutex, NULL);
    pthread_cond_init(&waiting.told, NULL);
    http_dns_ask(dns, kind, name, on_told, &waiting);
    pthread_mutex_lock(&waiting.mutex);
    while (!waiting.is_told) {
        pthread_cond_wait(&waiting.told, &waiting.mutex);
    }
    pthread_mutex_unlock(&waiting.mutex);
    pthread_cond_destroy(&waiting.told);
    pthread_mutex_destroy(&waiting.mutex);
    return waiting.answer;
}

struct err http_dns_find_srv(struct http_dns *dns, struct ctx *ctx, struct slice name,
                             struct http_dns_srvs *srvs_out)
{
    struct http_dns_answer answer = ask_and_wait(dns, ctx, HTTP_DNS_SRV, name);
    *srvs_out = answer.srvs;
    return answer.err;
}

struct err http_dns_find_addresses(struct http_dns *dns, struct ctx *ctx, struct slice name,
                                   struct http_dns_addresses *addresses_out)
{
    if (http_dns_find_kept(dns, ctx->arena, name, addresses_out)) {
        return OK;
    }
    struct http_dns_answer answer = ask_and_wait(dns, ctx, HTTP_DNS_ADDRESSES, name);
    *addresses_out = answer.addresses;
    return answer.err;
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
