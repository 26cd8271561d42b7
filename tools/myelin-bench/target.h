/* The server under test: its users and rooms made for this run, its process when it is known, and
 * calls that set the stage (many at once, over the connections of `wire`). */
#pragma once
#include "homeserver/base/json.h"
#include "tools/myelin-bench/wire.h"

#include <sys/types.h>

struct target_user {
    struct slice id, token, password;
};

struct target {
    struct slice name;
    struct slice url;
    const char *start_command; /* NULL = it runs already */
    const char *log_path;      /* where a started server writes */
    pid_t pid;                 /* 0 = unknown: rows about CPU and memory are left out */
    bool is_peer;              /* compared with: rates and sizes it cannot do are left out */
    int64_t started_ms;        /* from start to first answer, fresh; -1 = not started here */
    struct arena *arena;       /* of the whole run */
    struct wire *wire;
    struct target_user *users;
    size_t user_count, user_cap;
    struct target *beside; /* a second server of its kind that federates with it; NULL = none */
    struct slice run;      /* part of the names made in this run */
    uint64_t serial;       /* of transaction ids and names */
};

struct target_call {
    struct wire_request request;
    int status;
    struct slice reply; /* in the target's arena */
    int64_t us;
};

/* Connects; starts the server when there is a command for it. */
struct err target_open(struct target *target) MUST_USE;
void target_close(struct target *target);
/* Starts the server's command and waits for its first answer to /versions. */
struct err target_start(struct target *target, int64_t *ms_out) MUST_USE;
void target_stop(struct target *target);

/* Makes all calls, at most `width` at a time; an error names the first that was not answered 200.
 */
struct err target_calls(struct target *target, struct target_call *calls, size_t count,
                        size_t width) MUST_USE;
/* At least `count` users; target->users[0..count). */
struct err target_need_users(struct target *target, size_t count) MUST_USE;
/* A public room of each owner (indexes of users). */
struct err target_make_rooms(struct target *target, const size_t *owners, size_t count,
                             struct slice *ids_out) MUST_USE;
struct target_join {
    size_t user;
    struct slice room;
    struct slice via; /* a server in the room, when the user's own is not; empty = none */
};
struct err target_join_all(struct target *target, const struct target_join *joins,
                           size_t count) MUST_USE;
/* `count` messages by one user into one room, in order of arrival. */
struct err target_send_messages(struct target *target, size_t user, struct slice room,
                                size_t count) MUST_USE;
/* A sync with timeout 0; its next_batch lives in the target's arena. */
struct err target_sync_token(struct target *target, size_t user, struct slice *token_out) MUST_USE;

/* PUT .../send/m.room.message/<unique>, in `arena`. */
struct slice target_send_path(struct target *target, struct arena *arena, struct slice room);
/* Percent-encodes everything but unreserved characters. */
struct slice target_encode(struct arena *arena, struct slice text);
/* The server's name, as its first user's id says. */
struct slice target_server_name(const struct target *target);
/* The text between `"key":"` and the next quote; empty when absent. Fast, for tokens without
 * escapes. */
struct slice target_find(struct slice json, struct slice key);
/* Server CPU so far in microseconds; 0 when its process is unknown. */
int64_t target_cpu_us(const struct target *target);
/* Until the server rests from what was done to it: what it does afterwards belongs to no figure. */
void target_settle(const struct target *target);
