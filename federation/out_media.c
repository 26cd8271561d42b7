#include "federation/out_media.h"

#include "federation/fed_priv.h"
#include "federation/multipart.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/media/media.h"

#include <pthread.h>

/* The peer may wait as long for an upload as our client does, and then there is the transfer. */
enum { TRANSFER_MS = 120000, REDIRECTS_MAX = 3, WANTING_MAX = 16, ENVELOPE_BYTES = 1 << 20 };

struct fed_media {
    pthread_mutex_t lock; /* a leaf */
    pthread_cond_t ended;
    struct map *running; /* kept id -> those who want it */
};

struct fed_media *fed_media_new(void)
{
    struct fed_media *media = mem_alloc(sizeof *media);
    pthread_mutex_init(&media->lock, NULL);
    pthread_cond_init(&media->ended, NULL);
    media->running = map_new();
    return media;
}

void fed_media_free(struct fed_media **pointer)
{
    struct fed_media *media = *pointer;
    if (media) {
        map_free(&media->running);
        pthread_cond_destroy(&media->ended);
        pthread_mutex_destroy(&media->lock);
        mem_free(media);
        *pointer = NULL;
    }
}

struct fetching {
    struct hs *hs;
    struct ctx *ctx;
    struct slice server, media_id, kept_id;
    int64_t timeout_ms;
    struct media_upload upload;
    struct media draft;
};

static struct err append(void *arg, struct slice bytes)
{
    struct fetching *f = arg;
    return media_upload_append(&f->upload, bytes);
}

static void describe(struct fetching *f, struct slice type, struct slice disposition)
{
    f->draft.content_type = media_clean_type(type);
    f->draft.file_name = media_clean_name(multipart_file_name(f->ctx->arena, disposition));
}

/* Begins anew when a first try left bytes behind. */
static struct err begin(struct fetching *f)
{
    media_upload_abort(&f->upload);
    return media_upload_begin(f->hs, &f->upload);
}

/* A file of another server may be as large as one of this server, and what holds it comes on top.
 */
static size_t answer_bytes(const struct fetching *f)
{
    return (size_t)f->hs->conf->limits_upload_bytes + ENVELOPE_BYTES;
}

/* The peer keeps its files elsewhere; it is asked without our name, and public addresses only. */
static struct err fetch_elsewhere(struct fetching *f, struct slice location)
{
    struct http_fetch_reply reply;
    struct http_fetch_request request = {.url = location,
                                         .timeout_ms = TRANSFER_MS,
                                         .body_bytes_max = answer_bytes(f),
                                         .redirects_max = REDIRECTS_MAX,
                                         .flags = fed_fetch_flags(f->hs->fed),
                                         .sink = append,
                                         .sink_arg = f};
    TRY(begin(f));
    TRY(f->hs->fed->net.fetch(f->hs->fed->net.arg, f->ctx, &request, &reply));
    if (reply.status / 100 != 2) {
        return err_public(ERR_M_NOT_FOUND, "The file is not where its server says.");
    }
    describe(f, reply.content_type, http_fetch_header(&reply, LIT("Content-Disposition")));
    return OK;
}

/* What a refusal means to the client. is_old_out: the server does not know the endpoint. */
static struct err refusal(struct fetching *f, const struct fed_answer *answer, bool *is_old_out)
{
    struct json body = {0};
    bool parsed = json_parse(f->ctx->arena, answer->body, &body).code == 0;
    struct slice errcode = parsed ? json_get_string(&body, LIT("errcode")) : (struct slice){0};
    /* What is no answer of this protocol comes from something that does not know the endpoint. */
    *is_old_out = errcode.len ? slice_eq(errcode, LIT("M_UNRECOGNIZED")) && answer->status == 404
                              : answer->status / 100 == 4;
    if (slice_eq(errcode, LIT("M_NOT_YET_UPLOADED"))) {
        return err_make(ERR_M_NOT_YET_UPLOADED, "announced at its server");
    }
    if (slice_eq(errcode, LIT("M_TOO_LARGE"))) {
        return err_public(ERR_M_TOO_LARGE, "The file is too large for its server to send.");
    }
    return answer->status == 404
               ? err_public(ERR_M_NOT_FOUND, "The file's server has no media of this id.")
               : err_make(ERR_UNAVAILABLE, "the file's server refused");
}

