#include "federation/device_lists.h"

#include "federation/fed_priv.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/remote_devices.h"

#include <pthread.h>
#include <string.h>

enum { RESYNCS_MAX = 10000, TRIES_MAX = 3, TIMEOUT_MS = 30000 };

struct resync {
    struct fed *fed;
    uint64_t user;
    bool again;  /* asked for while it ran */
    bool failed; /* waits for a sign of life of the server */
    struct resync *failed_next;
    size_t len;
    char user_id[];
};

struct device_lists {
    pthread_mutex_t lock; /* leaf */
    struct map *resyncs;  /* user id -> struct resync */
    struct map *failed;   /* server -> first struct resync */
};

struct device_lists *device_lists_new(void)
{
    struct device_lists *lists = mem_alloc(sizeof *lists);
    pthread_mutex_init(&lists->lock, NULL);
    lists->resyncs = map_new();
    lists->failed = map_new();
    return lists;
}

void device_lists_free(struct device_lists **pointer)
{
    struct device_lists *lists = *pointer;
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    if (!lists) {
        return;
    }
    while (map_next(lists->resyncs, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&lists->resyncs);
    map_free(&lists->failed);
    pthread_mutex_destroy(&lists->lock);
    mem_free(lists);
    *pointer = NULL;
}

static struct slice id_of(const struct resync *resync)
{
    return (struct slice){resync->user_id, resync->len};
}

static struct slice server_of(const struct resync *resync)
{
    return ids_user_domain(ids_trust_user(id_of(resync))).s;
}

/* --- fetching --- */

static const struct remote_device *devices_of(struct ctx *ctx, const struct json *answer,
                                              size_t *count_out)
{
    const struct json *list = json_get_array(answer, LIT("devices"));
    size_t count = list ? list->count : 0;
    struct remote_device *devices = arena_array(ctx->arena, count + 1, sizeof *devices);
    for (size_t i = 0; i < count; i++) {
        const struct json *item = &list->items[i];
        devices[i] = (struct remote_device){.device_id = json_get_string(item, LIT("device_id")),
                                            .display_name =
                                                json_get_string(item, LIT("device_display_name")),
                                            .keys = json_get_object(item, LIT("keys"))};
    }
    *count_out = count;
    return devices;
}

static struct err fetch(struct resync *resync, struct ctx *ctx, bool *kept_out)
{
    struct json answer;
    struct slice user_id = id_of(resync);
    struct hs *hs = resync->fed->hs;
    struct remote_whole whole = {.cross = {.user = resync->user, .user_id = user_id}};
    struct fed_call call = {
        .destination = server_of(resync),
        .path = fed_path(ctx, "/_matrix/federation/v1/user/devices/%s", &user_id, 1),
        .timeout_ms = TIMEOUT_MS};
    TRY(hs_remote_list_get(hs, ctx, resync->user, &whole.asked));
    TRY(fed_call_json(resync->fed, ctx, &call, &answer));
    if (!slice_eq(json_get_string(&answer, LIT("user_id")), user_id) ||
        !json_get_int(&answer, LIT("stream_id"), &whole.stream_id)) {
        return err_make(ERR_UNAVAILABLE, "a device list without user_id and stream_id");
    }
    whole.devices = devices_of(ctx, &answer, &whole.count);
    whole.cross.master_key = json_get_object(&answer, LIT("master_key"));
    whole.cross.self_signing_key = json_get_object(&answer, LIT("self_signing_key"));
    return hs_remote_devices_replace(hs, ctx, &whole, kept_out);
}

/* False when the server was not reached; what it answers otherwise is all it will. */
static bool try_fetch(struct resync *resync)
{
    struct hs *hs = resync->fed->hs;
    struct ctx ctx = {.arena = arena_new(), .now = hs->now, .log = hs->log, .may_wait = true};
    bool kept = false;
    struct err err = OK;
    for (int i = 0; i < TRIES_MAX && !kept && err.code == 0; i++) {
        err = fetch(resync, &ctx, &kept);
    }
    if (err.code != 0) {
        log_info(hs->log, "device_list_resync", .user = id_of(resync), .err = slice_of(err.text));
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return err.code != ERR_UNAVAILABLE && err.code != ERR_TIMEOUT;
}

/* Lock held. */
static void note_failed(struct device_lists *lists, struct resync *resync)
{
    resync->failed = true;
    resync->failed_next = map_get_ptr(lists->failed, server_of(resync));
    map_set_ptr(lists->failed, server_of(resync), resync);
}

static void run(void *arg);

/* Whether it is to run once more; else it is done with. */
static bool end_run(struct resync *resync, bool succeeded)
{
    struct device_lists *lists = resync->fed->device_lists;
    pthread_mutex_lock(&lists->lock);
    bool again = resync->again;
    resync->again = false;
    if (!again && !succeeded) {
        note_failed(lists, resync);
    } else if (!again) {
        map_remove(lists->resyncs, id_of(resync));
        mem_free(resync);
    }
    pthread_mutex_unlock(&lists->lock);
    return again;
}

static void run(void *arg)
{
    struct resync *resync = arg;
    bool again = true;
    while (again) {
        bool succeeded = try_fetch(resync);
        again = end_run(resync, succeeded);
    }
}

static void submit(struct resync *resync)
{
    if (!workers_submit(resync->fed->hs->waiters, 0, run, resync)) {
        end_run(resync, false);
    }
}

/* Lock held. Those that wait for their servers take the place of others no longer: such a list is
 * stale, so who asks for it asks its server, and the next news of it have it fetched. */
static void drop_failed(struct device_lists *lists)
{
    struct map *kept = map_new();
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(lists->resyncs, &cursor, &key, &value)) {
        struct resync *resync = (struct resync *)(uintptr_t)value;
        if (resync->failed) {
            mem_free(resync);
        } else {
            map_set_ptr(kept, key, resync);
        }
    }
    map_free(&lists->resyncs);
    map_free(&lists->failed);
    lists->resyncs = kept;
    lists->failed = map_new();
}

/* Lock held; NULL when a run will do. */
static struct resync *begin(struct device_lists *lists, struct slice user_id)
{
    struct resync *resync = map_get_ptr(lists->resyncs, user_id);
    if (resync) {
        resync->again = resync->again || !resync->failed;
        return NULL;
    }
    if (map_count(lists->resyncs) >= RESYNCS_MAX) {
        drop_failed(lists);
    }
    if (map_count(lists->resyncs) >= RESYNCS_MAX) {
        return NULL;
    }
    resync = mem_alloc(sizeof *resync + user_id.len + 1);
    memcpy(resync->user_id, user_id.ptr, user_id.len);
    resync->len = user_id.len;
    map_set_ptr(lists->resyncs, user_id, resync);
    return resync;
}

void fed_device_list_resync(struct fed *fed, uint64_t user, struct slice user_id)
{
    struct device_lists *lists = fed->device_lists;
    pthread_mutex_lock(&lists->lock);
    struct resync *resync = begin(lists, user_id);
    if (resync) {
        resync->fed = fed;
        resync->user = user;
    }
    pthread_mutex_unlock(&lists->lock);
    if (resync) {
        submit(resync);
    }
    fed_device_lists_alive(fed, ids_user_domain(ids_trust_user(user_id)).s);
}

void fed_device_lists_alive(struct fed *fed, struct slice server)
{
    struct device_lists *lists = fed->device_lists;
    pthread_mutex_lock(&lists->lock);
    struct resync *first = map_count(lists->failed) ? map_get_ptr(lists->failed, server) : NULL;
    if (first) {
        map_remove(lists->failed, server);
    }
    for (struct resync *resync = first; resync; resync = resync->failed_next) {
        resync->failed = false;
    }
    pthread_mutex_unlock(&lists->lock);
    while (first) {
        struct resync *next = first->failed_next;
        submit(first);
        first = next;
    }
}
