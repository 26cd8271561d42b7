#include "tools/myelin-bench/made_up.h"

#include "crypto/base64.h"
#include "homeserver/base/mem.h"
#include "homeserver/http/server.h"
#include "tools/myelin-bench/names.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LIVING, REFUSING, SILENT, GROUPS, DNS_PORT = GROUPS };
enum {
    NAME_BYTES = 48,
    THREADS = 4,
    QUEUE_MAX = 100000,
    CONNECTIONS = 20000,
    BODY_BYTES_MAX = 16 << 20,
    KEYS_VALID_MS = 24 * 3600 * 1000,
};

static const char KEY_ID[] = "ed25519:bench";

struct made_up {
    size_t count;
    uint16_t port;
    char (*names)[NAME_BYTES]; /* owned */
    struct ed25519_key key;
    struct now now;
    struct log *log;
    struct workers *workers;
    struct names *dns;
    struct http_server *servers[GROUPS];
    int silent_fd;
    pthread_mutex_t mutex; /* guards the rest; a leaf */
    char text[64];         /* that is waited for */
    size_t text_len;
    bool has[MADE_UP_MAX];
    size_t arrived;
    int64_t arrivals[MADE_UP_MAX];
    uint64_t transactions;
};

static size_t group_of(size_t index)
{
    return index % 2 == 0 ? LIVING : index % 4 == 1 ? REFUSING : SILENT;
}

bool made_up_is_mortal(size_t index)
{
    return group_of(index) != LIVING;
}

size_t made_up_living(const struct made_up *made_up)
{
    return (made_up->count + 1) / 2;
}

struct slice made_up_name(const struct made_up *made_up, size_t index)
{
    return slice_of(made_up->names[index]);
}

struct json_signer made_up_signer(const struct made_up *made_up, size_t index)
{
    return (struct json_signer){{made_up_name(made_up, index)}, slice_of(KEY_ID), &made_up->key};
}

struct slice made_up_authorization(const struct made_up *made_up, struct arena *arena, size_t index,
                                   const struct json *request)
{
    struct json_signer signer = made_up_signer(made_up, index);
    struct slice name = made_up_name(made_up, index);
    struct slice destination = json_get_string(request, LIT("destination"));
    struct json signed_request = *request;
    json_set(arena, &signed_request, LIT("origin"), json_string(name));
    json_sign(arena, &signed_request, &signer);
    struct slice sig = json_sign_find(&signed_request, name, signer.key_id);
    return arena_printf(arena,
                        "X-Matrix origin=\"%.*s\",destination=\"%.*s\",key=\"%s\",sig=\"%.*s\"",
                        (int)name.len, name.ptr, (int)destination.len, destination.ptr, KEY_ID,
                        (int)sig.len, sig.ptr);
}

/* --- what they answer --- */

static struct err answer_keys(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct made_up *made_up = app;
    struct arena *arena = ctx->arena;
    struct ed25519_public public_key = ed25519_public_of(&made_up->key);
    struct slice bytes = {(const char *)public_key.bytes, sizeof public_key.bytes};
    struct json object = json_object(), keys = json_object(), key = json_object();
    json_set(arena, &key, LIT("key"), json_string(base64_encode(arena, bytes, BASE64_STANDARD)));
    json_set(arena, &keys, slice_of(KEY_ID), key);
    json_set(arena, &object, LIT("server_name"), json_string(request->host));
    json_set(arena, &object, LIT("valid_until_ts"),
             json_int(now_wall_ms(&made_up->now) + KEYS_VALID_MS));
    json_set(arena, &object, LIT("verify_keys"), keys);
    json_set(arena, &object, LIT("old_verify_keys"), json_object());
    json_sign(arena, &object,
              &(struct json_signer){{request->host}, slice_of(KEY_ID), &made_up->key});
    json_write_canonical(&reply->body, &object);
    return OK;
}

/* The place of 127.1.X.Y:PORT or dI.made-up.test:PORT among the names. */
static size_t index_of(const struct made_up *made_up, struct slice host)
{
    struct slice part, rest = host;
    uint64_t net = 0, low = 0;
    rest = slice_cut(rest, '.', &part);
    if (slice_has_prefix(part, LIT("d"))) {
        bool is_number = slice_parse_u64(slice_from(part, 1), &low);
        return is_number && low < made_up->count ? (size_t)low : made_up->count;
    }
    rest = slice_cut(rest, '.', &part);
    rest = slice_cut(rest, '.', &part);
    slice_cut(rest, ':', &rest);
    bool good = slice_parse_u64(part, &net) && slice_parse_u64(rest, &low) && low > 0;
    size_t index = good ? (size_t)(net * NAMES_A_NET + low - 1) : made_up->count;
    return index < made_up->count ? index : made_up->count;
}

static struct err answer_transaction(void *app, struct ctx *ctx, const struct http_request *request,
                                     struct http_reply *reply)
{
    struct made_up *made_up = app;
    (void)ctx;
    size_t index = index_of(made_up, request->host);
    int64_t now_us = now_mono_us();
    pthread_mutex_lock(&made_up->mutex);
    made_up->transactions++;
    if (index < made_up->count && made_up->text_len > 0 && !made_up->has[index] &&
        slice_contains(request->body, (struct slice){made_up->text, made_up->text_len})) {
        made_up->has[index] = true;
        made_up->arrivals[made_up->arrived++] = now_us;
    }
    pthread_mutex_unlock(&made_up->mutex);
    buf_add(&reply->body, LIT("{\"pdus\":{}}"));
    return OK;
}

