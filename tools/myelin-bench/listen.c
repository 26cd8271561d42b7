#include "tools/myelin-bench/listen.h"

#include "homeserver/base/now.h"

#include <stdio.h>
#include <string.h>

enum { POLL_MS = 600000, READY_TIMEOUT_US = 60000000 };

static void ask(struct listener *listener);

static void remember(struct listener *listener, struct slice token)
{
    if (token.len > 0 && token.len < LISTEN_TOKEN_MAX) {
        memcpy(listener->since, token.ptr, token.len);
        listener->since_len = token.len;
    }
}

static void polled(void *arg, const struct wire_reply *reply)
{
    struct listener *listener = arg;
    if (listener->stopped) {
        return;
    }
    if (reply->status != 200 || listener->filter.len > 256) {
        listener->broken = true;
        return;
    }
    listener->answers++;
    listener->fn(listener->arg, reply->body);
    remember(listener, target_find(reply->body, LIT("next_batch")));
    ask(listener);
}

static void ask(struct listener *listener)
{
    char path[LISTEN_TOKEN_MAX + 384];
    int len = snprintf(path, sizeof path, "/_matrix/client/v3/sync?timeout=%d&since=%.*s%s%.*s",
                       POLL_MS, (int)listener->since_len, listener->since,
                       listener->filter.len > 0 ? "&filter=" : "", (int)listener->filter.len,
                       listener->filter.ptr ? listener->filter.ptr : "");
    struct wire_request request = {
        .method = LIT("GET"),
        .path = {path, (size_t)len},
        .token = listener->target->users[listener->user].token,
    };
    wire_send(listener->conn, &request, polled, listener);
    listener->ready = true;
}

static void acknowledge(struct listener *listener)
{
    char text[LISTEN_TOKEN_MAX + 64];
    int len = snprintf(text, sizeof text, "{\"type\":\"ack\",\"pos\":\"%.*s\"}",
                       (int)listener->since_len, listener->since);
    wire_text(listener->conn, (struct slice){text, (size_t)len});
}

static void framed(void *arg, struct slice text)
{
    struct listener *listener = arg;
    if (!text.ptr) {
        listener->broken = !listener->stopped;
        return;
    }
    if (text.len == 0) {
        char auth[LISTEN_TOKEN_MAX + 64];
        int len = snprintf(auth, sizeof auth, "{\"type\":\"auth\",\"since\":\"%.*s\"}",
                           (int)listener->since_len, listener->since);
        wire_text(listener->conn, (struct slice){auth, (size_t)len});
        return;
    }
    struct slice type = target_find(text, LIT("type"));
    if (slice_eq(type, LIT("error"))) {
        listener->broken = true;
    } else if (!slice_eq(type, LIT("hello")) && target_find(text, LIT("pos")).len > 0) {
        listener->answers++;
        listener->fn(listener->arg, text);
        remember(listener, target_find(text, LIT("pos")));
        acknowledge(listener);
        listener->ready = true;
    }
}

void listen_start(struct listener *listener, struct slice since)
{
    remember(listener, since);
    listener->conn = wire_open(listener->target->wire);
    if (listener->mode == LISTEN_POLL) {
        ask(listener);
    } else {
        wire_stream(listener->conn, listener->target->users[listener->user].token, framed,
                    listener);
    }
}

void listen_stop(struct listener *listener)
{
    listener->stopped = true;
    wire_close(&listener->conn);
}

static size_t ready_count(const struct listener *listeners, size_t count, bool *broken_out)
{
    size_t ready = 0;
    for (size_t i = 0; i < count; i++) {
        ready += listeners[i].ready;
        *broken_out = *broken_out || listeners[i].broken;
    }
    return ready;
}

struct err listen_wait_ready(struct target *target, struct listener *listeners, size_t count)
{
    int64_t end_us = now_mono_us() + READY_TIMEOUT_US;
    bool broken = false;
    while (ready_count(listeners, count, &broken) < count && !broken) {
        if (now_mono_us() > end_us) {
            return err_public(ERR_TIMEOUT, "a listening client was not answered");
        }
        wire_poll(target->wire, now_mono_us() + 10000);
    }
    /* Requests that are written are not parked yet: half a second of rest. */
    for (int64_t rest_us = now_mono_us() + 500000; now_mono_us() < rest_us;) {
        wire_poll(target->wire, rest_us);
    }
    ready_count(listeners, count, &broken);
    return broken ? err_public(ERR_IO, "the server refused or ended a listening client") : OK;
}

struct err listen_tokens(struct target *target, const struct listener *listeners, size_t count,
                         struct slice *tokens_out)
{
    struct target_call *calls = arena_array(target->arena, count, sizeof *calls);
    for (size_t i = 0; i < count; i++) {
        calls[i].request = (struct wire_request){
            .method = LIT("GET"),
            .path = LIT("/_matrix/client/v3/sync?timeout=0"),
            .token = target->users[listeners[i].user].token,
        };
    }
    TRY(target_calls(target, calls, count, 8));
    for (size_t i = 0; i < count; i++) {
        tokens_out[i] = target_find(calls[i].reply, LIT("next_batch"));
    }
    return OK;
}
