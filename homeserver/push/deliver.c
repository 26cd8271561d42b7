/* One message to one gateway or push service, and what its answer means.
 * Spec: push-gateway, "Push Gateway API"; RFC 8030, 8291 and 8292 for web push. */
#include "homeserver/push/push_priv.h"

#include "crypto/base64.h"
#include "crypto/webpush.h"

#include <string.h>

enum {
    TIMEOUT_MS = 20000,
    ANSWER_BYTES_MAX = 65536,
    PAYLOAD_BYTES_MAX = 1 << 20,
    TOKEN_LIFE_S = 12 * 3600,
    TTL_NEWS_S = 28 * 24 * 3600, /* a message waits for a phone that is off */
    TTL_COUNT_S = 24 * 3600,
    TTL_ACK_S = 300, /* as long as the token counts */
    HEADERS_MAX = 8,
    RETRY_AFTER_MS_MAX = 24 * 3600 * 1000,
    TOPIC_CHARS = 32,
};

/* A gateway that a user names is no trusted target: addresses are checked, and only HTTPS is spoken
 * unless the operator opened his own network. */
static uint32_t fetch_flags(const struct push *push)
{
    return push->hs->conf->network_allow_private_addresses ? HTTP_FETCH_ANY_ADDRESS
                                                           : HTTP_FETCH_HTTPS_ONLY;
}

static bool is_passing(int status)
{
    return status / 100 == 5 || status == 408 || status == 425 || status == 429;
}

/* Seconds; a date is not read: the pause is then our own. */
static int64_t retry_after(const struct http_fetch_reply *reply)
{
    uint64_t seconds = 0;
    struct slice value = http_fetch_header(reply, LIT("Retry-After"));
    if (!slice_parse_u64(slice_trim(value), &seconds) || seconds > RETRY_AFTER_MS_MAX / 1000) {
        return 0;
    }
    return (int64_t)seconds * 1000;
}

static struct push_reception no_answer(struct err err)
{
    bool gone = err.code == ERR_CANCELLED;
    bool is_theirs = err.code == ERR_UNAVAILABLE || err.code == ERR_TIMEOUT;
    return (struct push_reception){.kind = gone        ? PUSH_CANCELLED
                                           : is_theirs ? PUSH_GATEWAY_OUT
                                                       : PUSH_LATER};
}

static struct push_reception judge_failure(const struct http_fetch_reply *reply)
{
    struct push_reception reception = {.kind = PUSH_LATER,
                                       .has_answered = true,
                                       .status = reply->status,
                                       .retry_after_ms = retry_after(reply)};
    if (reply->status / 100 == 5) {
        reception.kind = PUSH_GATEWAY_OUT;
    } else if (!is_passing(reply->status)) {
        reception.kind = PUSH_REFUSED;
    }
    return reception;
}

/* --- the push gateway API --- */

static struct push_reception deliver_http(struct push *push, struct ctx *ctx,
                                          const struct push_letter *letter)
{
    struct buf body;
    struct http_fetch_reply reply;
    const struct http_header headers[] = {{LIT("Content-Type"), LIT("application/json")}};
    buf_init_arena(&body, ctx->arena, PAYLOAD_BYTES_MAX);
    push_write_http(&body, letter->notice, letter->pusher, letter->data);
    struct http_fetch_request request = {.method = LIT("POST"),
                                         .url = letter->data->url,
                                         .headers = headers,
                                         .header_count = COUNT_OF(headers),
                                         .body = buf_slice(&body),
                                         .timeout_ms = TIMEOUT_MS,
                                         .body_bytes_max = ANSWER_BYTES_MAX,
                                         .flags = fetch_flags(push)};
    struct err err = push->port.fetch(push->port.arg, ctx, &request, &reply);
    if (err.code != 0) {
        return no_answer(err);
    }
    if (reply.status / 100 != 2) {
        return judge_failure(&reply);
    }
    bool rejected = push_is_rejected(ctx->arena, reply.body, letter->pusher->pushkey);
    return (struct push_reception){.kind = rejected ? PUSH_KEY_GONE : PUSH_TAKEN,
                                   .has_answered = true,
                                   .status = reply.status};
}

/* --- web push --- */

static struct slice activation_text(struct ctx *ctx, const struct pusher *pusher)
{
    struct buf buf;
    buf_init_arena(&buf, ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&buf);
    json_out_object(&out);
    json_out_key_string(&out, LIT("app_id"), pusher->app_id);
    json_out_key_string(&out, LIT("ack_token"), pusher->ack_token);
    json_out_object_end(&out);
    return buf_slice(&buf);
}

