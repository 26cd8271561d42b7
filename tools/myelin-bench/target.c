#include "tools/myelin-bench/target.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"
#include "tools/myelin-bench/probe.h"

#include <string.h>
#include <sys/wait.h>
#include <time.h>

enum { WIDTH = 32, START_TIMEOUT_MS = 120000, CALL_TIMEOUT_US = 600000000 };

struct batch {
    struct target *target;
    struct target_call *calls;
    size_t count, next, done;
    size_t failed; /* index + 1 of the first failure */
};

struct lane {
    struct batch *batch;
    struct wire_conn *conn;
    size_t call;
};

static void next_call(struct lane *lane);

static void call_done(void *arg, const struct wire_reply *reply)
{
    struct lane *lane = arg;
    struct batch *batch = lane->batch;
    struct target_call *call = &batch->calls[lane->call];
    call->status = reply->status;
    call->us = reply->done_us - reply->sent_us;
    call->reply = arena_copy(batch->target->arena, reply->body);
    batch->done++;
    if (reply->status != 200 && batch->failed == 0) {
        batch->failed = lane->call + 1;
    }
    next_call(lane);
}

static void next_call(struct lane *lane)
{
    struct batch *batch = lane->batch;
    if (batch->next < batch->count && batch->failed == 0) {
        lane->call = batch->next++;
        wire_send(lane->conn, &batch->calls[lane->call].request, call_done, lane);
    }
}

static struct err call_error(struct target *target, const struct target_call *call)
{
    const char *hint = call->status == 429 ? " (switch the server's rate limits off)" : "";
    return err_publicf(target->arena, ERR_IO, "%.*s: %.*s %.*s: status %d%s: %.300s",
                       (int)target->name.len, target->name.ptr, (int)call->request.method.len,
                       call->request.method.ptr, (int)call->request.path.len,
                       call->request.path.ptr, call->status, hint,
                       arena_cstr(target->arena, call->reply));
}

struct err target_calls(struct target *target, struct target_call *calls, size_t count,
                        size_t width)
{
    struct batch batch = {target, calls, count, 0, 0, 0};
    struct lane lanes[WIDTH];
    width = width > WIDTH ? WIDTH : width;
    for (size_t i = 0; i < width; i++) {
        lanes[i] = (struct lane){&batch, wire_open(target->wire), 0};
        next_call(&lanes[i]);
    }
    int64_t end_us = now_mono_us() + CALL_TIMEOUT_US;
    while (batch.done < batch.next && now_mono_us() < end_us) {
        wire_poll(target->wire, end_us);
    }
    for (size_t i = 0; i < width; i++) {
        wire_close(&lanes[i].conn);
    }
    if (batch.failed > 0) {
        return call_error(target, &calls[batch.failed - 1]);
    }
    return batch.done < count ? err_public(ERR_TIMEOUT, "the server did not answer in time") : OK;
}

struct err target_start(struct target *target, int64_t *ms_out)
{
    int64_t began_us = now_mono_us();
    target->pid = probe_start(target->start_command, target->log_path);
    struct target_call call = {
        .request = {.method = LIT("GET"), .path = LIT("/_matrix/client/versions")}};
    struct timespec pause = {0, 1000000};
    while (now_mono_us() - began_us < START_TIMEOUT_MS * INT64_C(1000)) {
        if (waitpid(target->pid, NULL, WNOHANG) != 0) {
            return err_publicf(target->arena, ERR_IO, "the server ended at once; see %s",
                               target->log_path);
        }
        if (wire_reachable(target->wire) && target_calls(target, &call, 1, 1).code == 0) {
            *ms_out = (now_mono_us() - began_us) / 1000;
            return OK;
        }
        nanosleep(&pause, NULL);
    }
    return err_publicf(target->arena, ERR_TIMEOUT, "the server does not answer; see %s",
                       target->log_path);
}

void target_stop(struct target *target)
{
    if (target->start_command) {
        probe_stop(target->pid);
        target->pid = 0;
    }
}

