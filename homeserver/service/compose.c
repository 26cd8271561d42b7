#include "homeserver/service/compose.h"

#include "crypto/token.h"
#include "homeserver/room/auth.h"
#include "homeserver/service/remote.h"
#include "homeserver/service/room_priv.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { CREATE_ATTEMPTS_MAX = 24, POLICED_ATTEMPTS_MAX = 4 };

struct composing {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct hs_draft *draft;
    const struct extremity *ends; /* what the event cites */
    size_t end_count;
    uint64_t root;         /* the state after them, if it is not the room's */
    struct err lookup_err; /* of the state callback */
};

static struct err read_state(struct composing *c, struct slice type, struct slice state_key,
                             const struct event **event_out)
{
    bool found = false;
    if (!c->root) {
        return room_state_current(c->hs, c->ctx, c->room, type, state_key, event_out);
    }
    struct stored_event *stored = arena_alloc(c->ctx->arena, sizeof *stored);
    TRY(hs_state_event(c->hs, c->ctx, c->room, c->root, type, state_key, stored, &found));
    *event_out = found ? &stored->event : NULL;
    return OK;
}

static const struct event *look_up(void *arg, struct slice type, struct slice state_key)
{
    struct composing *c = arg;
    const struct event *event = NULL;
    struct err err = read_state(c, type, state_key, &event);
    if (err.code != 0 && c->lookup_err.code == 0) {
        c->lookup_err = err;
    }
    return event;
}

/* Spec: server-server, "Auth events selection". */
static size_t select_auth(struct composing *c, const struct event *shape, struct event_id *ids)
{
    struct auth_key keys[AUTH_EVENTS_MAX];
    size_t wanted = auth_events_select(shape, keys);
    size_t count = 0;
    for (size_t i = 0; i < wanted; i++) {
        const struct event *cited = look_up(c, keys[i].type, keys[i].state_key);
        if (cited) {
            ids[count++] = cited->id;
        }
    }
    return count;
}

static int by_depth(const void *a, const void *b)
{
    const struct extremity *left = a;
    const struct extremity *right = b;
    return (left->depth < right->depth) - (left->depth > right->depth);
}

/* All forward extremities; when there are more than an event may cite, those of greatest depth, and
 * the state is that after these alone. */
static struct err select_ends(struct composing *c)
{
    c->ends = c->room->extremities_owned;
    c->end_count = c->room->extremity_count;
    if (c->end_count <= ROOM_PREV_EVENTS_MAX) {
        return OK;
    }
    struct extremities best = {.count = c->end_count};
    best.items = arena_array(c->ctx->arena, best.count, sizeof *best.items);
    memcpy(best.items, c->ends, best.count * sizeof *best.items);
    qsort(best.items, best.count, sizeof *best.items, by_depth);
    best.count = ROOM_PREV_EVENTS_MAX;
    c->ends = best.items;
    c->end_count = best.count;
    TRY(room_extremities_root(c->hs, c->ctx, c->room, &best, &c->root));
    c->root = c->root == c->room->head.root ? 0 : c->root;
    return OK;
}

static size_t select_prev(const struct composing *c, struct event_id *ids, int64_t *depth_out)
{
    int64_t depth = 0;
    for (size_t i = 0; i < c->end_count; i++) {
        depth = c->ends[i].depth > depth ? c->ends[i].depth : depth;
        ids[i] = ids_trust_event(slice_of(c->ends[i].event_id));
    }
    *depth_out = depth == INT64_MAX ? depth : depth + 1;
    return c->end_count;
}

/* Versions 1 and 2: "$opaque:server". */
static struct event_id make_legacy_id(const struct composing *c)
{
    if (c->room->rules->event_format != EVENT_FORMAT_1) {
        return (struct event_id){{0}};
    }
    struct slice opaque = token_random_name(c->ctx->arena, 18);
    return ids_trust_event(arena_printf(c->ctx->arena, "$%.*s:%.*s", (int)opaque.len, opaque.ptr,
                                        (int)c->hs->server_name.len, c->hs->server_name.ptr));
}

