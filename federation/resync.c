#include "federation/resync.h"

#include "federation/bulk.h"
#include "federation/fed_priv.h"
#include "federation/join_answer.h"
#include "federation/json_split.h"
#include "federation/outbox_priv.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/remote_devices.h"
#include "homeserver/service/users.h"
#include "homeserver/room/membership.h"

#include <stdlib.h>

enum {
    SERVERS_TRIED_MAX = 10,
    FETCHED_SINGLY_MAX = 20,
    IDS_BYTES_MAX = 256 << 20,
    IDS_PER_REST = 4096,
    CHANGES_PER_PAGE = 256,
    IDS_TIMEOUT_MS = 120000,
    STATE_TIMEOUT_MS = 600000,
};
#define STATE_BYTES_MAX (UINT64_C(2) << 30)

/* The state that is sought: that before the event, which this server's join cites. Of each of its
 * events only the number here stays in memory. */
struct state_sought {
    struct resync *r;
    struct slice server;
    struct slice event_id;
    bool is_before_join; /* event_id is the join itself, else what the join comes after */
    struct bulk ids;     /* the answer to /state_ids */
    struct slice list;   /* in it: the array of ids */
    int64_t *numbers_owned;
    size_t count, cap;
    int64_t on_top; /* the event, where it changes the state itself */
};

static struct err collect(void *arg, struct slice bytes)
{
    return bulk_add(arg, bytes);
}

/* The answer to a question about the event. */
struct question {
    const char *format;
    int64_t timeout_ms;
    uint64_t bytes_max;
};

static struct err download(struct state_sought *s, const struct question *question,
                           struct bulk *bulk)
{
    const struct slice parts[] = {s->r->room_id, s->event_id};
    struct fed_answer answer;
    struct fed_call call = {.destination = s->server,
                            .path = fed_path(s->r->ctx, question->format, parts, COUNT_OF(parts)),
                            .timeout_ms = question->timeout_ms,
                            .body_bytes_max = (size_t)question->bytes_max,
                            .flags = FED_CALL_ANYWAY,
                            .sink = collect,
                            .sink_arg = bulk};
    bulk_clear(bulk);
    TRY(fed_call(s->r->fed, s->r->ctx, &call, &answer));
    return answer.status / 100 == 2 ? OK : fed_answer_error(s->r->ctx, &answer);
}

static struct err fetch_ids(struct state_sought *s)
{
    static const struct question question = {"/_matrix/federation/v1/state_ids/%s?event_id=%s",
                                             IDS_TIMEOUT_MS, IDS_BYTES_MAX};
    struct slice bytes;
    struct slice key;
    struct slice value;
    s->list = (struct slice){0};
    TRY(download(s, &question, &s->ids));
    TRY(bulk_read(&s->ids, &bytes));
    struct json_split split = json_split_object(bytes);
    while (json_split_member(&split, &key, &value)) {
        s->list = slice_eq(key, LIT("pdu_ids")) ? value : s->list;
    }
    return s->list.len && !split.broken
               ? OK
               : err_make(ERR_UNAVAILABLE, "an answer to /state_ids holds no state");
}

/* Looks at one of many events: in memory that the next one uses again. */
struct glance {
    struct resync *r;
    struct ctx ctx;
};

static struct glance glance_begin(struct resync *r)
{
    struct glance glance = {.r = r, .ctx = *r->ctx};
    glance.ctx.arena = arena_new();
    glance.ctx.deferred = NULL;
    glance.ctx.reads_once = true;
    return glance;
}

static void glance_next(struct glance *glance)
{
    ctx_finish(&glance->ctx);
    glance->ctx.deferred = NULL;
    arena_reset(glance->ctx.arena);
}

static struct err glance_end(struct glance *glance, struct err err)
{
    if (err.text) {
        err.text = arena_cstr(glance->r->ctx->arena, slice_of(err.text));
    }
    ctx_finish(&glance->ctx);
    arena_free(&glance->ctx.arena);
    return err;
}

/* The number of an event that is stored here; 0 = it is not. */
static struct err find_number(struct glance *glance, struct slice event_id, int64_t *number_out)
{
    uint64_t room = 0;
    bool found = false;
    *number_out = 0;
    TRY(hs_event_locate(glance->r->fed->hs, &glance->ctx, event_id, &room, number_out, &found));
    *number_out = found && room == glance->r->number ? *number_out : 0;
    return OK;
}

/* --- the list of ids, and what is here of it --- */

