#include "federation/fed_priv.h"

#include "federation/backfill.h"
#include "federation/call_start.h"
#include "federation/device_lists.h"
#include "federation/joins.h"
#include "federation/missing.h"
#include "federation/out_media.h"
#include "federation/out_query.h"
#include "federation/outbox.h"
#include "federation/partial.h"
#include "federation/receipt.h"
#include "federation/remote.h"
#include "federation/staged.h"
#include "federation/turns.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/destinations.h"
#include "homeserver/service/profiles.h"

#include <sys/resource.h>

enum {
    TRANSACTION_MS = 60 * 1000,
    HURRIED_MS = 10 * 1000, /* when thousands are under way */
    HURRIED_CONNECT_MS = 5 * 1000,
    SENDERS = 2,
    SENDERS_QUEUE_MAX = 1 << 20,
    SENDING_MIN = 256,
};

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    return http_fetch(arg, ctx, request, reply_out);
}

static struct err find_srv(void *arg, struct ctx *ctx, struct slice service, struct slice host,
                           struct http_dns_srvs *srvs_out)
{
    const struct http_fetch_question question = {HTTP_DNS_SRV, service, host};
    struct http_dns_answer answer = http_fetch_find(arg, ctx, &question);
    *srvs_out = answer.srvs;
    return answer.err;
}

static struct http_dns_answer find_addresses(void *arg, struct ctx *ctx, struct slice host)
{
    const struct http_fetch_question question = {.kind = HTTP_DNS_ADDRESSES, .name = host};
    return http_fetch_find(arg, ctx, &question);
}

/* --- the outbox's way out --- */

static void send_transaction(void *arg, struct ctx *ctx, const struct outbox_letter *letter,
                             const struct outbox_receipt *receipt)
{
    const struct fed_called done = {receipt->started, receipt->fn, receipt->arg};
    struct fed_call call = {.destination = letter->destination,
                            .method = LIT("PUT"),
                            .path =
                                fed_path(ctx, "/_matrix/federation/v1/send/%s", &letter->txn_id, 1),
                            .content_json = letter->body,
                            .body_bytes_max = FED_SMALL_ANSWER,
                            .connect_ms = letter->is_hurried ? HURRIED_CONNECT_MS : 0,
                            .timeout_ms = letter->is_hurried ? HURRIED_MS : TRANSACTION_MS,
                            .flags = letter->is_forced ? FED_CALL_ANYWAY : 0};
    fed_call_start(arg, &call, &done);
}

static bool is_down(void *arg, struct slice server, int64_t *until_out)
{
    return fed_peer_is_down(arg, server, until_out);
}

struct err fed_edu_queue(struct fed *fed, struct ctx *ctx, const struct slice *servers,
                         size_t count, const struct fed_edu *edu)
{
    return fed->outbox ? outbox_queue(fed->outbox, ctx, servers, count, edu) : OK;
}

static void live(struct hs *hs, struct slice server, struct destination_live *live_out)
{
    outbox_look(hs->fed->outbox, server, live_out);
}

static size_t retry(struct hs *hs, struct slice server)
{
    return outbox_retry(hs->fed->outbox, server);
}

static bool is_near(void *arg, struct slice server)
{
    struct fed *fed = arg;
    return http_fetch_is_linked(fed->hs->fetcher, server);
}

/* The other descriptors are for unused connections and for those that come in. */
static size_t sending_max(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    size_t most = (size_t)limit.rlim_max / 3;
    return most < SENDING_MIN ? SENDING_MIN : most;
}

static const struct hs_outbound outbound = {.live = live, .retry = retry};

static struct err begin_federating(struct fed *fed)
{
    struct hs *hs = fed->hs;
    struct outbox_port port = {.send = send_transaction,
                               .is_down = is_down,
                               .is_near = hs->fetcher ? is_near : NULL,
                               .acl = fed_acl_allows,
                               .sending_max = sending_max(),
                               .arg = fed};
    hs->remote = &fed_remote;
    hs_profile_set_remote(hs, fed_profile);
    hs->authenticate_server = fed_authenticate;
    if (!hs->positions || !hs->keys || !hs->inbox) { /* nothing happens here that others hear of */
        return OK;
    }
    fed_keys_hook(hs);
    hs->outbound = &outbound;
    fed->senders = workers_new("sender", SENDERS, SENDERS_QUEUE_MAX);
    port.pool = fed->senders;
    return outbox_new(hs, &port, &fed->outbox);
}

struct err fed_new(struct hs *hs, struct fed **fed_out)
{
    struct fed *fed = mem_alloc(sizeof *fed);
    fed->hs = hs;
    fed->net = (struct fed_net){.fetch = fetch,
                                .find_srv = find_srv,
                                .find_addresses = find_addresses,
                                .unwatched = hs->fetcher,
                                .arg = hs->fetcher};
    fed->destinations = fed_destinations_new();
    fed->peers = fed_peers_new();
    fed->keys = fed_keys_new();
    fed->answers = fed_answers_new();
    fed->media = fed_media_new();
    fed->turns = turns_new();
    fed->staged = staged_new(fed, fed_missing_fill);
    fed->backfills = backfills_new();
    receipt_name_stats(hs->stats);
    fed->joins = fed_joins_new();
    fed->partial = fed_partial_new(fed);
    hs->fed = fed;
    fed->device_lists = device_lists_new();
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log};
    struct err err = fed_peers_load(fed, &ctx);
    arena_free(&ctx.arena);
    if (err.code == 0 && hs->conf->federation_enabled) {
        err = begin_federating(fed);
    }
    if (err.code) {
        fed_free(&fed);
    }
    *fed_out = fed;
    return err;
}

struct err fed_start(struct fed *fed)
{
    if (!fed->hs->conf->federation_enabled) {
        return OK;
    }
    TRY(staged_start(fed->staged));
    if (fed->outbox) {
        TRY(outbox_start(fed->outbox));
    }
    return fed_partial_start(fed->partial);
}

void fed_stop(struct fed *fed)
{
    if (fed->hs->fetcher) { /* what is being sent or fetched is so again next time */
        http_fetcher_stop(fed->hs->fetcher);
    }
    fed_partial_stop(fed->partial);
    staged_stop(fed->staged);
    if (fed->outbox) {
        outbox_stop(fed->outbox);
        workers_join(fed->senders);
    }
    if (fed->outbox && fed->hs->fetcher) { /* whose thread hands jobs to them */
        http_fetcher_await(fed->hs->fetcher);
    }
}

void fed_free(struct fed **pointer)
{
    struct fed *fed = *pointer;
    if (!fed) {
        return;
    }
    fed->hs->fed = NULL;
    fed->hs->remote = NULL;
    fed->hs->outbound = NULL;
    fed->hs->authenticate_server = NULL;
    fed_media_free(&fed->media);
    fed_answers_free(&fed->answers);
    backfills_free(&fed->backfills);
    staged_free(&fed->staged);
    turns_free(&fed->turns);
    fed_partial_free(&fed->partial);
    fed_joins_free(&fed->joins);
    outbox_free(&fed->outbox);
    workers_free(&fed->senders);
    device_lists_free(&fed->device_lists);
    fed_keys_free(&fed->keys);
    fed_peers_free(&fed->peers);
    fed_destinations_free(&fed->destinations);
    mem_free(fed);
    *pointer = NULL;
}