static struct err open_beside(struct target *target)
{
    struct target *beside = target->beside;
    if (!beside) {
        return OK;
    }
    beside->arena = target->arena;
    beside->run = target->run;
    struct target_call call = {
        .request = {.method = LIT("GET"), .path = LIT("/_matrix/client/versions")}};
    TRY(wire_new_beside(beside->url, target->wire, &beside->wire));
    return target_calls(beside, &call, 1, 1);
}

struct err target_open(struct target *target)
{
    target->arena = arena_new();
    target->started_ms = -1;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    target->run = arena_printf(target->arena, "%llx",
                               (unsigned long long)wall.tv_sec * 1000 +
                                   (unsigned long long)wall.tv_nsec / 1000000);
    TRY(wire_new(target->url, &target->wire));
    TRY(open_beside(target));
    if (!target->start_command) {
        struct target_call call = {
            .request = {.method = LIT("GET"), .path = LIT("/_matrix/client/versions")}};
        return target_calls(target, &call, 1, 1);
    }
    if (wire_reachable(target->wire)) {
        return err_publicf(target->arena, ERR_IO, "something listens on %.*s already",
                           (int)target->url.len, target->url.ptr);
    }
    return target_start(target, &target->started_ms);
}

void target_close(struct target *target)
{
    target_stop(target);
    if (target->beside) {
        wire_free(&target->beside->wire);
        mem_free(target->beside->users);
        target->beside->users = NULL;
    }
    wire_free(&target->wire);
    mem_free(target->users);
    target->users = NULL;
    if (target->arena) {
        arena_free(&target->arena);
    }
}

struct err target_need_users(struct target *target, size_t count)
{
    if (count <= target->user_count) {
        return OK;
    }
    size_t first = target->user_count, fresh = count - first;
    struct arena *arena = target->arena;
    if (count > target->user_cap) {
        target->user_cap = count;
        target->users = mem_grow(target->users, count * sizeof *target->users);
    }
    struct target_call *calls = arena_array(arena, fresh, sizeof *calls);
    for (size_t i = 0; i < fresh; i++) {
        target->users[first + i].password = LIT("bench-password-9241");
        calls[i].request = (struct wire_request){
            .method = LIT("POST"),
            .path = LIT("/_matrix/client/v3/register"),
            .body = arena_printf(arena,
                                 "{\"username\":\"bench%.*s_%zu\",\"password\":"
                                 "\"bench-password-9241\",\"auth\":{\"type\":\"m.login.dummy\"}}",
                                 (int)target->run.len, target->run.ptr, first + i),
        };
    }
    TRY(target_calls(target, calls, fresh, 8));
    for (size_t i = 0; i < fresh; i++) {
        target->users[first + i].id = target_find(calls[i].reply, LIT("user_id"));
        target->users[first + i].token = target_find(calls[i].reply, LIT("access_token"));
    }
    target->user_count = count;
    return OK;
}

struct err target_make_rooms(struct target *target, const size_t *owners, size_t count,
                             struct slice *ids_out)
{
    struct target_call *calls = arena_array(target->arena, count, sizeof *calls);
    for (size_t i = 0; i < count; i++) {
        calls[i].request = (struct wire_request){
            .method = LIT("POST"),
            .path = LIT("/_matrix/client/v3/createRoom"),
            .token = target->users[owners[i]].token,
            .body = LIT("{\"preset\":\"public_chat\",\"name\":\"bench\"}"),
        };
    }
    TRY(target_calls(target, calls, count, 8));
    for (size_t i = 0; i < count; i++) {
        ids_out[i] = target_find(calls[i].reply, LIT("room_id"));
    }
    return OK;
}

