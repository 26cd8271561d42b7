#include "tools/myelin-chat/api.h"

#include "homeserver/base/mem.h"

#include <curl/curl.h>
#include <string.h>

enum { REPLY_BYTES_MAX = 1 << 28, CONNECT_SECONDS = 15, REQUEST_SECONDS = 60, WAIT_SECONDS = 90 };

struct api {
    CURL *easy;
    CURLM *multi;
    struct api_options options;
    struct arena *arena; /* of the options */
};

struct transfer {
    const char *method;
    struct slice path, sent;
    struct buf body; /* of the reply */
    struct curl_slist *headers_owned;
    long status;
};

struct err api_new(const struct api_options *options, struct api **api_out)
{
    struct api *api = mem_alloc(sizeof *api);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    api->arena = arena_new();
    api->easy = curl_easy_init();
    api->multi = curl_multi_init();
    api->options = *options;
    api->options.server = arena_copy(api->arena, options->server);
    api->options.token = arena_copy(api->arena, options->token);
    *api_out = api;
    return api->easy && api->multi ? OK : err_public(ERR_IO, "libcurl cannot start");
}

void api_free(struct api **api)
{
    if (*api) {
        curl_easy_cleanup((*api)->easy);
        curl_multi_cleanup((*api)->multi);
        arena_free(&(*api)->arena);
        mem_free(*api);
        *api = NULL;
    }
}

static size_t take(char *bytes, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    buf_add(&transfer->body, (struct slice){bytes, size * count});
    return transfer->body.overflow ? 0 : size * count;
}

static void prepare(struct api *api, struct arena *arena, struct transfer *transfer)
{
    const struct api_options *options = &api->options;
    struct slice url =
        arena_printf(arena, "%.*s/_matrix/client%.*s", (int)options->server.len,
                     options->server.ptr, (int)transfer->path.len, transfer->path.ptr);
    buf_init_arena(&transfer->body, arena, REPLY_BYTES_MAX);
    curl_easy_reset(api->easy);
    curl_easy_setopt(api->easy, CURLOPT_URL, arena_cstr(arena, url));
    curl_easy_setopt(api->easy, CURLOPT_CUSTOMREQUEST, transfer->method);
    curl_easy_setopt(api->easy, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(api->easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(api->easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(api->easy, CURLOPT_TIMEOUT, (long)REQUEST_SECONDS);
    curl_easy_setopt(api->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(api->easy, CURLOPT_ACCEPT_ENCODING, "");
    if (options->ca_file) {
        curl_easy_setopt(api->easy, CURLOPT_CAINFO, options->ca_file);
    }
    if (options->check == API_INSECURE) {
        curl_easy_setopt(api->easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(api->easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (transfer->sent.ptr) {
        curl_easy_setopt(api->easy, CURLOPT_POSTFIELDSIZE, (long)transfer->sent.len);
        curl_easy_setopt(api->easy, CURLOPT_COPYPOSTFIELDS, arena_cstr(arena, transfer->sent));
    }
    transfer->headers_owned = curl_slist_append(NULL, "Content-Type: application/json");
    if (options->token.len > 0) {
        struct slice line = arena_printf(arena, "Authorization: Bearer %.*s",
                                         (int)options->token.len, options->token.ptr);
        transfer->headers_owned =
            curl_slist_append(transfer->headers_owned, arena_cstr(arena, line));
    }
    curl_easy_setopt(api->easy, CURLOPT_HTTPHEADER, transfer->headers_owned);
}

static struct err finish(struct api *api, struct arena *arena, CURLcode code,
                         struct transfer *transfer, struct api_reply *reply_out)
{
    curl_easy_getinfo(api->easy, CURLINFO_RESPONSE_CODE, &transfer->status);
    curl_easy_setopt(api->easy, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(transfer->headers_owned);
    if (code != CURLE_OK) {
        return err_publicf(arena, ERR_IO, "%.*s: %s", (int)api->options.server.len,
                           api->options.server.ptr, curl_easy_strerror(code));
    }
    reply_out->status = (int)transfer->status;
    struct err err = json_parse(arena, buf_slice(&transfer->body), &reply_out->json);
    if (err.code != 0) {
        return err_publicf(arena, ERR_SYNTAX,
                           "%.*s answered %ld without JSON; is it a Matrix "
                           "homeserver's base URL?",
                           (int)api->options.server.len, api->options.server.ptr, transfer->status);
    }
    return OK;
}

struct err api_request(struct api *api, struct arena *arena, const char *method, struct slice path,
                       struct slice body, struct api_reply *reply_out)
{
    struct transfer transfer = {.method = method, .path = path, .sent = body};
    prepare(api, arena, &transfer);
    return finish(api, arena, curl_easy_perform(api->easy), &transfer, reply_out);
}

static struct err refusal(struct arena *arena, const struct api_reply *reply)
{
    struct slice code = json_get_string(&reply->json, LIT("errcode"));
    struct slice text = json_get_string(&reply->json, LIT("error"));
    return err_publicf(arena, ERR_UNAVAILABLE, "the server refused (%d %.*s): %.*s", reply->status,
                       (int)code.len, code.ptr ? code.ptr : "", (int)text.len,
                       text.ptr ? text.ptr : "");
}

struct err api_call(struct api *api, struct arena *arena, const char *method, struct slice path,
                    struct slice body, struct json *json_out)
{
    struct api_reply reply;
    TRY(api_request(api, arena, method, path, body, &reply));
    if (reply.status != 200) {
        return refusal(arena, &reply);
    }
    *json_out = reply.json;
    return OK;
}

/* Runs the transfer of the multi handle to its end. */
static CURLcode run(struct api *api, const struct api_wait *wait)
{
    int running = 1, left = 0;
    CURLcode code = CURLE_OK;
    while (running > 0) {
        struct curl_waitfd extra = {.fd = wait->fd, .events = CURL_WAIT_POLLIN};
        curl_multi_perform(api->multi, &running);
        if (running > 0) {
            curl_multi_poll(api->multi, &extra, wait->fd >= 0 ? 1 : 0, 1000, NULL);
        }
        if (extra.revents != 0) {
            wait->ready(wait->arg);
        }
    }
    for (CURLMsg *message; (message = curl_multi_info_read(api->multi, &left));) {
        if (message->msg == CURLMSG_DONE) {
            code = message->data.result;
        }
    }
    return code;
}

struct err api_wait(struct api *api, struct arena *arena, const struct api_wait *wait,
                    struct api_reply *reply_out)
{
    struct transfer transfer = {.method = "GET", .path = wait->path};
    prepare(api, arena, &transfer);
    curl_easy_setopt(api->easy, CURLOPT_TIMEOUT, (long)WAIT_SECONDS);
    curl_multi_add_handle(api->multi, api->easy);
    CURLcode code = run(api, wait);
    curl_multi_remove_handle(api->multi, api->easy);
    return finish(api, arena, code, &transfer, reply_out);
}

struct slice api_encode(struct arena *arena, struct slice text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_alloc(arena, text.len * 3 + 1);
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            (c != 0 && strchr("-._~", c))) {
            out[len++] = (char)c;
        } else {
            out[len++] = '%';
            out[len++] = hex[c >> 4];
            out[len++] = hex[c & 15];
        }
    }
    return (struct slice){out, len};
}
