#include "homeserver/service/rendezvous.h"

#include "crypto/token.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "spec/errcodes.h"

#include <pthread.h>
#include <string.h>

enum { ID_LETTERS = 32, VERSION_LETTERS = 20, TYPE_BYTES_MAX = 128 };

/* One meeting. All live equally long, so the oldest is the first to end. */
struct meeting {
    struct meeting *next;
    enum rendezvous_kind kind;
    int64_t ends_mono_ms, changed_wall_ms;
    char id[ID_LETTERS];
    char version[VERSION_LETTERS];
    char content_type[TYPE_BYTES_MAX];
    size_t type_len;
    char data[RENDEZVOUS_BYTES_MAX];
    size_t data_len;
};

struct hs_rendezvous {
    int64_t life_ms;
    pthread_mutex_t mutex; /* a leaf */
    struct map *meetings;
    struct meeting *oldest, *newest;
};

struct hs_rendezvous *hs_rendezvous_new(int64_t life_ms)
{
    struct hs_rendezvous *r = mem_alloc(sizeof *r);
    r->life_ms = life_ms;
    r->meetings = map_new();
    pthread_mutex_init(&r->mutex, NULL);
    return r;
}

/* --- under the mutex --- */

static void drop_oldest(struct hs_rendezvous *r)
{
    struct meeting *meeting = r->oldest;
    map_remove(r->meetings, (struct slice){meeting->id, ID_LETTERS});
    r->oldest = meeting->next;
    r->newest = r->oldest ? r->newest : NULL;
    mem_free(meeting);
}

static void drop_ended(struct hs_rendezvous *r, const struct ctx *ctx)
{
    int64_t now_ms = now_mono_ms(ctx->now);
    while (r->oldest && r->oldest->ends_mono_ms <= now_ms) {
        drop_oldest(r);
    }
}

static struct meeting *find(struct hs_rendezvous *r, const struct ctx *ctx,
                            enum rendezvous_kind kind, struct slice id)
{
    drop_ended(r, ctx);
    struct meeting *meeting = id.len == ID_LETTERS ? map_get_ptr(r->meetings, id) : NULL;
    return meeting && meeting->kind == kind ? meeting : NULL;
}

static void fill(struct meeting *meeting, const struct ctx *ctx, const struct rendezvous *draft,
                 struct slice version)
{
    memcpy(meeting->version, version.ptr, VERSION_LETTERS);
    memcpy(meeting->data, draft->data.len ? draft->data.ptr : "", draft->data.len);
    meeting->data_len = draft->data.len;
    meeting->type_len =
        draft->content_type.len < TYPE_BYTES_MAX ? draft->content_type.len : TYPE_BYTES_MAX;
    if (meeting->type_len > 0) {
        memcpy(meeting->content_type, draft->content_type.ptr, meeting->type_len);
    }
    meeting->changed_wall_ms = now_wall_ms(ctx->now);
}

static struct slice copy(struct ctx *ctx, const char *text, size_t len)
{
    return arena_copy(ctx->arena, (struct slice){text, len});
}

static struct rendezvous show(const struct meeting *meeting, struct ctx *ctx)
{
    return (struct rendezvous){
        .kind = meeting->kind,
        .id = copy(ctx, meeting->id, ID_LETTERS),
        .data = copy(ctx, meeting->data, meeting->data_len),
        .content_type = copy(ctx, meeting->content_type, meeting->type_len),
        .version = copy(ctx, meeting->version, VERSION_LETTERS),
        .changed_wall_ms = meeting->changed_wall_ms,
        .expires_in_ms = meeting->ends_mono_ms - now_mono_ms(ctx->now),
    };
}

/* --- public --- */

void hs_rendezvous_free(struct hs_rendezvous **rendezvous)
{
    struct hs_rendezvous *r = *rendezvous;
    if (!r) {
        return;
    }
    while (r->oldest) {
        drop_oldest(r);
    }
    map_free(&r->meetings);
    pthread_mutex_destroy(&r->mutex);
    mem_free(r);
    *rendezvous = NULL;
}

