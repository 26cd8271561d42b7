/* What happens, as it happens: over the stream where the server has it, by long poll elsewhere; and
 * talking, which sends each line typed meanwhile. Spec: client-server, "Syncing"; spec/stream.md.
 */
#include "homeserver/base/json_out.h"
#include "tools/myelin-chat/chat.h"
#include "tools/myelin-chat/stream.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 60000, TOKEN_MAX = 4096, POLL_MS = 30000, RETRY_SECONDS_MAX = 30 };

struct label {
    struct label *next;
    struct slice room, name;
};

struct follow {
    struct chat *chat;
    struct label *labels; /* names of rooms, as far as they were told */
    struct slice room;    /* empty = all */
    struct stream *stream;
    struct arena *arena; /* of one answer */
    char since[TOKEN_MAX];
    size_t since_len;
    char line[LINE_BYTES_MAX]; /* typed so far */
    size_t line_len;
    int input; /* descriptor of what is typed; -1 = none, or ended */
    bool refused;
    struct err err;
};

/* A room's name; an answer that does not tell it leaves the last one known. */
static struct slice label_of(struct follow *follow, const struct json_member *room)
{
    struct arena *kept = follow->chat->arena;
    struct slice name = chat_room_name(follow->chat, &room->value, room->key);
    struct label *label = follow->labels;
    while (label && !slice_eq(label->room, room->key)) {
        label = label->next;
    }
    if (!label) {
        label = arena_alloc(kept, sizeof *label);
        *label = (struct label){follow->labels, arena_copy(kept, room->key), {0}};
        label->name = label->room;
        follow->labels = label;
    }
    if (!slice_eq(name, room->key) && !slice_eq(name, label->name)) {
        label->name = arena_copy(kept, name);
    }
    return label->name;
}

static void print_room(struct follow *follow, const struct json_member *room)
{
    bool all = follow->room.len == 0;
    if (!all && !slice_eq(room->key, follow->room)) {
        return;
    }
    struct slice label = all ? label_of(follow, room) : (struct slice){0};
    const struct json *events =
        json_get_array(json_get_object(&room->value, LIT("timeline")), LIT("events"));
    for (uint32_t i = 0; events && i < events->count; i++) {
        chat_print_event(&events->items[i], label);
    }
}

static void print_sync(struct follow *follow, const struct json *sync)
{
    const struct json *rooms = json_get_object(sync, LIT("rooms"));
    const struct json *joined = json_get_object(rooms, LIT("join"));
    const struct json *invited = json_get_object(rooms, LIT("invite"));
    for (uint32_t i = 0; joined && i < joined->count; i++) {
        print_room(follow, &joined->members[i]);
    }
    for (uint32_t i = 0; follow->room.len == 0 && invited && i < invited->count; i++) {
        fputs("invited to ", stdout);
        chat_print_text(invited->members[i].key);
        fputs("\n", stdout);
    }
    fflush(stdout);
    struct slice next = json_get_string(sync, LIT("next_batch"));
    if (next.len > 0 && next.len < TOKEN_MAX) {
        memcpy(follow->since, next.ptr, next.len);
        follow->since_len = next.len;
    }
}

static struct slice frame(struct follow *follow, struct slice type, struct slice key)
{
    struct buf *text = arena_alloc(follow->arena, sizeof *text);
    buf_init_arena(text, follow->arena, TOKEN_MAX * 2);
    struct json_out out = json_out_to(text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("type"), type);
    json_out_key_string(&out, key, (struct slice){follow->since, follow->since_len});
    json_out_object_end(&out);
    return buf_slice(text);
}

static void framed(void *arg, struct slice text)
{
    struct follow *follow = arg;
    struct json json;
    follow->arena = arena_new();
    if (json_parse(follow->arena, text, &json).code == 0) {
        struct slice type = json_get_string(&json, LIT("type"));
        if (slice_eq(type, LIT("sync"))) {
            print_sync(follow, json_get_object(&json, LIT("data")));
            follow->err = stream_send(follow->stream, frame(follow, LIT("ack"), LIT("pos")));
        } else if (slice_eq(type, LIT("error")) || slice_eq(type, LIT("result"))) {
            struct slice why = json_get_string(&json, LIT("error"));
            int64_t status = 0;
            json_get_int(&json, LIT("status"), &status);
            if (why.len > 0) {
                fprintf(stderr, "the server refused: %.*s\n", (int)why.len, why.ptr);
            }
            follow->refused = slice_eq(type, LIT("error")) && status == 401;
        }
    }
    arena_free(&follow->arena);
}

static struct err send_line(struct follow *follow, struct slice line)
{
    struct chat *chat = follow->chat;
    unsigned long long unique = 0;
    struct buf text;
    struct json reply;
    if (getrandom(&unique, sizeof unique, 0) != (ssize_t)sizeof unique) {
        return err_public(ERR_IO, "the system has no random bytes");
    }
    buf_init_arena(&text, chat->arena, LINE_BYTES_MAX * 6);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("msgtype"), LIT("m.text"));
    json_out_key_string(&out, LIT("body"), line);
    json_out_object_end(&out);
    if (follow->stream) {
        struct buf whole;
        buf_init_arena(&whole, chat->arena, LINE_BYTES_MAX * 7);
        struct json_out request = json_out_to(&whole);
        struct slice id = arena_printf(chat->arena, "chat-%llx", unique);
        json_out_object(&request);
        json_out_key_string(&request, LIT("type"), LIT("send"));
        json_out_key_string(&request, LIT("id"), id);
        json_out_key_string(&request, LIT("room_id"), follow->room);
        json_out_key_string(&request, LIT("event_type"), LIT("m.room.message"));
        json_out_key_raw(&request, LIT("content"), buf_slice(&text));
        json_out_key_string(&request, LIT("txn_id"), id);
        json_out_object_end(&request);
        return stream_send(follow->stream, buf_slice(&whole));
    }
    struct slice room = api_encode(chat->arena, follow->room);
    struct slice path = arena_printf(chat->arena, "/v3/rooms/%.*s/send/m.room.message/chat-%llx",
                                     (int)room.len, room.ptr, unique);
    return api_call(chat->api, chat->arena, "PUT", path, buf_slice(&text), &reply);
}

