/* What concerns the caller's device and its encryption: to-device messages, device lists, counts of
 * one-time keys. Spec: client-server, "Send-to-Device messaging", "End-to-End Encryption". */
#include "homeserver/sync/priv.h"

#include "homeserver/service/users.h"

#include <stdlib.h>

/* --- sets of users --- */

void sync_users_add(struct ctx *ctx, struct sync_users *users, uint64_t user)
{
    if (users->count == users->cap) {
        size_t cap = users->cap ? users->cap * 2 : 16;
        users->items = arena_grow(ctx->arena, users->items, users->cap * sizeof *users->items,
                                  cap * sizeof *users->items);
        users->cap = cap;
    }
    users->items[users->count++] = user;
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

void sync_users_finish(struct sync_users *users)
{
    size_t kept = 0;
    if (users->count == 0) {
        return;
    }
    qsort(users->items, users->count, sizeof *users->items, by_number);
    for (size_t i = 0; i < users->count; i++) {
        if (kept == 0 || users->items[kept - 1] != users->items[i]) {
            users->items[kept++] = users->items[i];
        }
    }
    users->count = kept;
}

bool sync_users_has(const struct sync_users *users, uint64_t user)
{
    return users->count > 0 &&
           bsearch(&user, users->items, users->count, sizeof *users->items, by_number) != NULL;
}

struct err sync_job_shares(struct sync_job *job, uint64_t user, bool *shares_out)
{
    if (!job->sharing_read) {
        job->sharing_read = true;
        TRY(hs_users_sharing(job->hs, job->ctx, job->viewer.user, &job->sharing.items,
                             &job->sharing.count));
    }
    *shares_out = user == job->viewer.user || sync_users_has(&job->sharing, user);
    return OK;
}

/* --- to-device --- */

struct err sync_write_to_device(struct sync_job *job, struct json_out *out)
{
    if (job->inbox.count == 0) {
        return OK;
    }
    job->news = true;
    json_out_key_object(out, LIT("to_device"));
    json_out_key_array(out, LIT("events"));
    for (size_t i = 0; i < job->inbox.count; i++) {
        json_out_raw(out, job->inbox.items[i].json);
    }
    json_out_array_end(out);
    json_out_object_end(out);
    return OK;
}

/* --- device lists --- */

static struct err add_changed(struct sync_job *job, struct sync_users *changed)
{
    uint64_t *users = NULL;
    size_t count = 0;
    if (job->look.shared_pos <= job->since) {
        return OK;
    }
    struct change_window window = {job->viewer.user, job->since, job->upto};
    TRY(hs_device_changes_for(job->hs, job->ctx, window, &users, &count));
    for (size_t i = 0; i < count; i++) {
        bool shares = false;
        TRY(sync_job_shares(job, users[i], &shares));
        if (shares) {
            sync_users_add(job->ctx, changed, users[i]);
        }
    }
    return OK;
}

/* Keeps those whose sharing is as said. */
static struct err add_if(struct sync_job *job, const struct sync_users *from, bool shares_wanted,
                         struct sync_users *to)
{
    for (size_t i = 0; i < from->count; i++) {
        bool shares = false;
        TRY(sync_job_shares(job, from->items[i], &shares));
        if (shares == shares_wanted) {
            sync_users_add(job->ctx, to, from->items[i]);
        }
    }
    return OK;
}

static struct err write_users(struct sync_job *job, struct slice key, struct sync_users *users,
                              struct json_out *out)
{
    sync_users_finish(users);
    json_out_key_array(out, key);
    for (size_t i = 0; i < users->count; i++) {
        struct slice user_id;
        TRY(hs_user_id_of(job->hs, job->ctx, users->items[i], &user_id));
        json_out_string(out, user_id);
    }
    json_out_array_end(out);
    return OK;
}

static struct err collect_lists(struct sync_job *job, struct sync_users *changed,
                                struct sync_users *left)
{
    TRY(add_changed(job, changed));
    TRY(add_if(job, &job->arrived, true, changed));
    return add_if(job, &job->gone, false, left);
}

struct err sync_write_device_lists(struct sync_job *job, struct json_out *out)
{
    struct sync_users changed = {0};
    struct sync_users left = {0};
    if (job->request->initial) {
        return OK;
    }
    TRY(collect_lists(job, &changed, &left));
    if (changed.count == 0 && left.count == 0) {
        return OK;
    }
    job->news = true;
    json_out_key_object(out, LIT("device_lists"));
    TRY(write_users(job, LIT("changed"), &changed, out));
    TRY(write_users(job, LIT("left"), &left, out));
    json_out_object_end(out);
    return OK;
}

struct err sync_write_key_changes(struct sync_job *job, struct json_out *out)
{
    struct sync_users changed = {0};
    struct sync_users left = {0};
    TRY(collect_lists(job, &changed, &left));
    json_out_object(out);
    TRY(write_users(job, LIT("changed"), &changed, out));
    TRY(write_users(job, LIT("left"), &left, out));
    json_out_object_end(out);
    return OK;
}

/* --- key counts --- */

struct err sync_write_key_counts(struct sync_job *job, struct json_out *out)
{
    struct key_counts counts;
    struct slice device_id = job->viewer.device_id;
    if (device_id.len == 0) {
        return OK;
    }
    TRY(hs_key_counts(job->hs, job->ctx, job->viewer.user, device_id, &counts));
    /* Spec: client-server, "One-time and fallback keys": leaving counts out may be read as zero. */
    json_out_key_object(out, LIT("device_one_time_keys_count"));
    for (size_t i = 0; i < counts.one_time_count; i++) {
        json_out_key_int(out, counts.one_time[i].algorithm, counts.one_time[i].count);
    }
    json_out_object_end(out);
    json_out_key_array(out, LIT("device_unused_fallback_key_types"));
    for (size_t i = 0; i < counts.unused_fallback_count; i++) {
        json_out_string(out, counts.unused_fallback[i]);
    }
    json_out_array_end(out);
    job->news = job->news || counts.pos > job->since;
    return OK;
}