static struct err check_size(const struct rendezvous *draft)
{
    return draft->data.len > RENDEZVOUS_BYTES_MAX
               ? err_public(ERR_M_TOO_LARGE, "A meeting takes 4096 bytes at most.")
               : OK;
}

struct err hs_rendezvous_open(struct hs_rendezvous *r, struct ctx *ctx,
                              const struct rendezvous *draft, struct rendezvous *opened_out)
{
    struct slice id = token_random_name(ctx->arena, ID_LETTERS);
    struct slice version = token_random_name(ctx->arena, VERSION_LETTERS);
    struct err err = OK;
    TRY(check_size(draft));
    pthread_mutex_lock(&r->mutex);
    drop_ended(r, ctx);
    if (map_count(r->meetings) >= RENDEZVOUS_COUNT_MAX) {
        err = err_public(ERR_M_LIMIT_EXCEEDED, "Too many devices are being signed in; try later.");
    } else {
        struct meeting *meeting = mem_alloc(sizeof *meeting);
        meeting->kind = draft->kind;
        meeting->ends_mono_ms = now_mono_ms(ctx->now) + r->life_ms;
        memcpy(meeting->id, id.ptr, ID_LETTERS);
        fill(meeting, ctx, draft, version);
        map_set_ptr(r->meetings, id, meeting);
        *(r->newest ? &r->newest->next : &r->oldest) = meeting;
        r->newest = meeting;
        *opened_out = show(meeting, ctx);
    }
    pthread_mutex_unlock(&r->mutex);
    return err;
}

static struct err not_found(void)
{
    return err_public(ERR_M_NOT_FOUND, "There is no such meeting, or it is over.");
}

struct err hs_rendezvous_get(struct hs_rendezvous *r, struct ctx *ctx, enum rendezvous_kind kind,
                             struct slice id, struct rendezvous *found_out)
{
    pthread_mutex_lock(&r->mutex);
    struct meeting *meeting = find(r, ctx, kind, id);
    if (meeting) {
        *found_out = show(meeting, ctx);
    }
    pthread_mutex_unlock(&r->mutex);
    return meeting ? OK : not_found();
}

static struct err put(struct meeting *meeting, struct ctx *ctx, const struct rendezvous *draft,
                      struct slice version)
{
    struct slice present = {meeting->version, VERSION_LETTERS};
    if (!slice_eq(draft->version, present)) {
        return err_public(ERR_M_CONCURRENT_WRITE, "The other device has written meanwhile.");
    }
    fill(meeting, ctx, draft, version);
    return OK;
}

struct err hs_rendezvous_put(struct hs_rendezvous *r, struct ctx *ctx,
                             const struct rendezvous *draft, struct rendezvous *written_out)
{
    struct slice version = token_random_name(ctx->arena, VERSION_LETTERS);
    TRY(check_size(draft));
    pthread_mutex_lock(&r->mutex);
    struct meeting *meeting = find(r, ctx, draft->kind, draft->id);
    struct err err = meeting ? put(meeting, ctx, draft, version) : not_found();
    if (meeting) {
        *written_out = show(meeting, ctx);
    }
    pthread_mutex_unlock(&r->mutex);
    return err;
}

struct err hs_rendezvous_close(struct hs_rendezvous *r, struct ctx *ctx, enum rendezvous_kind kind,
                               struct slice id)
{
    pthread_mutex_lock(&r->mutex);
    struct meeting *meeting = find(r, ctx, kind, id);
    struct meeting *before = NULL;
    if (meeting) {
        for (struct meeting *at = r->oldest; at != meeting; at = at->next) {
            before = at;
        }
        *(before ? &before->next : &r->oldest) = meeting->next;
        r->newest = r->newest == meeting ? before : r->newest;
        map_remove(r->meetings, id);
        mem_free(meeting);
    }
    pthread_mutex_unlock(&r->mutex);
    return meeting ? OK : not_found();
}