static struct err fetch_signed(struct fetching *f, bool *is_old_out)
{
    struct multipart multipart;
    struct fed_answer answer;
    struct slice parts[] = {f->media_id,
                            arena_printf(f->ctx->arena, "%lld", (long long)f->timeout_ms)};
    multipart_begin(&multipart, f->ctx->arena, append, f);
    struct fed_call call = {
        .destination = f->server,
        .path =
            fed_path(f->ctx, "/_matrix/federation/v1/media/download/%s?timeout_ms=%s", parts, 2),
        .timeout_ms = TRANSFER_MS,
        .body_bytes_max = answer_bytes(f),
        .sink = multipart_read,
        .sink_arg = &multipart};
    *is_old_out = false;
    TRY(begin(f));
    TRY(fed_call(f->hs->fed, f->ctx, &call, &answer));
    if (answer.status / 100 != 2) {
        return refusal(f, &answer, is_old_out);
    }
    if (!multipart_is_whole(&multipart)) {
        return err_make(ERR_UNAVAILABLE, "the file's server sent half of it");
    }
    if (multipart.location.len) {
        return fetch_elsewhere(f, multipart.location);
    }
    describe(f, multipart.content_type, multipart.disposition);
    return OK;
}

/* Servers from before authenticated media. */
static struct err fetch_old(struct fetching *f)
{
    struct fed_answer answer;
    bool is_old = false;
    struct slice parts[] = {f->server, f->media_id};
    struct fed_call call = {
        .destination = f->server,
        .path = fed_path(f->ctx,
                         "/_matrix/media/v3/download/%s/%s?allow_remote=false&allow_redirect=true",
                         parts, 2),
        .timeout_ms = TRANSFER_MS,
        .body_bytes_max = answer_bytes(f),
        .redirects_max = REDIRECTS_MAX,
        .flags = FED_CALL_UNSIGNED,
        .sink = append,
        .sink_arg = f};
    TRY(begin(f));
    TRY(fed_call(f->hs->fed, f->ctx, &call, &answer));
    if (answer.status / 100 != 2) {
        return refusal(f, &answer, &is_old);
    }
    describe(f, answer.content_type, answer.disposition);
    return OK;
}

static struct err fetch(struct fetching *f)
{
    bool is_old = false;
    struct err err = fetch_signed(f, &is_old);
    if (err.code && is_old) {
        err = fetch_old(f);
    }
    if (err.code == ERR_SYNTAX) {
        err = err_make(ERR_UNAVAILABLE, "the file's server sent no multipart answer");
    }
    return err.code ? err : media_upload_finish_remote(f->hs, f->ctx, &f->upload, &f->draft);
}

/* is_first_out false: somebody else has fetched the file meanwhile, or failed to. Each who waits
 * holds a thread, so there are not many. */
static struct err become_fetcher(struct fed_media *media, struct slice kept_id, bool *is_first_out)
{
    uint64_t wanting = 0;
    pthread_mutex_lock(&media->lock);
    *is_first_out = !map_get(media->running, kept_id, &wanting);
    bool too_many = wanting == WANTING_MAX;
    if (!too_many) {
        map_set(media->running, kept_id, wanting + 1);
    }
    while (!*is_first_out && !too_many && map_get(media->running, kept_id, &wanting)) {
        pthread_cond_wait(&media->ended, &media->lock);
    }
    pthread_mutex_unlock(&media->lock);
    return too_many ? err_make(ERR_UNAVAILABLE, "many wait for this file already") : OK;
}

static void end_fetching(struct fed_media *media, struct slice kept_id)
{
    pthread_mutex_lock(&media->lock);
    map_remove(media->running, kept_id);
    pthread_cond_broadcast(&media->ended);
    pthread_mutex_unlock(&media->lock);
}

struct err fed_media(struct hs *hs, struct ctx *ctx, struct slice server, struct slice media_id,
                     int64_t timeout_ms)
{
    struct fetching f = {.hs = hs,
                         .ctx = ctx,
                         .server = server,
                         .media_id = media_id,
                         .kept_id = media_remote_id(ctx->arena, server, media_id),
                         .timeout_ms = timeout_ms};
    struct media media;
    bool found = false;
    bool is_first = false;
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "a file of another server is wanted");
    }
    TRY(become_fetcher(hs->fed->media, f.kept_id, &is_first));
    if (!is_first) {
        TRY(media_find(hs, ctx, f.kept_id, &media, &found));
        return found ? OK : err_public(ERR_M_NOT_FOUND, "The file's server did not give it.");
    }
    f.draft.media_id = f.kept_id;
    f.draft.origin = server;
    struct err err = fetch(&f);
    if (err.code == ERR_UNAVAILABLE || err.code == ERR_TIMEOUT) {
        err = err_public(ERR_M_REMOTE, "The file's server could not be reached.");
    }
    media_upload_abort(&f.upload);
    end_fetching(hs->fed->media, f.kept_id);
    return err;
}