struct unknown {
    struct slice ids[FETCHED_SINGLY_MAX + 1]; /* no more are listed */
    size_t count;
};

static void keep_number(struct state_sought *s, int64_t number)
{
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap + s->cap / 2 : 256;
        s->numbers_owned = mem_grow(s->numbers_owned, s->cap * sizeof *s->numbers_owned);
    }
    s->numbers_owned[s->count++] = number;
}

static struct err look_up(struct state_sought *s, struct glance *glance, struct slice item,
                          struct unknown *unknown)
{
    struct json id;
    int64_t number = 0;
    glance_next(glance);
    if (json_parse(glance->ctx.arena, item, &id).code != 0 || id.type != JSON_STRING ||
        !ids_is_event(id.text)) {
        return OK;
    }
    TRY(find_number(glance, id.text, &number));
    if (number) {
        keep_number(s, number);
    } else if (unknown->count <= FETCHED_SINGLY_MAX) {
        unknown->ids[unknown->count++] = arena_copy(s->r->ctx->arena, id.text);
    }
    return OK;
}

static int by_value(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

/* Ascending, each once. */
static void put_in_order(struct state_sought *s)
{
    size_t kept = 0;
    if (s->count) {
        qsort(s->numbers_owned, s->count, sizeof *s->numbers_owned, by_value);
    }
    for (size_t i = 0; i < s->count; i++) {
        if (kept == 0 || s->numbers_owned[kept - 1] != s->numbers_owned[i]) {
            s->numbers_owned[kept++] = s->numbers_owned[i];
        }
    }
    s->count = kept;
}

static struct err look_up_all(struct state_sought *s, struct glance *glance,
                              struct unknown *unknown)
{
    struct json_split split = json_split_array(s->list);
    struct slice item;
    size_t seen = 0;
    s->count = 0;
    *unknown = (struct unknown){0};
    while (json_split_item(&split, &item)) {
        TRY(look_up(s, glance, item, unknown));
        if (++seen % IDS_PER_REST == 0) {
            bulk_rest(&s->ids, s->ids.bytes);
        }
    }
    put_in_order(s);
    return !split.broken && seen
               ? OK
               : err_make(ERR_UNAVAILABLE, "an answer to /state_ids holds no state");
}

static struct err look_up_ids(struct state_sought *s, struct unknown *unknown)
{
    struct glance glance = glance_begin(s->r);
    return glance_end(&glance, look_up_all(s, &glance, unknown));
}

static struct err store_one(void *arg, struct ctx *ctx, enum join_answer_part part,
                            const struct event *event)
{
    struct state_sought *s = arg;
    struct intake_report report;
    (void)part;
    TRY(hs_intake_outlier(s->r->fed->hs, ctx, s->r->room, event, &report));
    if (report.result == INTAKE_MISSING_AUTH || report.result == INTAKE_MISSING_PREV) {
        log_debug(ctx->log, "state_without_auth", .room = s->r->room_id, .event = event->id.s);
    }
    return OK;
}

/* --- many events: the whole state as one answer --- */

static struct err fetch_whole(struct state_sought *s, struct bulk *bulk)
{
    static const struct question question = {"/_matrix/federation/v1/state/%s?event_id=%s",
                                             STATE_TIMEOUT_MS, STATE_BYTES_MAX};
    struct slice bytes;
    struct join_answer answer;
    struct join_answer_reader reader = {.fed = s->r->fed,
                                        .ctx = s->r->ctx,
                                        .rules = hs_room_info(s->r->room).rules,
                                        .room_id = s->r->room_id,
                                        .bulk = bulk,
                                        .fn = store_one,
                                        .arg = s};
    TRY(download(s, &question, bulk));
    TRY(bulk_read(bulk, &bytes));
    TRY(join_answer_parse(s->r->ctx, bytes, &answer));
    return join_answer_read(&answer, &reader);
}

static struct err fetch_state(struct state_sought *s)
{
    struct bulk bulk;
    bulk_init(&bulk, s->r->fed->hs->conf->data_dir, STATE_BYTES_MAX);
    struct err err = fetch_whole(s, &bulk);
    bulk_deinit(&bulk);
    return err;
}

/* --- few events: each by its own request --- */

static struct err fetch_event(struct state_sought *s, struct slice event_id)
{
    struct ctx *ctx = s->r->ctx;
    struct json answer;
    struct event event;
    struct err verdict = OK;
    struct fed_call call = {.destination = s->server,
                            .path = fed_path(ctx, "/_matrix/federation/v1/event/%s", &event_id, 1),
                            .body_bytes_max = FED_SMALL_ANSWER,
                            .timeout_ms = IDS_TIMEOUT_MS,
                            .flags = FED_CALL_ANYWAY | FED_CALL_LIST};
    TRY(fed_call_json(s->r->fed, ctx, &call, &answer));
    const struct json *pdus = json_get_array(&answer, LIT("pdus"));
    if (!pdus || pdus->count != 1) {
        return err_make(ERR_UNAVAILABLE, "an answer to /event holds no event");
    }
    struct fed_pdus check = {
        .rules = hs_room_info(s->r->room).rules, .pdus = pdus, .room_id = s->r->room_id};
    TRY(fed_pdus_check(s->r->fed, ctx, &check, &event, &verdict));
    if (verdict.code != 0 || !slice_eq(event.id.s, event_id)) {
        return err_make(ERR_UNAVAILABLE, "an answer to /event holds another event");
    }
    return store_one(s, ctx, JOIN_ANSWER_STATE, &event);
}

static struct err fetch_missing(struct state_sought *s)
{
    struct unknown unknown;
    TRY(look_up_ids(s, &unknown));
    bool singly = unknown.count <= FETCHED_SINGLY_MAX;
    for (size_t i = 0; i < unknown.count && singly; i++) {
        struct err err = fetch_event(s, unknown.ids[i]);
        singly = err.code == 0; /* what it cites may be missing too */
    }
    if (!singly) {
        TRY(fetch_state(s));
    }
    return unknown.count ? look_up_ids(s, &unknown) : OK;
}

/* --- putting it together --- */

static struct err is_stored(struct state_sought *s, struct slice event_id, bool *stored_out)
{
    struct glance glance = glance_begin(s->r);
    int64_t number = 0;
    struct err err = glance_end(&glance, find_number(&glance, event_id, &number));
    *stored_out = number != 0;
    return err;
}

/* The event that the join comes after changes the state itself. */
static struct err apply_event(struct state_sought *s)
{
    struct stored_event event;
    bool found = false;
    TRY(is_stored(s, s->event_id, &found));
    if (!found) {
        TRY(fetch_event(s, s->event_id));
    }
    TRY(hs_event_find(s->r->fed->hs, s->r->ctx, s->r->room, s->event_id, &event, &found));
    bool changes = found && event.event.has_state_key && !(event.flags & EVENT_REJECTED);
    s->on_top = changes ? event.number : 0;
    return OK;
}

static struct err forget_if_gone(struct resync *r, struct ctx *ctx,
                                 const struct state_difference *change)
{
    struct stored_event event;
    struct hs *hs = r->fed->hs;
    uint64_t user = 0;
    bool found = false;
    if (change->left) {
        TRY(hs_event_load(hs, ctx, r->room, change->left, &event, &found));
    }
    if (!found || membership_of(&event.event) != MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(hs_user_find(hs, ctx, event.event.state_key, &user, &found));
    return found ? hs_remote_devices_unfollow(hs, ctx, user) : OK;
}

static struct err forget_all_gone(struct glance *glance, uint64_t before)
{
    struct resync *r = glance->r;
    struct state_page changes = {.left = before,
                                 .right = hs_room_head(r->room).root,
                                 .limit = CHANGES_PER_PAGE,
                                 .more = true};
    while (changes.more) {
        TRY(state_diff_page(r->fed->hs->states, &glance->ctx, r->number, &changes));
        for (size_t i = 0; i < changes.count; i++) {
            TRY(forget_if_gone(r, &glance->ctx, &changes.items[i]));
        }
        glance_next(glance);
    }
    return OK;
}

/* Whom the whole state puts out of the room was followed for its sake alone. */
static struct err forget_gone(struct resync *r, uint64_t before)
{
    struct glance glance = glance_begin(r);
    return glance_end(&glance, forget_all_gone(&glance, before));
}

/* Servers that were in the room all the while, though this one did not know it, missed what it told
 * the others of its users' devices. */
static struct err tell_overlooked(struct resync *r, const struct room_rest *rest)
{
    struct server_names known = {(struct slice *)(uintptr_t)rest->servers, rest->server_count};
    struct slice *names = NULL;
    uint64_t *users = NULL;
    size_t count = 0;
    size_t kept = 0;
    TRY(hs_room_servers(r->fed->hs, r->ctx, r->room, &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (!server_names_has(known, names[i])) {
            names[kept++] = names[i];
        }
    }
    size_t user_count = kept && r->fed->outbox ? hs_room_local_users(r->ctx, r->room, &users) : 0;
    for (size_t i = 0; i < user_count; i++) {
        struct server_names overlooked = {names, kept};
        TRY(device_lists_announce(r->fed->outbox, r->ctx, users[i], overlooked));
    }
    return OK;
}

/* What comes after the partial time; also of a room that became whole before a restart. */
static struct err do_rest(struct resync *r)
{
    struct room_rest rest;
    bool found = false;
    TRY(hs_room_rest(r->fed->hs, r->ctx, r->room, &rest, &found));
    if (!found) {
        return OK;
    }
    TRY(hs_room_take_again(r->fed->hs, r->ctx, r->room));
    TRY(forget_gone(r, rest.before));
    TRY(tell_overlooked(r, &rest));
    return hs_room_rest_done(r->fed->hs, r->ctx, r->room);
}

static struct err complete(struct state_sought *s)
{
    struct resync *r = s->r;
    struct slice *names = NULL;
    struct intake_whole whole = {
        .numbers = s->numbers_owned, .count = s->count, .on_top = s->on_top};
    TRY(hs_room_servers(r->fed->hs, r->ctx, r->room, &names, &whole.server_count));
    whole.servers = names;
    TRY(hs_room_complete(r->fed->hs, r->ctx, r->room, &whole));
    log_info(r->ctx->log, "room_complete", .room = r->room_id, .dest = s->server,
             .pos = (int64_t)hs_room_whole_pos(r->room));
    return do_rest(r);
}

static struct err resync_from(struct state_sought *s)
{
    s->on_top = 0;
    TRY(fetch_ids(s));
    TRY(fetch_missing(s));
    if (!s->is_before_join) {
        TRY(apply_event(s));
    }
    log_info(s->r->ctx->log, "room_state_fetched", .room = s->r->room_id, .dest = s->server);
    return complete(s);
}

/* The own member event that began the stay: a local user's oldest. */
static struct err find_join(struct resync *r, struct stored_event *join_out, bool *found_out)
{
    uint64_t *users = NULL;
    struct hs *hs = r->fed->hs;
    size_t count = hs_room_local_users(r->ctx, r->room, &users);
    int64_t number = 0;
    *found_out = count > 0;
    for (size_t i = 0; i < count; i++) {
        struct user_room entry;
        bool found = false;
        TRY(hs_user_room(hs, r->ctx, users[i], r->number, &entry, &found));
        bool older = found && entry.joined_number && (!number || entry.joined_number < number);
        number = older ? entry.joined_number : number;
    }
    return number ? hs_event_load(hs, r->ctx, r->room, number, join_out, found_out) : OK;
}

static struct err list_servers(struct resync *r, struct slice **servers_out, size_t *count_out)
{
    struct slice *others = NULL;
    size_t other_count = 0;
    size_t count = 0;
    TRY(hs_room_servers(r->fed->hs, r->ctx, r->room, &others, &other_count));
    struct slice *servers = arena_array(r->ctx->arena, other_count + 1, sizeof *servers);
    if (r->first.len) {
        servers[count++] = r->first;
    }
    for (size_t i = 0; i < other_count && count < SERVERS_TRIED_MAX; i++) {
        if (!slice_eq(others[i], r->first)) {
            servers[count++] = others[i];
        }
    }
    *servers_out = servers;
    *count_out = count;
    return OK;
}

struct err resync_run(struct resync *r)
{
    struct stored_event join;
    struct slice *servers = NULL;
    size_t count = 0;
    bool found = false;
    struct err err = err_make(ERR_UNAVAILABLE, "no server of the room is known");
    TRY(hs_room_get(r->fed->hs, r->ctx, r->number, &r->room));
    r->room_id = hs_room_info(r->room).room_id;
    if (!hs_room_is_partial(r->room)) {
        return do_rest(r);
    }
    TRY(find_join(r, &join, &found));
    if (!found) {
        return OK;
    }
    TRY(list_servers(r, &servers, &count));
    struct state_sought sought = {.r = r, .is_before_join = join.event.prev_event_count != 1};
    sought.event_id = sought.is_before_join ? join.event.id.s : join.event.prev_events[0].s;
    bulk_init(&sought.ids, r->fed->hs->conf->data_dir, IDS_BYTES_MAX);
    for (size_t i = 0; i < count && err.code != 0; i++) {
        sought.server = servers[i];
        err = resync_from(&sought);
    }
    bulk_deinit(&sought.ids);
    mem_free(sought.numbers_owned);
    return err;
}