static struct err seal(struct composing *c, struct slice room_id, struct event *event_out)
{
    const struct hs_draft *draft = c->draft;
    struct event_id prev[ROOM_PREV_EVENTS_MAX];
    struct event_id auth[AUTH_EVENTS_MAX];
    struct event shape = {.rules = c->room->rules,
                          .type = draft->type,
                          .state_key = draft->state_key,
                          .has_state_key = draft->state_key.ptr != NULL,
                          .sender = ids_trust_user(draft->sender),
                          .content = &draft->content};
    struct event_draft parts = {
        .rules = c->room->rules,
        .room_id = ids_trust_room(room_id),
        .sender = shape.sender,
        .type = draft->type,
        .state_key = shape.has_state_key ? &draft->state_key : NULL,
        .content = &draft->content,
        .redacts = ids_trust_event(draft->redacts),
        .origin_server_ts =
            draft->origin_server_ts ? draft->origin_server_ts : now_wall_ms(c->ctx->now),
        .prev_events = prev,
        .auth_events = auth,
        .id = make_legacy_id(c),
    };
    parts.prev_event_count = select_prev(c, prev, &parts.depth);
    parts.auth_event_count = select_auth(c, &shape, auth);
    if (c->lookup_err.code != 0) {
        return c->lookup_err;
    }
    struct json tree = event_draft_tree(c->ctx->arena, &parts);
    if (json_depth(&tree) > LIMIT_EVENT_LEVELS) {
        return err_public(ERR_M_BAD_JSON, "The content of an event may nest 89 levels deep.");
    }
    return event_seal(c->ctx->arena, c->room->rules, &tree, &c->hs->signer, event_out);
}

static struct err authorise(struct composing *c, const struct event *event)
{
    struct auth_input input = {
        .arena = c->ctx->arena, .event = event, .state = look_up, .state_arg = c};
    input.create = look_up(c, LIT("m.room.create"), LIT(""));
    struct auth_verdict verdict = auth_check_event(&input);
    if (c->lookup_err.code != 0) {
        return c->lookup_err;
    }
    return auth_error(c->ctx->arena, &verdict);
}

/* A state event equal to the current one changes nothing: the current one is the answer. */
static struct err find_identical(struct composing *c, struct hs_sent *sent_out, bool *found_out)
{
    const struct hs_draft *draft = c->draft;
    *found_out = false;
    if (!draft->state_key.ptr) {
        return OK;
    }
    const struct event *current = look_up(c, draft->type, draft->state_key);
    if (c->lookup_err.code != 0) {
        return c->lookup_err;
    }
    if (!current || !slice_eq(current->sender.s, draft->sender) ||
        !json_eq(current->content, &draft->content)) {
        return OK;
    }
    uint64_t room = 0;
    sent_out->replayed = true;
    sent_out->event_id = arena_copy(c->ctx->arena, current->id.s);
    return hs_event_locate(c->hs, c->ctx, sent_out->event_id, &room, &sent_out->number, found_out);
}

/* What was sent already, with this transaction id or as the state that stands. */
static struct err find_sent(struct composing *c, struct hs_sent *sent_out, bool *found_out)
{
    TRY(hs_txn_find(c->hs, c->ctx, c->room, c->draft, sent_out, found_out));
    return *found_out ? OK : find_identical(c, sent_out, found_out);
}

/* What find_sent did not find. */
static struct err send_new(struct composing *c, struct hs_sent *sent_out)
{
    struct event event;
    TRY(select_ends(c));
    TRY(seal(c, hs_room_info(c->room).room_id, &event));
    TRY(authorise(c, &event));
    struct room_append append = {.event = &event,
                                 .sender = c->draft->sender_number,
                                 .device_id = c->draft->device_id,
                                 .txn_id = c->draft->txn_id,
                                 .has_before = c->root != 0,
                                 .state_before = c->root};
    return room_append(c->hs, c->ctx, c->room, &append, sent_out);
}

