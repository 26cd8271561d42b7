#include "homeserver/appservice/appservice.h"

#include "homeserver/appservice/as_priv.h"
#include "homeserver/appservice/registrations.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/users.h"

enum { PROBLEMS_BYTES_MAX = 1 << 16 };

static struct err fetch_with(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                             struct http_fetch_reply *reply_out)
{
    struct hs *hs = arg;
    return http_fetch(hs->fetcher, ctx, request, reply_out);
}

static void log_problems(struct hs *hs, struct slice problems)
{
    while (problems.len > 0) {
        struct slice line;
        problems = slice_cut(problems, '\n', &line);
        if (line.len > 0) {
            log_error(hs->log, "registration", .err = line);
        }
    }
}

static struct err load(struct hs *hs, struct appservice_table **table_out)
{
    struct buf problems;
    buf_init(&problems, PROBLEMS_BYTES_MAX);
    struct err err = as_registrations_load(hs->conf, &problems, table_out);
    log_problems(hs, buf_slice(&problems));
    buf_deinit(&problems);
    return err.code == 0 ? OK : err_make(ERR_SYNTAX, "a registration of an application service");
}

static void init_conditions(struct as *as)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&as->lock, NULL);
    pthread_cond_init(&as->calm, NULL);
    pthread_cond_init(&as->stops, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

struct err as_new_with(struct hs *hs, const struct as_port *port, struct appservice_table **table,
                       struct as **as_out)
{
    struct as *as = mem_alloc(sizeof *as);
    as->hs = hs;
    as->port = port ? *port : (struct as_port){.fetch = fetch_with, .arg = hs};
    as->interest = as_interest_new(hs);
    init_conditions(as);
    hs_appservices_replace(hs, table);
    struct hs_tail_port tail = as_tail_port;
    tail.arg = as;
    as->tail = hs_tail_new(hs, &tail);
    hs->as = as;
    as_names_hook(as);
    *as_out = as;
    return OK;
}

struct err as_new(struct hs *hs, const struct as_port *port, struct as **as_out)
{
    struct appservice_table *table = NULL;
    *as_out = NULL;
    if (hs->conf->app_service_config_files.count == 0) {
        return OK;
    }
    TRY(load(hs, &table));
    return as_new_with(hs, port, &table, as_out);
}

/* --- senders --- */

static struct err make_sender(struct hs *hs, struct ctx *ctx, const struct appservice *service)
{
    uint64_t user = 0;
    struct account_draft draft = {.user_id = service->sender,
                                  .display_name =
                                      ids_user_localpart(ids_trust_user(service->sender)),
                                  .appservice = service->id};
    struct err err = hs_account_create(hs, ctx, &draft, &user);
    return err.code == ERR_M_USER_IN_USE ? OK : err;
}

static struct err make_senders(struct hs *hs)
{
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    const struct appservice_table *table = hs_appservices_table(hs);
    struct err err = OK;
    for (size_t i = 0; i < table->count && err.code == 0; i++) {
        err = make_sender(hs, &ctx, &table->items[i]);
    }
    if (err.code == 0 && ctx.write_ticket) {
        err = store_wait_durable(hs->store, ctx.write_ticket);
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return err;
}

/* --- life --- */

struct err as_prepare(struct as *as)
{
    return make_senders(as->hs);
}

struct err as_start(struct as *as)
{
    return hs_tail_start(as->tail);
}

struct err as_reload(struct as *as)
{
    struct appservice_table *table = NULL;
    TRY(load(as->hs, &table));
    hs_appservices_replace(as->hs, &table);
    hs_tail_poke(as->tail);
    return make_senders(as->hs);
}

static void refuse_more(struct as *as)
{
    pthread_mutex_lock(&as->lock);
    as->is_stopping = true;
    pthread_cond_broadcast(&as->stops);
    pthread_mutex_unlock(&as->lock);
}

void as_stop(struct as *as)
{
    refuse_more(as);
    hs_tail_stop(as->tail);
}

void as_abandon(struct as *as)
{
    refuse_more(as);
    hs_tail_abandon(as->tail);
}

void as_free(struct as **as)
{
    struct as *a = *as;
    if (!a) {
        return;
    }
    hs_tail_free(&a->tail);
    for (size_t i = 0; i < a->queue_count; i++) {
        as_passing_drop(a->queues[i]);
        mem_free(a->queues[i]);
    }
    as_interest_free(&a->interest);
    pthread_cond_destroy(&a->stops);
    pthread_cond_destroy(&a->calm);
    pthread_mutex_destroy(&a->lock);
    a->hs->as = NULL;
    mem_free(a);
    *as = NULL;
}

/* Lock held. */
static bool is_calm(const struct as *as)
{
    bool calm = as->sending == 0;
    for (size_t i = 0; i < as->queue_count; i++) {
        const struct as_queue *queue = as->queues[i];
        calm = calm && (!queue->service || queue->state == AS_WAITING || !queue->has_work);
    }
    return calm;
}

void as_settle(struct as *as)
{
    for (bool calm = false; !calm;) {
        hs_tail_poke(as->tail);
        hs_tail_settle(as->tail);
        pthread_mutex_lock(&as->lock);
        while (as->sending > 0) {
            pthread_cond_wait(&as->calm, &as->lock);
        }
        calm = is_calm(as);
        pthread_mutex_unlock(&as->lock);
    }
}
