#include "federation/resync.h"

#include "federation/bulk.h"
#include "federation/fed_priv.h"
#include "federation/join_answer.h"
#include "federation/outbox_priv.h"
#include "homeserver/base/map.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/remote_devices.h"
#include "homeserver/service/users.h"
#include "homeserver/room/membership.h"

enum {
    SERVERS_TRIED_MAX = 10,
    FETCHED_SINGLY_MAX = 20,
    IDS_BYTES_MAX = 256 << 20,
    IDS_TIMEOUT_MS = 120000,
    STATE_TIMEOUT_MS = 600000,
};
static const uint64_t STATE_BYTES_MAX = UINT64_C(2) << 30;

/* The state that is sought: that before the event, which this server's join cites. */
struct state_sought {
    struct resync *r;
    struct slice server;
    struct slice event_id;
    bool is_before_join; /* event_id is the join itself, else what the join comes after */
    struct event_id *ids;
    size_t count;
};

static struct err get_json(struct state_sought *s, const char *format, struct json *answer_out)
{
    const struct slice parts[] = {s->r->room_id, s->event_id};
    struct fed_call call = {.destination = s->server,
                            .path = fed_path(s->r->ctx, format, parts, COUNT_OF(parts)),
                            .timeout_ms = IDS_TIMEOUT_MS,
                            .body_bytes_max = IDS_BYTES_MAX,
                            .flags = FED_CALL_ANYWAY};
    return fed_call_json(s->r->fed, s->r->ctx, &call, answer_out);
}

static struct err take_ids(struct state_sought *s, const struct json *list)
{
    if (!list || list->count == 0) {
        return err_make(ERR_UNAVAILABLE, "an answer to /state_ids holds no state");
    }
    s->ids = arena_array(s->r->ctx->arena, (size_t)list->count + 1, sizeof *s->ids);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct json *one = &list->items[i];
        if (one->type == JSON_STRING && ids_is_event(one->text)) {
            s->ids[s->count++] = ids_trust_event(one->text);
        }
    }
    return OK;
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

static struct err is_stored(struct glance *glance, struct slice event_id, bool *stored_out)
{
    uint64_t room = 0;
    int64_t number = 0;
    glance_next(glance);
    TRY(hs_event_locate(glance->r->fed->hs, &glance->ctx, event_id, &room, &number, stored_out));
    *stored_out = *stored_out && room == glance->r->number;
    return OK;
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

static struct err collect(void *arg, struct slice bytes)
{
    return bulk_add(arg, bytes);
}

static struct err download(struct state_sought *s, struct bulk *bulk)
{
    const struct slice parts[] = {s->r->room_id, s->event_id};
    struct fed_answer answer;
    struct fed_call call = {.destination = s->server,
                            .path =
                                fed_path(s->r->ctx, "/_matrix/federation/v1/state/%s?event_id=%s",
                                         parts, COUNT_OF(parts)),
                            .timeout_ms = STATE_TIMEOUT_MS,
                            .body_bytes_max = (size_t)STATE_BYTES_MAX,
                            .flags = FED_CALL_ANYWAY,
                            .sink = collect,
                            .sink_arg = bulk};
    TRY(fed_call(s->r->fed, s->r->ctx, &call, &answer));
    return answer.status / 100 == 2 ? OK : fed_answer_error(s->r->ctx, &answer);
}

static struct err fetch_whole(struct state_sought *s, struct bulk *bulk)
{
    struct slice bytes;
    struct join_answer answer;
    struct join_answer_reader reader = {.fed = s->r->fed,
                                        .ctx = s->r->ctx,
                                        .rules = hs_room_info(s->r->room).rules,
                                        .room_id = s->r->room_id,
                                        .bulk = bulk,
                                        .fn = store_one,
                                        .arg = s};
    TRY(download(s, bulk));
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
                            .timeout_ms = IDS_TIMEOUT_MS,
                            .flags = FED_CALL_ANYWAY};
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

/* Ids that are not stored here, at most one more than are fetched singly. */
static struct err list_missing(struct state_sought *s, struct glance *glance,
                               struct slice missing[FETCHED_SINGLY_MAX + 1], size_t *count_out)
{
    *count_out = 0;
    for (size_t i = 0; i < s->count && *count_out <= FETCHED_SINGLY_MAX; i++) {
        bool stored = false;
        TRY(is_stored(glance, s->ids[i].s, &stored));
        if (!stored) {
            missing[(*count_out)++] = s->ids[i].s;
        }
    }
    return OK;
}

static struct err fetch_missing(struct state_sought *s)
{
    struct slice missing[FETCHED_SINGLY_MAX + 1];
    size_t count = 0;
    struct glance glance = glance_begin(s->r);
    TRY(glance_end(&glance, list_missing(s, &glance, missing, &count)));
    bool singly = count <= FETCHED_SINGLY_MAX;
    for (size_t i = 0; i < count && singly; i++) {
        struct err err = fetch_event(s, missing[i]);
        singly = err.code == 0; /* what it cites may be missing too */
    }
    return singly ? OK : fetch_state(s);
}

/* --- putting it together --- */

static struct err keep_stored(struct state_sought *s, struct glance *glance)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++) {
        bool stored = false;
        TRY(is_stored(glance, s->ids[i].s, &stored));
        if (stored) {
            s->ids[kept++] = s->ids[i];
        }
    }
    s->count = kept;
    return OK;
}

