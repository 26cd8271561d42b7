#include "homeserver/admin/routes.h"

#include "crypto/token.h"
#include "homeserver/admin/ops.h"
#include "homeserver/base/stats.h"
#include "homeserver/search/search.h"
#include "homeserver/service/memory.h"
#include "homeserver/service/rooms.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { ADMIN_BODY_BYTES_MAX = 65536, TOKEN_BYTES_MAX = 128 };

/* --- the token --- */

static struct err make_token(struct arena *arena, const char *path, struct slice *token_out)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_make(ERR_IO, "cannot make the file admin.token in data_dir");
    }
    *token_out = token_make(arena, LIT("myadm"));
    struct slice line = arena_concat(arena, *token_out, LIT("\n"));
    ssize_t written = write(fd, line.ptr, line.len);
    bool synced = fsync(fd) == 0;
    close(fd);
    return written == (ssize_t)line.len && synced
               ? OK
               : err_make(ERR_IO, "cannot write the file admin.token in data_dir");
}

struct err admin_token_load(struct arena *arena, struct slice path, struct slice *token_out)
{
    char text[TOKEN_BYTES_MAX];
    const char *name = arena_cstr(arena, path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        return make_token(arena, name, token_out);
    }
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (fd >= 0) {
        close(fd);
    }
    if (got <= 0) {
        return err_make(ERR_IO, "cannot read the file admin.token in data_dir");
    }
    *token_out = slice_trim(arena_copy(arena, (struct slice){text, (size_t)got}));
    return token_is_formed(*token_out, LIT("myadm"))
               ? OK
               : err_make(ERR_CORRUPT, "admin.token holds no token: delete the file");
}

/* --- routes --- */

/* What is looked up when somebody asks; what is counted as it happens stands in base/stats.def. */
struct figure {
    const char *name, *type, *help;
    uint64_t value;
};

static void add_figures(struct buf *out, const struct figure *figures, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct figure *f = &figures[i];
        buf_printf(out, "# HELP myelin_%s %s\n# TYPE myelin_%s %s\nmyelin_%s ", f->name, f->help,
                   f->name, f->type, f->name);
        buf_add_u64(out, f->value);
        buf_add_byte(out, '\n');
    }
}

static void add_memory(const struct hs *hs, const struct store_stats *store, struct buf *out)
{
    struct hs_memory_figures memory;
    struct hs_rooms_figures rooms;
    hs_memory_get_figures(&memory);
    hs_rooms_get_figures(hs, &rooms);
    const struct figure figures[] = {
        {"memory_resident_bytes", "gauge", "Memory held, programs and libraries included",
         memory.resident_bytes},
        {"memory_allocated_bytes", "gauge", "Memory allocated", memory.allocated_bytes},
        {"memory_spare_bytes", "gauge", "Memory held and not allocated: free blocks, stacks",
         memory.spare_bytes},
        {"store_cache_bytes", "gauge", "Blocks of the store in memory", store->cache_bytes},
        {"store_memtable_bytes", "gauge", "Rows in memory that are in no table yet",
         store->memtable_bytes},
        {"state_cache_bytes", "gauge", "Nodes of room state in memory",
         state_store_bytes(hs->states)},
        {"rooms_loaded", "gauge", "Rooms in memory", rooms.room_count},
        {"rows_bytes", "gauge", "Events in memory", rooms.row_bytes},
        {"search_memory_bytes", "gauge", "Memory of the search index", search_memory_bytes()},
    };
    add_figures(out, figures, COUNT_OF(figures));
}

static void add_store(const struct hs *hs, const struct store_stats *store, struct buf *out)
{
    const struct figure figures[] = {
        {"store_writes_total", "counter", "Atomic writes to the store", store->writes},
        {"store_flushes_total", "counter", "Flushes of the store's log", store->flushes},
        {"store_writes_pending", "gauge", "Writes not yet on the disk", store->pending},
        {"store_block_reads_total", "counter", "Blocks read that were not in memory",
         store->block_reads},
        {"store_disk_bytes", "gauge", "Size of the store", store->disk_bytes},
        {"stream_position", "counter", "Newest published stream position",
         positions_published(hs->positions)},
        {"jobs_queued", "gauge", "Jobs that wait for a worker", workers_queued(hs->workers)},
    };
    add_figures(out, figures, COUNT_OF(figures));
}

static struct err get_metrics(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct hs *hs = app;
    struct store_stats store;
    (void)ctx;
    (void)request;
    store_get_stats(hs->store, &store);
    stats_render(hs->stats, &reply->body);
    add_store(hs, &store, &reply->body);
    add_memory(hs, &store, &reply->body);
    reply->content_type = LIT("text/plain; version=0.0.4; charset=utf-8");
    return buf_check(&reply->body);
}

/* Healthy: a worker runs this, the store answers and takes writes. */
static struct err get_health(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct hs *hs = app;
    struct slice value;
    bool found = false;
    struct json_out out = json_out_to(&reply->body);
    (void)request;
    TRY(store_get(hs->store, ctx, (struct store_object){.kind = STORE_META}, LIT("schema"), &value,
                  &found));
    if (store_check_writes(hs->store).code != 0) {
        return err_public(ERR_UNAVAILABLE, "The store takes no writes since the disk refused its "
                                           "log: make room and restart the server.");
    }
    json_out_object(&out);
    json_out_key_string(&out, LIT("status"), LIT("ok"));
    json_out_key_string(&out, LIT("version"), LIT(MYELIN_VERSION));
    json_out_object_end(&out);
    return OK;
}

static struct err run_named(struct hs *hs, struct ctx *ctx, const struct http_request *request,
                            struct http_reply *reply, struct slice name)
{
    struct json_out out = json_out_to(&reply->body);
    if (!hs->admin_token.len || !token_eq(request->token, hs->admin_token)) {
        return err_public(ERR_M_UNKNOWN_TOKEN,
                          "The token of the file admin.token in data_dir is needed.");
    }
    log_info(hs->log, "admin", .step = name);
    return admin_run(hs, ctx, name, &request->json, &out);
}

static struct err post_op(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    return run_named(app, ctx, request, reply, request->params[0]);
}

static struct err post_group_op(void *app, struct ctx *ctx, const struct http_request *request,
                                struct http_reply *reply)
{
    struct slice group = arena_concat(ctx->arena, request->params[0], LIT("/"));
    return run_named(app, ctx, request, reply, arena_concat(ctx->arena, group, request->params[1]));
}

static const struct http_route routes[] = {
    {HTTP_GET, "/metrics", HTTP_AUTH_NONE, HTTP_RATE_NONE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_metrics, NULL, NULL, HTTP_NO_FORMAT},
    {HTTP_GET, "/health", HTTP_AUTH_NONE, HTTP_RATE_NONE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     get_health, NULL, NULL, 0},
    {HTTP_POST, "/admin/v1/{operation}", HTTP_AUTH_NONE, HTTP_RATE_NONE, HTTP_BODY_OPTIONAL_JSON,
     HTTP_LANE_NONE, ADMIN_BODY_BYTES_MAX, post_op, NULL, NULL, 0},
    {HTTP_POST, "/admin/v1/{group}/{operation}", HTTP_AUTH_NONE, HTTP_RATE_NONE,
     HTTP_BODY_OPTIONAL_JSON, HTTP_LANE_NONE, ADMIN_BODY_BYTES_MAX, post_group_op, NULL, NULL, 0},
};
const struct http_route_table admin_routes = {routes, COUNT_OF(routes)};