static struct err send_in_lane(struct composing *c, struct hs_sent *sent_out)
{
    bool found = false;
    room_state_cache_trim(c->room);
    TRY(find_sent(c, sent_out, &found));
    return found ? OK : send_new(c, sent_out);
}

struct err hs_send(struct hs *hs, struct ctx *ctx, struct room *room, const struct hs_draft *draft,
                   struct hs_sent *sent_out)
{
    struct composing composing = {.hs = hs, .ctx = ctx, .room = room, .draft = draft};
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = send_in_lane(&composing, sent_out);
    workers_lane_leave(hs->workers, lane);
    return err;
}

static struct err compose_in_lane(struct composing *c, struct event *event_out)
{
    TRY(room_check_there(c->room));
    room_state_cache_trim(c->room);
    TRY(select_ends(c));
    TRY(seal(c, hs_room_info(c->room).room_id, event_out));
    return authorise(c, event_out);
}

struct err hs_compose(struct hs *hs, struct ctx *ctx, struct room *room,
                      const struct hs_draft *draft, struct event *event_out)
{
    struct composing composing = {.hs = hs, .ctx = ctx, .room = room, .draft = draft};
    uint64_t lane = lane_of_room(room->number);
    workers_lane_enter(hs->workers, lane);
    struct err err = compose_in_lane(&composing, event_out);
    workers_lane_leave(hs->workers, lane);
    return err;
}

/* --- events that a policy server signs --- */

/* Whether the room names one, remembered for as long as its state stays. */
static struct err names_policy(struct composing *c, bool *names_out)
{
    struct stored_event policy;
    struct room_head head = hs_room_head(c->room);
    pthread_mutex_lock(&c->room->lock);
    bool known = c->room->policy_root == head.root;
    *names_out = c->room->names_policy;
    pthread_mutex_unlock(&c->room->lock);
    if (known) {
        return OK;
    }
    TRY(hs_state_event(c->hs, c->ctx, c->room, head.root, LIT("m.room.policy"), LIT(""), &policy,
                       names_out));
    pthread_mutex_lock(&c->room->lock);
    c->room->policy_root = head.root;
    c->room->names_policy = *names_out;
    pthread_mutex_unlock(&c->room->lock);
    return OK;
}

/* One attempt of a proposal. */
struct attempt {
    struct composing c;
    const struct hs_proposal *proposal;
    struct hs_draft draft;
    struct event event;
    struct hs_sent *sent;
    bool done;
};

static struct err decide(struct attempt *a, struct hs_draft *draft_out)
{
    *draft_out = (struct hs_draft){0};
    TRY(room_check_there(a->c.room));
    room_state_cache_trim(a->c.room);
    TRY(a->proposal->decide(a->proposal->arg, draft_out, a->sent, &a->done));
    a->c.draft = draft_out;
    return a->done ? OK : find_sent(&a->c, a->sent, &a->done);
}

static struct err send_plainly(struct attempt *a)
{
    TRY(decide(a, &a->draft));
    return a->done ? OK : send_new(&a->c, a->sent);
}

static struct err begin_policed(struct attempt *a)
{
    struct composing *c = &a->c;
    TRY(decide(a, &a->draft));
    if (a->done) {
        return OK;
    }
    c->root = 0;
    TRY(compose_in_lane(c, &a->event));
    c->root = c->root ? c->root : c->room->head.root;
    return OK;
}

static bool is_same_draft(const struct hs_draft *a, const struct hs_draft *b)
{
    return slice_eq(a->sender, b->sender) && slice_eq(a->type, b->type) &&
           slice_eq(a->state_key, b->state_key) && slice_eq(a->redacts, b->redacts) &&
           json_eq(&a->content, &b->content);
}

/* What was sent meanwhile stands beside the event, as it does beside those of other servers; but
 * when it makes another event of this one (a join that became an invite ...) the event is composed
 * anew: `done` stays unset. */