static const struct http_route ROUTES[] = {
    {.method = HTTP_GET,
     .path = "/_matrix/key/v2/server",
     .handler = answer_keys,
     .section = "Publishing Keys"},
    {.method = HTTP_PUT,
     .path = "/_matrix/federation/v1/send/{txnId}",
     .body = HTTP_BODY_JSON,
     .body_bytes_max = BODY_BYTES_MAX,
     .handler = answer_transaction,
     .section = "Transactions"},
};
static const struct http_route_table TABLE = {ROUTES, COUNT_OF(ROUTES)};

static struct err open_group(struct made_up *made_up, const struct made_up_config *config,
                             size_t group)
{
    struct http_listener listener = {
        .host = LIT("0.0.0.0"), .port = (uint16_t)(config->port + group), .tls = true};
    struct http_server_config server = {
        .listeners = &listener,
        .listener_count = 1,
        .tls_certificate = config->certificate,
        .tls_key = config->key,
        .loop_count = 1,
        .connection_max = CONNECTIONS,
        .connection_max_per_address = CONNECTIONS,
        .tables = &TABLE,
        .table_count = 1,
        .app = made_up,
        .workers = made_up->workers,
        .now = &made_up->now,
        .log = made_up->log,
    };
    TRY(http_server_new(&server, &made_up->servers[group]));
    return http_server_start(made_up->servers[group]);
}

struct err made_up_new(const struct made_up_config *config, struct made_up **made_up_out)
{
    struct made_up *made_up = mem_alloc(sizeof *made_up);
    *made_up_out = made_up;
    made_up->count = config->count;
    made_up->port = config->port;
    made_up->silent_fd = -1;
    made_up->now = now_system();
    made_up->key = ed25519_generate();
    made_up->log = log_new(LOG_LEVEL_ERROR, STDERR_FILENO);
    made_up->workers = workers_new("made-up", THREADS, QUEUE_MAX);
    made_up->names = mem_alloc(config->count * sizeof *made_up->names);
    pthread_mutex_init(&made_up->mutex, NULL);
    for (size_t i = 0; i < config->count; i++) {
        if (config->naming == MADE_UP_BY_NAME) {
            snprintf(made_up->names[i], NAME_BYTES, "d%zu.made-up.test:%zu", i,
                     config->port + group_of(i));
        } else {
            snprintf(made_up->names[i], NAME_BYTES, "127.1.%zu.%zu:%zu", i / NAMES_A_NET,
                     i % NAMES_A_NET + 1, config->port + group_of(i));
        }
    }
    if (config->naming == MADE_UP_BY_NAME) {
        TRY(names_new((uint16_t)(config->port + DNS_PORT), &made_up->dns));
    }
    for (size_t i = 0; i < GROUPS; i++) {
        TRY(open_group(made_up, config, i));
    }
    return OK;
}

static void close_group(struct made_up *made_up, size_t group)
{
    if (made_up->servers[group]) {
        http_server_stop(made_up->servers[group], 0);
        http_server_free(&made_up->servers[group]);
    }
}

void made_up_free(struct made_up **made_up)
{
    struct made_up *old = *made_up;
    if (!old) {
        return;
    }
    for (size_t i = 0; i < GROUPS; i++) {
        close_group(old, i);
    }
    if (old->silent_fd >= 0) {
        close(old->silent_fd);
    }
    names_free(&old->dns);
    workers_free(&old->workers);
    log_free(&old->log);
    pthread_mutex_destroy(&old->mutex);
    mem_free(old->names);
    mem_free(old);
    *made_up = NULL;
}

struct err made_up_kill_half(struct made_up *made_up)
{
    close_group(made_up, REFUSING);
    close_group(made_up, SILENT);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)(made_up->port + SILENT)),
                                  .sin_addr.s_addr = htonl(INADDR_ANY)};
    int on = 1;
    made_up->silent_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(made_up->silent_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* Nobody accepts: when the queue is full, packets of further peers are dropped. */
    bool good = made_up->silent_fd >= 0 &&
                bind(made_up->silent_fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                listen(made_up->silent_fd, 1) == 0;
    return good ? OK : err_public(ERR_IO, "the port of the silent servers cannot be taken again");
}

void made_up_expect(struct made_up *made_up, struct slice text)
{
    pthread_mutex_lock(&made_up->mutex);
    made_up->text_len = text.len < sizeof made_up->text ? text.len : 0;
    memcpy(made_up->text, text.ptr, made_up->text_len);
    memset(made_up->has, 0, sizeof made_up->has);
    made_up->arrived = 0;
    pthread_mutex_unlock(&made_up->mutex);
}

size_t made_up_arrived(struct made_up *made_up, int64_t *last_us_out)
{
    pthread_mutex_lock(&made_up->mutex);
    size_t arrived = made_up->arrived;
    *last_us_out = arrived ? made_up->arrivals[arrived - 1] : 0;
    pthread_mutex_unlock(&made_up->mutex);
    return arrived;
}

const int64_t *made_up_arrivals(const struct made_up *made_up)
{
    return made_up->arrivals;
}

uint64_t made_up_transactions(struct made_up *made_up)
{
    pthread_mutex_lock(&made_up->mutex);
    uint64_t transactions = made_up->transactions;
    pthread_mutex_unlock(&made_up->mutex);
    return transactions;
}