/* Takes what was typed and sends each whole line. */
static void typed(void *arg)
{
    struct follow *follow = arg;
    ssize_t got =
        read(follow->input, follow->line + follow->line_len, LINE_BYTES_MAX - follow->line_len);
    if (got <= 0) {
        follow->input = -1;
        return;
    }
    follow->line_len += (size_t)got;
    char *end = NULL;
    while (follow->err.code == 0 && ((end = memchr(follow->line, '\n', follow->line_len)) ||
                                     follow->line_len == LINE_BYTES_MAX)) {
        size_t size = end ? (size_t)(end - follow->line) : follow->line_len;
        if (size > 0) {
            follow->err = send_line(follow, (struct slice){follow->line, size});
        }
        size_t used = end ? size + 1 : size;
        memmove(follow->line, follow->line + used, follow->line_len - used);
        follow->line_len -= used;
    }
}

static struct err follow_stream(struct follow *follow)
{
    TRY(stream_open(&follow->chat->options, framed, follow, &follow->stream));
    follow->arena = arena_new();
    struct err err = stream_send(follow->stream, frame(follow, LIT("auth"), LIT("since")));
    arena_free(&follow->arena);
    while (err.code == 0 && !follow->refused) {
        bool readable = false;
        err = stream_wait(follow->stream, follow->input, 60000, &readable);
        if (err.code == 0 && readable) {
            typed(follow);
        }
        err = err.code == 0 ? follow->err : err;
    }
    stream_close(&follow->stream);
    return follow->refused ? err_public(ERR_CANCELLED, "log in again") : err;
}

static struct err follow_poll(struct follow *follow)
{
    struct api_reply reply;
    struct arena *arena = arena_new();
    struct slice since = api_encode(arena, (struct slice){follow->since, follow->since_len});
    struct api_wait wait = {
        .path = arena_printf(arena, "/v3/sync?timeout=%d&since=%.*s", POLL_MS, (int)since.len,
                             since.ptr),
        .fd = follow->input,
        .ready = typed,
        .arg = follow,
    };
    /* What is typed while a poll waits goes out on a connection of its own. */
    struct api *own = NULL;
    struct err err = api_new(&follow->chat->options, &own);
    if (err.code == 0) {
        err = api_wait(own, arena, &wait, &reply);
    }
    if (err.code == 0 && reply.status == 401) {
        err = err_public(ERR_CANCELLED, "log in again");
    } else if (err.code == 0 && reply.status == 200) {
        print_sync(follow, &reply.json);
    } else if (err.code == 0) {
        err = err_public(ERR_IO, "the server cannot answer now");
    } else {
        err = err_public(ERR_IO, arena_cstr(follow->chat->arena, slice_of(err.text)));
    }
    api_free(&own);
    arena_free(&arena);
    return err.code != 0 ? err : follow->err;
}

/* Until the session is refused or the command is interrupted; broken connections are renewed. */
static struct err follow_on(struct follow *follow)
{
    bool streaming = true;
    unsigned pause = 1;
    for (;;) {
        follow->err = OK;
        struct err err = streaming ? follow_stream(follow) : follow_poll(follow);
        if (err.code == ERR_CANCELLED) {
            return err;
        }
        if (streaming && err.code == ERR_UNAVAILABLE) {
            streaming = false;
            fputs("(this server has no stream; asking by long poll)\n", stderr);
        } else if (err.code != 0) {
            fprintf(stderr, "(%s; again in %u s)\n", err.text, pause);
            sleep(pause);
            pause = pause * 2 < RETRY_SECONDS_MAX ? pause * 2 : RETRY_SECONDS_MAX;
        } else {
            pause = 1;
        }
    }
}

static struct err begin(struct chat *chat, struct slice room, int input)
{
    struct json sync;
    struct follow *follow = arena_alloc(chat->arena, sizeof *follow);
    *follow = (struct follow){.chat = chat, .room = room, .input = input};
    TRY(chat_read_rooms(chat, &sync));
    print_sync(follow, &sync);
    return follow_on(follow);
}

struct err follow_rooms(struct chat *chat, char **words)
{
    struct slice room = {0};
    if (words[0]) {
        TRY(chat_find_room(chat, slice_of(words[0]), &room));
    }
    return begin(chat, room, -1);
}

struct err follow_talk(struct chat *chat, char **words)
{
    struct slice room;
    TRY(chat_find_room(chat, slice_of(words[0]), &room));
    TRY(chat_check_plain(chat, room));
    fputs("Each line is sent, unencrypted. Ctrl-C ends.\n", stderr);
    return begin(chat, room, STDIN_FILENO);
}
