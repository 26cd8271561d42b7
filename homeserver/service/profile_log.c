#include "homeserver/service/profile_log.h"

#include "homeserver/base/mem.h"
#include "homeserver/service/users_priv.h"

#include <pthread.h>
#include <string.h>

enum { ENTRIES_MAX = 4096 };

struct entry {
    struct entry *next;
    uint64_t pos, user;
    size_t len;
    char field[];
};

struct profile_log {
    pthread_mutex_t lock;
    struct entry *first, *last; /* oldest first */
    size_t count;
    uint64_t since; /* nothing after this is missing */
};

struct profile_log *profile_log_new(uint64_t since)
{
    struct profile_log *log = mem_alloc(sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
    log->since = since;
    return log;
}

static void drop_first(struct profile_log *log)
{
    struct entry *entry = log->first;
    log->first = entry->next;
    log->last = log->first ? log->last : NULL;
    log->since = entry->pos > log->since ? entry->pos : log->since;
    log->count--;
    mem_free(entry);
}

void profile_log_free(struct profile_log **log)
{
    if (*log == NULL) {
        return;
    }
    while ((*log)->first) {
        drop_first(*log);
    }
    pthread_mutex_destroy(&(*log)->lock);
    mem_free(*log);
    *log = NULL;
}

void profile_log_add(struct profile_log *log, uint64_t pos, uint64_t user, struct slice field)
{
    struct entry *entry = mem_alloc_raw(sizeof *entry + field.len);
    entry->next = NULL;
    entry->pos = pos;
    entry->user = user;
    entry->len = field.len;
    memcpy(entry->field, field.ptr, field.len);
    pthread_mutex_lock(&log->lock);
    *(log->last ? &log->last->next : &log->first) = entry;
    log->last = entry;
    if (++log->count > ENTRIES_MAX) {
        drop_first(log);
    }
    pthread_mutex_unlock(&log->lock);
}

struct profile_changes hs_profile_changes(struct hs *hs, struct ctx *ctx, uint64_t since,
                                          uint64_t upto)
{
    struct profile_log *log = hs->users->profile_log;
    struct profile_changes changes = {0};
    pthread_mutex_lock(&log->lock);
    changes.complete = since >= log->since;
    for (const struct entry *at = log->first; at; at = at->next) {
        changes.count += at->pos > since && at->pos <= upto ? 1 : 0;
    }
    changes.items = arena_array(ctx->arena, changes.count, sizeof *changes.items);
    struct profile_change *to = changes.items;
    for (const struct entry *at = log->first; at; at = at->next) {
        if (at->pos > since && at->pos <= upto) {
            struct slice field = arena_copy(ctx->arena, (struct slice){at->field, at->len});
            *to++ = (struct profile_change){at->pos, at->user, field};
        }
    }
    pthread_mutex_unlock(&log->lock);
    return changes;
}

void hs_profile_publish(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice field)
{
    if (hs->positions) { /* NULL: nobody syncs */
        uint64_t pos = positions_reserve(hs->positions);
        struct change change = {.pos = pos, .kind = CHANGE_PROFILE, .user = user};
        profile_log_add(hs->users->profile_log, pos, user, field);
        positions_complete(hs->positions, &change, ctx->write_ticket);
    }
}