static struct err end_policed(struct attempt *a)
{
    struct composing *c = &a->c;
    struct hs_draft now;
    TRY(decide(a, &now));
    if (a->done || !is_same_draft(&now, &a->draft)) {
        return OK;
    }
    uint64_t before = c->root;
    c->root = 0;
    TRY(authorise(c, &a->event));
    struct room_append append = {.event = &a->event,
                                 .sender = now.sender_number,
                                 .device_id = now.device_id,
                                 .txn_id = now.txn_id,
                                 .has_before = true,
                                 .state_before = before};
    a->done = true;
    return room_append(c->hs, c->ctx, c->room, &append, a->sent);
}

typedef struct err (*attempt_fn)(struct attempt *a);

static struct err in_lane(struct attempt *a, attempt_fn fn)
{
    uint64_t lane = lane_of_room(a->c.room->number);
    workers_lane_enter(a->c.hs->workers, lane);
    struct err err = fn(a);
    workers_lane_leave(a->c.hs->workers, lane);
    return err;
}

/* Spec: server-server, "Validating Policy Server signatures": what has to go out all the same goes
 * without the signature. */
static struct err sign(struct attempt *a)
{
    struct event signed_event = a->event;
    struct composing *c = &a->c;
    struct err err = c->hs->remote->policy_sign(c->hs, c->ctx, c->room, &a->event, &signed_event);
    if (err.code != 0 && (!a->proposal->insists || !hs_send_is_refusal(err))) {
        return err;
    }
    a->event = err.code == 0 ? signed_event : a->event;
    return OK;
}

static struct err send_policed(struct attempt *a)
{
    for (int i = 0; i < POLICED_ATTEMPTS_MAX && !a->done; i++) {
        TRY(in_lane(a, begin_policed));
        if (!a->done) {
            TRY(sign(a));
            TRY(in_lane(a, end_policed));
        }
    }
    return a->done ? OK
                   : err_public(ERR_M_UNAVAILABLE, "The room changes too quickly; try it again.");
}

struct err hs_is_policed(struct hs *hs, struct ctx *ctx, struct room *room, bool *is_out)
{
    struct composing c = {.hs = hs, .ctx = ctx, .room = room};
    *is_out = false;
    return hs->remote && hs->remote->policy_sign ? names_policy(&c, is_out) : OK;
}

struct err hs_propose(struct hs *hs, struct ctx *ctx, struct room *room,
                      const struct hs_proposal *proposal, struct hs_sent *sent_out)
{
    struct attempt a = {
        .c = {.hs = hs, .ctx = ctx, .room = room}, .proposal = proposal, .sent = sent_out};
    bool named = false;
    TRY(hs_is_policed(hs, ctx, room, &named));
    return named ? send_policed(&a) : in_lane(&a, send_plainly);
}

struct err hs_policy_wait(struct hs *hs, struct ctx *ctx, struct room *room)
{
    bool named = false;
    TRY(hs_is_policed(hs, ctx, room, &named));
    return named && !ctx->may_wait ? err_make(ERR_WAITS, "the room's policy server is asked") : OK;
}

bool hs_send_is_refusal(struct err err)
{
    return err.code >= ERR_MATRIX_FIRST || err.code == ERR_TIMEOUT || err.code == ERR_UNAVAILABLE;
}

static struct err decide_given(void *arg, struct hs_draft *draft_out, struct hs_sent *sent_out,
                               bool *done_out)
{
    (void)sent_out;
    (void)done_out;
    *draft_out = *(const struct hs_draft *)arg;
    return OK;
}

struct err hs_send_policed(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct hs_draft *draft, struct hs_sent *sent_out)
{
    struct hs_draft given = *draft;
    struct hs_proposal proposal = {.decide = decide_given, .arg = &given};
    return hs_propose(hs, ctx, room, &proposal, sent_out);
}

/* --- the first event of a room --- */