static struct err replace_same_key(struct state_sought *s, struct glance *glance,
                                   const struct event *event)
{
    for (size_t i = 0; i < s->count; i++) {
        struct stored_event one;
        bool found = false;
        glance_next(glance);
        TRY(hs_event_find(s->r->fed->hs, &glance->ctx, s->r->room, s->ids[i].s, &one, &found));
        if (found && event_is(&one.event, event->type, event->state_key)) {
            s->ids[i] = event->id;
            return OK;
        }
    }
    s->ids[s->count++] = event->id;
    return OK;
}

/* The event that the join comes after changes the state itself. */
static struct err apply_event(struct state_sought *s, struct glance *glance)
{
    struct stored_event event;
    bool found = false;
    TRY(is_stored(glance, s->event_id, &found));
    if (!found) {
        TRY(fetch_event(s, s->event_id));
    }
    TRY(hs_event_find(s->r->fed->hs, s->r->ctx, s->r->room, s->event_id, &event, &found));
    bool changes = found && event.event.has_state_key && !(event.flags & EVENT_REJECTED);
    return changes ? replace_same_key(s, glance, &event.event) : OK;
}

static struct err finish_state(struct state_sought *s, struct glance *glance)
{
    TRY(keep_stored(s, glance));
    return s->is_before_join ? OK : apply_event(s, glance);
}

static struct err forget_if_gone(struct resync *r, const struct state_difference *change)
{
    struct stored_event event;
    struct hs *hs = r->fed->hs;
    uint64_t user = 0;
    bool found = false;
    if (change->left) {
        TRY(hs_event_load(hs, r->ctx, r->room, change->left, &event, &found));
    }
    if (!found || membership_of(&event.event) != MEMBERSHIP_JOIN) {
        return OK;
    }
    TRY(hs_user_find(hs, r->ctx, event.event.state_key, &user, &found));
    return found ? hs_remote_devices_unfollow(hs, r->ctx, user) : OK;
}

/* Whom the whole state puts out of the room was followed for its sake alone. */
static struct err forget_gone(struct resync *r, uint64_t before)
{
    struct state_difference *changes = NULL;
    size_t count = 0;
    TRY(state_diff(r->fed->hs->states, r->ctx, r->number, before, hs_room_head(r->room).root,
                   &changes, &count));
    for (size_t i = 0; i < count; i++) {
        TRY(forget_if_gone(r, &changes[i]));
    }
    return OK;
}

/* Servers that were in the room all the while, though this one did not know it, missed what it told
 * the others of its users' devices. */
static struct err tell_overlooked(struct resync *r, struct server_names known)
{
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

static struct err complete(struct state_sought *s)
{
    struct resync *r = s->r;
    struct slice *names = NULL;
    struct server_names known = {0};
    uint64_t before = hs_room_head(r->room).root;
    TRY(hs_room_servers(r->fed->hs, r->ctx, r->room, &names, &known.count));
    known.items = names;
    TRY(hs_room_complete(r->fed->hs, r->ctx, r->room, s->ids, s->count));
    log_info(r->ctx->log, "room_complete", .room = r->room_id, .dest = s->server,
             .pos = (int64_t)hs_room_whole_pos(r->room));
    TRY(forget_gone(r, before));
    return tell_overlooked(r, known);
}

static struct err resync_from(struct state_sought *s)
{
    struct json answer;
    s->count = 0;
    TRY(get_json(s, "/_matrix/federation/v1/state_ids/%s?event_id=%s", &answer));
    TRY(take_ids(s, json_get_array(&answer, LIT("pdu_ids"))));
    TRY(fetch_missing(s));
    struct glance glance = glance_begin(s->r);
    TRY(glance_end(&glance, finish_state(s, &glance)));
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
        return OK;
    }
    TRY(find_join(r, &join, &found));
    if (!found) {
        return OK;
    }
    TRY(list_servers(r, &servers, &count));
    struct state_sought sought = {.r = r, .is_before_join = join.event.prev_event_count != 1};
    sought.event_id = sought.is_before_join ? join.event.id.s : join.event.prev_events[0].s;
    for (size_t i = 0; i < count && err.code != 0; i++) {
        sought.server = servers[i];
        err = resync_from(&sought);
    }
    return err;
}
