/* Sliding sync of an account with many rooms: opening it, nothing new, one message, all rooms. */
#include "homeserver/base/now.h"
#include "tools/myelin-bench/rows.h"

enum {
    ROOMS = 2000,
    ROOMS_PEER = 300,
    OPENS = 200,
    OPENS_PEER = 10,
    IDLE = 2000,
    IDLE_PEER = 50,
    STEP = 100, /* rooms that a growing list takes more at a time */
};

/* What a phone's room list asks. */
static const char STATE[] =
    "[[\"m.room.name\",\"\"],[\"m.room.encryption\",\"\"],[\"m.room.member\",\"$LAZY\"],"
    "[\"m.room.member\",\"$ME\"],[\"m.room.topic\",\"\"],[\"m.room.avatar\",\"\"],"
    "[\"m.room.canonical_alias\",\"\"],[\"m.room.power_levels\",\"\"],"
    "[\"org.matrix.msc3401.call.member\",\"*\"],[\"m.room.join_rules\",\"\"],"
    "[\"m.room.tombstone\",\"\"],[\"m.room.create\",\"\"],[\"m.room.history_visibility\",\"\"],"
    "[\"m.space.parent\",\"*\"],[\"m.space.child\",\"*\"]]";

struct sliding {
    struct row_run *run;
    struct target *target;
    size_t user, rooms;
    struct slice *room_ids;
};

static struct wire_request ask(struct sliding *s, size_t last, struct slice pos)
{
    struct arena *arena = s->target->arena;
    struct slice path =
        LIT("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync?timeout=0");
    if (pos.len > 0) {
        struct slice encoded = target_encode(arena, pos);
        path = arena_printf(arena, "%.*s&pos=%.*s", (int)path.len, path.ptr, (int)encoded.len,
                            encoded.ptr);
    }
    return (struct wire_request){
        .method = LIT("POST"),
        .path = path,
        .token = s->target->users[s->user].token,
        .body = arena_printf(arena,
                             "{\"conn_id\":\"room-list\",\"lists\":{\"all_rooms\":{\"ranges\":"
                             "[[0,%zu]],\"timeline_limit\":1,\"required_state\":%s}},"
                             "\"extensions\":{\"account_data\":{\"enabled\":true},\"receipts\":{"
                             "\"enabled\":true},\"typing\":{\"enabled\":true}}}",
                             last, STATE),
    };
}

static struct err report(struct sliding *s, const char *what, double ms, double goal)
{
    bool known = s->target->pid > 0;
    struct slice text = arena_printf(s->target->arena, "%s, %zu rooms", what, s->rooms);
    report_add(s->run->report,
               (struct report_figure){"sliding", arena_cstr(s->target->arena, text), "ms", ms, goal,
                                      known && goal > 0 ? REPORT_LOWER : REPORT_FACT,
                                      known ? "server CPU" : "time to the answer"});
    return OK;
}

/* The same request `count` times, one after the other; milliseconds of each. */
static struct err repeat(struct sliding *s, const struct wire_request *request, size_t count,
                         double *ms_out, struct slice *reply_out)
{
    struct target *target = s->target;
    struct target_call *calls = arena_array(target->arena, count, sizeof *calls);
    for (size_t i = 0; i < count; i++) {
        calls[i].request = *request;
    }
    if (count > 1) {
        target_settle(target);
    }
    int64_t cpu_us = target_cpu_us(target), began_us = now_mono_us();
    TRY(target_calls(target, calls, count, 1));
    cpu_us = target_cpu_us(target) - cpu_us;
    double us = (double)(target->pid > 0 ? cpu_us : now_mono_us() - began_us);
    *ms_out = us / 1000 / (double)count;
    *reply_out = calls[count - 1].reply;
    return OK;
}

static struct slice pos_of(struct slice reply)
{
    return target_find(reply, LIT("pos"));
}

static struct err open_and_wait(struct sliding *s)
{
    bool peer = s->target->is_peer;
    struct slice reply;
    double ms = 0;
    struct wire_request open = ask(s, 19, (struct slice){0});
    TRY(repeat(s, &open, 1, &ms, &reply)); /* what is read once belongs to no open */
    TRY(report(s, "first open after the rooms were made", ms, 0));
    TRY(repeat(s, &open, peer ? OPENS_PEER : OPENS, &ms, &reply));
    TRY(report(s, "open with a window of 20", ms, 10));
    struct wire_request first = ask(s, 19, pos_of(reply));
    TRY(repeat(s, &first, 1, &ms, &reply));
    struct wire_request idle = ask(s, 19, pos_of(reply));
    TRY(repeat(s, &idle, peer ? IDLE_PEER : IDLE, &ms, &reply));
    TRY(report(s, "nothing new", ms, 0.06));
    TRY(target_send_messages(s->target, s->user, s->room_ids[0], 1));
    struct wire_request news = ask(s, 19, pos_of(reply));
    TRY(repeat(s, &news, peer ? IDLE_PEER : IDLE, &ms, &reply));
    return report(s, "one message new", ms, 0.2);
}

/* All rooms, as a phone takes them in the background. */
static struct err take_all(struct sliding *s)
{
    struct slice reply;
    double all_ms = 0;
    struct wire_request request = ask(s, 19, (struct slice){0});
    for (size_t last = 19; last < s->rooms + STEP; last += STEP) {
        double ms = 0;
        TRY(repeat(s, &request, 1, &ms, &reply));
        all_ms += ms;
        request = ask(s, last + STEP, pos_of(reply));
    }
    return report(s, "all rooms, a hundred at a time", all_ms, 0);
}

struct err row_sliding(struct row_run *run)
{
    struct target *target = run->target;
    struct sliding s = {.run = run, .target = target, .user = target->user_count};
    s.rooms = target->is_peer && run->options->size != ROW_FULL ? ROOMS_PEER : ROOMS;
    TRY(target_need_users(target, s.user + 1));
    size_t *owners = arena_array(target->arena, s.rooms, sizeof *owners);
    s.room_ids = arena_array(target->arena, s.rooms, sizeof *s.room_ids);
    for (size_t i = 0; i < s.rooms; i++) {
        owners[i] = s.user;
    }
    TRY(target_make_rooms(target, owners, s.rooms, s.room_ids));
    TRY(open_and_wait(&s));
    return take_all(&s);
}