static struct err append_create(struct composing *c, const struct event *event,
                                struct hs_sent *sent_out)
{
    TRY(authorise(c, event));
    TRY(rooms_write_names(c->hs, c->ctx, c->room));
    struct room_append append = {.event = event, .sender = c->draft->sender_number};
    return room_append(c->hs, c->ctx, c->room, &append, sent_out);
}

static struct slice make_room_id(struct hs *hs, struct ctx *ctx, const struct room_rules *rules)
{
    if (rules->hash_room_id) {
        return (struct slice){0};
    }
    struct slice opaque = token_random_name(ctx->arena, 18);
    return arena_printf(ctx->arena, "!%.*s:%.*s", (int)opaque.len, opaque.ptr,
                        (int)hs->server_name.len, hs->server_name.ptr);
}

/* Where the id is the hash of the create event, an equal one may have made this room already. */
static struct err check_new_id(struct hs *hs, struct ctx *ctx, struct slice room_id)
{
    uint64_t other = 0;
    bool found = false;
    TRY(hs_room_find(hs, ctx, room_id, &other, &found));
    return found ? err_make(ERR_CONFLICT, "a room of this id exists already") : OK;
}

static struct err create_once(struct hs *hs, struct ctx *ctx, const struct room_rules *rules,
                              const struct hs_draft *create, struct room **room_out,
                              struct hs_sent *sent_out)
{
    struct err err = OK;
    uint64_t number = rooms_next_number(hs, ctx, &err);
    TRY(err);
    struct slice room_id = make_room_id(hs, ctx, rules);
    struct room shape = {.rules = rules, .number = number};
    struct composing composing = {.hs = hs, .ctx = ctx, .room = &shape, .draft = create};
    struct event event;
    struct composing sealing = composing;
    shape.state_cache_owned = map_new();
    err = seal(&sealing, room_id, &event);
    map_free(&shape.state_cache_owned);
    TRY(err);
    TRY(check_new_id(hs, ctx, event.room_id.s));
    struct room *room = rooms_adopt(hs, ctx, number, event.room_id.s, rules);
    composing.room = room;
    uint64_t lane = lane_of_room(number);
    workers_lane_enter(hs->workers, lane);
    err = append_create(&composing, &event, sent_out);
    workers_lane_leave(hs->workers, lane);
    *room_out = room;
    return err;
}

/* The next date to try. Who makes many equal rooms at once would take one date after the other that
 * is taken: those who met one count on from the latest that any of them tried, and strides double,
 * so that a clock that was set back is overtaken soon. */
static int64_t later_date(struct hs *hs, int64_t tried_ms, int attempt)
{
    _Atomic int64_t *latest_ms = &hs->rooms->create_date_ms;
    int64_t latest = atomic_load(latest_ms);
    int64_t next = 0;
    do {
        next = (latest > tried_ms ? latest : tried_ms) + (INT64_C(1) << attempt);
    } while (!atomic_compare_exchange_weak(latest_ms, &latest, next));
    return next;
}

struct err hs_room_create_first(struct hs *hs, struct ctx *ctx, struct slice version,
                                const struct hs_draft *create, struct room **room_out,
                                struct hs_sent *sent_out)
{
    const struct room_rules *rules = room_rules_get(version);
    if (!rules) {
        return err_public(ERR_M_UNSUPPORTED_ROOM_VERSION, "This room version is not supported.");
    }
    struct hs_draft draft = *create;
    struct err err = OK;
    if (draft.origin_server_ts == 0) {
        draft.origin_server_ts = now_wall_ms(ctx->now);
    }
    /* From version 12 the room id is the hash of the create event, so a user who makes two equal
     * rooms within a millisecond would make one room twice: the later one is dated later. */
    for (int attempt = 0; attempt < CREATE_ATTEMPTS_MAX; attempt++) {
        err = create_once(hs, ctx, rules, &draft, room_out, sent_out);
        if (err.code != ERR_CONFLICT) {
            return err;
        }
        draft.origin_server_ts = later_date(hs, draft.origin_server_ts, attempt);
    }
    return err;
}
