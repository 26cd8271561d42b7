/* Asking services for users and aliases of their namespaces that are not known here. One that gives
 * no answer is asked again, and then nobody knows whether there is such a name.
 * Spec: application-service, "Querying". */
#include "homeserver/appservice/as_priv.h"
#include "homeserver/base/pause.h"

enum {
    TRIES_MAX = 3,
    TRY_MS_MAX = 10000,   /* one request */
    QUERY_MS_MAX = 25000, /* all of them together */
    PAUSE_MS_MIN = 500,
    PAUSE_MS_MAX = 1000,
};

struct query {
    const char *path, *legacy;
    struct slice name;
    bool (*covers)(const struct hs *hs, const struct appservice *service, struct slice name);
};

enum answer { ANSWER_NO, ANSWER_YES, ANSWER_NONE };

/* A gateway in front of a service that is down says so for it. */
static bool is_answer(struct err err, int status)
{
    return err.code == 0 && status != 502 && status != 503 && status != 504;
}

static bool is_stopping(struct as *as)
{
    pthread_mutex_lock(&as->lock);
    bool stopping = as->is_stopping;
    pthread_mutex_unlock(&as->lock);
    return stopping;
}

/* Transactions have failed lately, and are being tried again: questions need not be. */
static bool is_known_down(struct as *as, const struct appservice *service)
{
    pthread_mutex_lock(&as->lock);
    const struct as_queue *queue = as_queue_find(as, service->id);
    bool down = queue && queue->state == AS_WAITING && queue->failures > 0;
    pthread_mutex_unlock(&as->lock);
    return down;
}

static void wait_before(struct as *as, uint32_t failures)
{
    int64_t ms = pause_after_failures(failures, PAUSE_MS_MIN, PAUSE_MS_MAX);
    if (as->port.pause) {
        as->port.pause(as->port.arg, ms);
        return;
    }
    int64_t until_ms = now_mono_us() / 1000 + ms;
    pthread_mutex_lock(&as->lock);
    for (int64_t left = ms; left > 0 && !as->is_stopping; left = until_ms - now_mono_us() / 1000) {
        pause_on(&as->stops, &as->lock, left);
    }
    pthread_mutex_unlock(&as->lock);
}

static struct err ask_once(struct as *as, struct ctx *ctx, const struct as_call *call,
                           enum answer *answer_out)
{
    struct http_fetch_reply reply = {0};
    struct err err = as_call(as, ctx, call, &reply);
    *answer_out = ANSWER_NONE;
    if (err.code == ERR_WAITS || err.code == ERR_CANCELLED) {
        return err;
    }
    if (is_answer(err, reply.status)) {
        *answer_out = reply.status / 100 == 2 ? ANSWER_YES : ANSWER_NO;
    }
    return OK;
}

/* Spec: "If the homeserver does not receive a response to this request, the homeserver should retry
 * several times before timing out." */
static struct err ask_service(struct as *as, struct ctx *ctx, const struct appservice *service,
                              const struct query *query, enum answer *answer_out)
{
    struct as_call call = {.service = service,
                           .path = as_path(ctx, query->path, query->name),
                           .legacy = as_path(ctx, query->legacy, query->name),
                           .timeout_ms = TRY_MS_MAX};
    uint32_t tries = is_known_down(as, service) ? 1 : TRIES_MAX;
    int64_t until_ms = now_mono_ms(ctx->now) + QUERY_MS_MAX;
    TRY(ask_once(as, ctx, &call, answer_out));
    for (uint32_t i = 1; i < tries && *answer_out == ANSWER_NONE && !is_stopping(as); i++) {
        wait_before(as, i);
        int64_t left_ms = until_ms - now_mono_ms(ctx->now);
        if (left_ms <= 0) {
            break;
        }
        call.timeout_ms = left_ms < TRY_MS_MAX ? left_ms : TRY_MS_MAX;
        TRY(ask_once(as, ctx, &call, answer_out));
    }
    if (*answer_out == ANSWER_NONE) {
        log_warn(as->hs->log, "appservice_query", .dest = service->id,
                 .err = LIT("it does not answer"));
    }
    return OK;
}

/* Services are asked one after the other, in the order of the configuration, until one has the
 * name. */
static struct err ask(struct hs *hs, struct ctx *ctx, const struct query *query, bool *made_out)
{
    const struct appservice_table *table = hs_appservices_table(hs);
    bool is_unsure = false;
    *made_out = false;
    for (size_t i = 0; i < table->count && !*made_out; i++) {
        const struct appservice *service = &table->items[i];
        enum answer answer = ANSWER_NO;
        if (service->url.ptr && query->covers(hs, service, query->name)) {
            TRY(ask_service(hs->as, ctx, service, query, &answer));
        }
        *made_out = answer == ANSWER_YES;
        is_unsure = is_unsure || answer == ANSWER_NONE;
    }
    /* Spec: "This should result in an HTTP status 408". */
    return is_unsure && !*made_out
               ? err_public(ERR_M_REQUEST_TIMEOUT,
                            "The application service that keeps this name does not answer; try "
                            "again later.")
               : OK;
}

static struct err ask_user(struct hs *hs, struct ctx *ctx, struct slice user_id, bool *made_out)
{
    const struct query query = {"/_matrix/app/v1/users/%s", "/users/%s", user_id,
                                hs_appservice_has_user};
    return ask(hs, ctx, &query, made_out);
}

static struct err ask_alias(struct hs *hs, struct ctx *ctx, struct slice alias, bool *made_out)
{
    const struct query query = {"/_matrix/app/v1/rooms/%s", "/rooms/%s", alias,
                                hs_appservice_has_alias};
    return ask(hs, ctx, &query, made_out);
}

/* A service that calls is there: what waits for it goes out, at most once a second. */
static void seen(struct hs *hs, const struct appservice *service)
{
    enum { SEEN_EVERY_MS = 1000 };
    struct as *as = hs->as;
    int64_t now = now_mono_ms(hs->now);
    bool wakes = false;
    pthread_mutex_lock(&as->lock);
    struct as_queue *queue = as_queue_find(as, service->id);
    if (queue && queue->state == AS_WAITING && now - queue->seen_mono_ms >= SEEN_EVERY_MS) {
        queue->seen_mono_ms = now;
        queue->is_forced = wakes = true;
    }
    pthread_mutex_unlock(&as->lock);
    if (wakes) {
        hs_tail_poke(as->tail);
    }
}

void as_names_hook(struct as *as)
{
    const struct hs_appservice_port port = {ask_user, ask_alias, seen};
    hs_appservices_set_port(as->hs, &port);
}