struct err target_join_all(struct target *target, const struct target_join *joins, size_t count)
{
    struct target_call *calls = arena_array(target->arena, count, sizeof *calls);
    for (size_t i = 0; i < count; i++) {
        struct slice room = target_encode(target->arena, joins[i].room);
        struct slice via = target_encode(target->arena, joins[i].via);
        calls[i].request = (struct wire_request){
            .method = LIT("POST"),
            .path = via.len > 0
                        ? arena_printf(target->arena,
                                       "/_matrix/client/v3/join/%.*s?server_name=%.*s&via=%.*s",
                                       (int)room.len, room.ptr, (int)via.len, via.ptr, (int)via.len,
                                       via.ptr)
                        : arena_printf(target->arena, "/_matrix/client/v3/rooms/%.*s/join",
                                       (int)room.len, room.ptr),
            .token = target->users[joins[i].user].token,
            .body = LIT("{}"),
        };
    }
    return target_calls(target, calls, count, 16);
}

struct err target_send_messages(struct target *target, size_t user, struct slice room, size_t count)
{
    struct target_call *calls = arena_array(target->arena, count, sizeof *calls);
    for (size_t i = 0; i < count; i++) {
        calls[i].request = (struct wire_request){
            .method = LIT("PUT"),
            .path = target_send_path(target, target->arena, room),
            .token = target->users[user].token,
            .body = LIT("{\"msgtype\":\"m.text\",\"body\":\"a message to fill the room\"}"),
        };
    }
    return target_calls(target, calls, count, 8);
}

struct err target_sync_token(struct target *target, size_t user, struct slice *token_out)
{
    struct target_call call = {.request = {.method = LIT("GET"),
                                           .path = LIT("/_matrix/client/v3/sync?timeout=0"),
                                           .token = target->users[user].token}};
    TRY(target_calls(target, &call, 1, 1));
    *token_out = target_find(call.reply, LIT("next_batch"));
    return OK;
}

struct slice target_send_path(struct target *target, struct arena *arena, struct slice room)
{
    struct slice encoded = target_encode(arena, room);
    return arena_printf(arena, "/_matrix/client/v3/rooms/%.*s/send/m.room.message/b%.*s-%llu",
                        (int)encoded.len, encoded.ptr, (int)target->run.len, target->run.ptr,
                        (unsigned long long)++target->serial);
}

struct slice target_encode(struct arena *arena, struct slice text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_alloc(arena, text.len * 3 + 1);
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     memchr("-._~", c, 4) != NULL;
        if (plain) {
            out[len++] = (char)c;
        } else {
            out[len++] = '%';
            out[len++] = hex[c >> 4];
            out[len++] = hex[c & 15];
        }
    }
    return (struct slice){out, len};
}

struct slice target_server_name(const struct target *target)
{
    struct slice localpart;
    return slice_cut(target->users[0].id, ':', &localpart);
}

struct slice target_find(struct slice json, struct slice key)
{
    char needle[64];
    if (key.len + 4 > sizeof needle) {
        return (struct slice){0};
    }
    needle[0] = '"';
    memcpy(needle + 1, key.ptr, key.len);
    memcpy(needle + 1 + key.len, "\":", 2);
    const char *found = memmem(json.ptr, json.len, needle, key.len + 3);
    if (!found) {
        return (struct slice){0};
    }
    struct slice rest = slice_from(json, (size_t)(found - json.ptr) + key.len + 3), value;
    rest = slice_trim(rest);
    if (rest.len == 0 || rest.ptr[0] != '"') {
        return (struct slice){0};
    }
    slice_cut(slice_from(rest, 1), '"', &value);
    return value;
}

int64_t target_cpu_us(const struct target *target)
{
    return target->pid > 0 ? probe_cpu_us(target->pid) : 0;
}

void target_settle(const struct target *target)
{
    enum { STEP_US = 50000, QUIET_US = 500000, SETTLE_US_MAX = 15000000 };
    int64_t began_us = now_mono_us(), quiet_us = began_us, before = -1;
    while (target->pid > 0 && now_mono_us() - quiet_us < QUIET_US &&
           now_mono_us() - began_us < SETTLE_US_MAX) {
        int64_t after = target_cpu_us(target);
        quiet_us = after == before ? quiet_us : now_mono_us();
        before = after;
        nanosleep(&(struct timespec){.tv_nsec = STEP_US * 1000}, NULL);
    }
}