/* Who runs this server: a push service writes there when something is wrong. */
static struct slice contact_of(struct push *push, struct ctx *ctx)
{
    const struct conf *conf = push->hs->conf;
    if (conf->push_contact.len) {
        return conf->push_contact;
    }
    return slice_has_prefix(conf->public_baseurl, LIT("https://"))
               ? conf->public_baseurl
               : arena_concat(ctx->arena, LIT("https://"), push->hs->server_name);
}

/* Counts replace each other, and events of a room do not: RFC 8030, 5.4. */
static size_t web_headers(struct push *push, const struct push_notice *notice,
                          struct slice authorization, struct http_header *headers)
{
    size_t count = 0;
    (void)push;
    bool is_count = notice && notice->event_id.len == 0;
    headers[count++] = (struct http_header){LIT("Content-Type"), LIT("application/octet-stream")};
    headers[count++] = (struct http_header){LIT("Content-Encoding"), LIT("aes128gcm")};
    headers[count++] = (struct http_header){LIT("Authorization"), authorization};
    if (is_count) {
        headers[count++] = (struct http_header){LIT("Topic"), LIT("unread")};
    }
    bool is_urgent = !notice || notice->is_urgent;
    headers[count++] = (struct http_header){
        LIT("Urgency"), is_urgent ? LIT("high") : (is_count ? LIT("low") : LIT("normal"))};
    return count;
}

static struct push_reception judge_web(const struct http_fetch_reply *reply)
{
    int status = reply->status;
    if (status / 100 == 2) {
        return (struct push_reception){PUSH_TAKEN, true, 0, status};
    }
    /* RFC 8030, 7.3: the subscription has ended; MSC4174 adds 403. */
    if (status == 404 || status == 410 || status == 403) {
        return (struct push_reception){PUSH_KEY_GONE, true, 0, status};
    }
    return judge_failure(reply);
}

static struct err seal_web(struct push *push, struct ctx *ctx, const struct push_letter *letter,
                           struct http_fetch_request *request)
{
    struct webpush_subscriber subscriber;
    struct slice authorization, body;
    struct http_header *headers = arena_array(ctx->arena, HEADERS_MAX, sizeof *headers);
    struct webpush_claims claims = {.audience = letter->data->gateway,
                                    .contact = contact_of(push, ctx),
                                    .until_s = now_wall_ms(ctx->now) / 1000 + TOKEN_LIFE_S};
    struct slice text = letter->notice ? push_write_web(ctx->arena, letter->notice, letter->data,
                                                        WEBPUSH_TEXT_BYTES_MAX)
                                       : activation_text(ctx, letter->pusher);
    const struct p256_key *vapid = push_vapid(push);
    if (!vapid ||
        !webpush_parse_subscriber(letter->pusher->pushkey, letter->data->auth, &subscriber)) {
        return err_make(ERR_CORRUPT, "the pusher's keys are no keys of web push");
    }
    TRY(webpush_authorize(ctx->arena, vapid, &claims, &authorization));
    TRY(webpush_encrypt(ctx->arena, &subscriber, text, &body));
    size_t count = web_headers(push, letter->notice, authorization, headers);
    int ttl_s = !letter->notice                ? TTL_ACK_S
                : letter->notice->event_id.len ? TTL_NEWS_S
                                               : TTL_COUNT_S;
    headers[count++] = (struct http_header){LIT("TTL"), arena_printf(ctx->arena, "%d", ttl_s)};
    *request = (struct http_fetch_request){.method = LIT("POST"),
                                           .url = letter->data->url,
                                           .headers = headers,
                                           .header_count = count,
                                           .body = body,
                                           .timeout_ms = TIMEOUT_MS,
                                           .body_bytes_max = ANSWER_BYTES_MAX,
                                           .flags = fetch_flags(push)};
    return OK;
}

static struct push_reception deliver_web(struct push *push, struct ctx *ctx,
                                         const struct push_letter *letter)
{
    struct http_fetch_request request;
    struct http_fetch_reply reply;
    struct err err = seal_web(push, ctx, letter, &request);
    if (err.code != 0) {
        return (struct push_reception){.kind = PUSH_REFUSED};
    }
    err = push->port.fetch(push->port.arg, ctx, &request, &reply);
    return err.code != 0 ? no_answer(err) : judge_web(&reply);
}

struct push_reception push_deliver(struct push *push, struct ctx *ctx,
                                   const struct push_letter *letter)
{
    return letter->data->kind == PUSHER_WEBPUSH ? deliver_web(push, ctx, letter)
                                                : deliver_http(push, ctx, letter);
}
