#include "federation/receipt.h"

#include "federation/policy.h"
#include "homeserver/base/stats.h"
#include "homeserver/service/users.h"

static const char *const names[] = {
    [RECEIPT_NONE] = "none",
#define STEP(NAME, name, what) [RECEIPT_##NAME] = name,
#include "federation/receipt.def"
#undef STEP
};

const char *receipt_step_name(enum receipt_step step)
{
    return names[step];
}

void receipt_name_stats(struct stats *stats)
{
    for (size_t i = 0; i < RECEIPT_STEPS; i++) {
        stats_family_value(stats, STAT_federation_events_total, i ? names[i] : "accepted");
    }
}

void receipt_refuse(const struct receipt *receipt, struct received *received,
                    enum receipt_step step, struct err err)
{
    received->step = step;
    received->err = err;
    stats_family_add(receipt->hs->stats, STAT_federation_events_total, step, 1);
    log_info(receipt->ctx->log, "event_refused", .origin = receipt->origin,
             .event = received->event_id, .step = slice_of(names[step]),
             .err = err.text ? slice_of(err.text) : (struct slice){0});
}

/* --- the room --- */
struct room_batch {
    struct slice room_id;
    struct room *room;              /* NULL: refused by `step` */
    const struct room_rules *rules; /* NULL: the room is not known at all */
    bool is_outside;                /* the room is known by an invite or knock alone */
    enum receipt_step step;
    struct err err;
    struct json pdus; /* array */
    size_t places[LIMIT_PDUS];
};

static struct err find_room(const struct receipt *receipt, struct room_batch *batch)
{
    struct hs *hs = receipt->hs;
    struct room *room = NULL;
    uint64_t number = 0;
    bool found = false;
    batch->step = RECEIPT_ROOM;
    batch->err = err_public(ERR_M_NOT_FOUND, "This server is not in the room.");
    TRY(hs_room_find(hs, receipt->ctx, batch->room_id, &number, &found));
    if (!found) {
        return OK;
    }
    struct err err = hs_room_get(hs, receipt->ctx, number, &room);
    if (err.code == ERR_M_NOT_FOUND) {
        return OK; /* known by an invite alone */
    }
    TRY(err);
    batch->rules = hs_room_info(room).rules;
    if (!hs_room_is_resident(room)) {
        batch->is_outside = true;
        batch->room = room;
        return OK;
    }
    batch->step = RECEIPT_ACL;
    batch->err = fed_acl_check(hs, receipt->ctx, room, receipt->origin);
    if (batch->err.code == 0) {
        batch->room = room;
    }
    return batch->err.code == 0 || batch->err.code == ERR_M_FORBIDDEN ? OK : batch->err;
}

/* Who takes an invite back, or turns a knock down, tells the server of the user, which is not in
 * the room. Spec: server-server, "Inviting to a room". */
static bool looks_like_withdrawal(const struct receipt *receipt, const struct json *pdu)
{
    struct slice user = json_get_string(pdu, LIT("state_key"));
    struct slice word = json_get_string(json_get_object(pdu, LIT("content")), LIT("membership"));
    enum membership membership = membership_parse(word);
    return json_is_string(json_get(pdu, LIT("type")), LIT("m.room.member")) && ids_is_user(user) &&
           (membership == MEMBERSHIP_LEAVE || membership == MEMBERSHIP_BAN) &&
           hs_is_local(receipt->hs, ids_user_domain(ids_trust_user(user)).s);
}

/* The id, even of what will be refused, so that its sender finds the answer. */
static struct slice tell_id(const struct receipt *receipt, const struct room_batch *batch,
                            const struct json *pdu)
{
    struct slice id = json_get_string(pdu, LIT("event_id"));
    if (id.len <= LIMIT_ID_BYTES && ids_is_event(id) &&
        (!batch->rules || batch->rules->event_format == EVENT_FORMAT_1)) {
        return id;
    }
    return batch->rules ? event_id_compute(receipt->ctx->arena, batch->rules, pdu).s
                        : (struct slice){0};
}

/* --- format, size, signatures --- */
static enum receipt_step step_of(struct err err)
{
    return err.code == ERR_M_TOO_LARGE   ? RECEIPT_SIZE
           : err.code == ERR_M_FORBIDDEN ? RECEIPT_SIGNATURES
                                         : RECEIPT_FORMAT;
}

static struct err check_batch(const struct receipt *receipt, const struct room_batch *batch,
                              struct received *received)
{
    struct ctx *ctx = receipt->ctx;
    size_t count = batch->pdus.count;
    struct event *events = arena_array(ctx->arena, count, sizeof *events);
    struct err *verdicts = arena_array(ctx->arena, count, sizeof *verdicts);
    struct fed_pdus pdus = {
        .rules = hs_room_info(batch->room).rules, .pdus = &batch->pdus, .room_id = batch->room_id};
    TRY(fed_pdus_check(receipt->fed, ctx, &pdus, events, verdicts));
    for (size_t i = 0; i < count; i++) {
        struct received *one = &received[batch->places[i]];
        if (verdicts[i].code == 0) {
            verdicts[i] = event_check_reference_counts(&events[i]);
        }
        if (verdicts[i].code != 0) {
            receipt_refuse(receipt, one, step_of(verdicts[i]), verdicts[i]);
            continue;
        }
        one->event = events[i];
        one->event_id = events[i].id.s;
    }
    return OK;
}

static struct room_batch *batch_of(struct room_batch *batches, size_t *count, struct slice room_id)
{
    for (size_t i = 0; i < *count; i++) {
        if (slice_eq(batches[i].room_id, room_id)) {
            return &batches[i];
        }
    }
    batches[*count] = (struct room_batch){.room_id = room_id, .pdus = json_array()};
    return &batches[(*count)++];
}

struct err receipt_check(const struct receipt *receipt, const struct json *pdus,
                         struct received *received_out)
{
    struct arena *arena = receipt->ctx->arena;
    size_t total = pdus ? pdus->count : 0;
    struct room_batch *batches = arena_array(arena, total + 1, sizeof *batches);
    size_t count = 0;
    for (size_t i = 0; i < total; i++) {
        const struct json *pdu = &pdus->items[i];
        struct slice room_id = json_get_string(pdu, LIT("room_id"));
        received_out[i] = (struct received){0};
        if (pdu->type != JSON_OBJECT || !ids_is_room(room_id)) {
            receipt_refuse(receipt, &received_out[i], RECEIPT_FORMAT,
                           err_public(ERR_M_BAD_JSON, "An event must be an object with a room."));
            continue;
        }
        size_t known = count;
        struct room_batch *batch = batch_of(batches, &count, room_id);
        if (count > known) {
            TRY(find_room(receipt, batch));
        }
        received_out[i].event_id = tell_id(receipt, batch, pdu);
        received_out[i].room = batch->room;
        received_out[i].is_outside = batch->is_outside;
        if (!batch->room || (batch->is_outside && !looks_like_withdrawal(receipt, pdu))) {
            receipt_refuse(receipt, &received_out[i], batch->step, batch->err);
            continue;
        }
        batch->places[batch->pdus.count] = i;
        json_push(arena, &batch->pdus, *pdu);
    }
    for (size_t i = 0; i < count; i++) {
        if (batches[i].pdus.count) {
            TRY(check_batch(receipt, &batches[i], received_out));
        }
    }
    return OK;
}

/* --- into the room --- */
static enum receipt_step step_of_intake(enum intake_step step)
{
    switch (step) {
    case INTAKE_STEP_NONE:
        return RECEIPT_NONE;
    case INTAKE_STEP_AUTH_EVENTS:
        return RECEIPT_AUTH_EVENTS;
    case INTAKE_STEP_STATE_BEFORE:
        return RECEIPT_STATE_BEFORE;
    case INTAKE_STEP_CURRENT_STATE:
        return RECEIPT_CURRENT_STATE;
    case INTAKE_STEP_POLICY:
        return RECEIPT_POLICY;
    }
    return RECEIPT_NONE;
}

void receipt_settle(const struct receipt *receipt, struct received *received)
{
    const struct intake_report *report = &received->report;
    struct err refusal = {.code = ERR_M_FORBIDDEN, .is_public = 1};
    received->waits = false;
    switch (report->result) {
    case INTAKE_ACCEPTED:
        stats_family_add(receipt->hs->stats, STAT_federation_events_total, RECEIPT_NONE, 1);
        return;
    case INTAKE_KNOWN:
        return;
    case INTAKE_SOFT_FAILED:
    case INTAKE_REJECTED:
        refusal.text = arena_cstr(receipt->ctx->arena, report->reason);
        receipt_refuse(receipt, received, step_of_intake(report->step), refusal);
        return;
    case INTAKE_MISSING_AUTH:
    case INTAKE_MISSING_PREV:
        received->waits = true;
        return;
    }
}

/* Who made the invite, as it was told then; empty when the user is not invited. */
static struct slice inviter_of(struct ctx *ctx, const struct user_room *entry, struct slice user)
{
    struct json state;
    if (!entry->invite_state.len || json_parse(ctx->arena, entry->invite_state, &state).code != 0) {
        return (struct slice){0};
    }
    for (uint32_t i = 0; state.type == JSON_ARRAY && i < state.count; i++) {
        const struct json *event = &state.items[i];
        if (json_is_string(json_get(event, LIT("type")), LIT("m.room.member")) &&
            json_is_string(json_get(event, LIT("state_key")), user)) {
            return json_get_string(event, LIT("sender"));
        }
    }
    return (struct slice){0};
}

/* The end of an invite or knock cites it; a leave from before it (an unban) does not. */
static struct err cites_entry(const struct receipt *receipt, const struct received *received,
                              const struct user_room *entry, bool *cites_out)
{
    struct stored_event stored;
    bool found = false;
    const struct event *event = &received->event;
    *cites_out = true;
    if (entry->number) {
        TRY(hs_event_scan(receipt->hs, receipt->ctx, received->room, entry->number, &stored,
                          &found));
    }
    if (!found) {
        return OK;
    }
    *cites_out = false;
    for (size_t i = 0; i < event->auth_event_count && !*cites_out; i++) {
        *cites_out = ids_event_eq(event->auth_events[i], stored.event.id);
    }
    return OK;
}

/* Without the room's state nobody's power can be told: only who invited may surely take it back.
 * Whoever knocked is told by a server that could have let the user in. */
static struct err take_withdrawal(const struct receipt *receipt, struct received *received)
{
    struct hs *hs = receipt->hs;
    struct ctx *ctx = receipt->ctx;
    const struct event *event = &received->event;
    struct room_info info = hs_room_info(received->room);
    struct user_room entry = {0};
    uint64_t user = 0;
    bool found = false;
    bool cites = false;
    TRY(hs_user_find(hs, ctx, event->state_key, &user, &found));
    if (found) {
        TRY(hs_user_room(hs, ctx, user, info.number, &entry, &found));
    }
    TRY(cites_entry(receipt, received, &entry, &cites));
    struct slice inviter = inviter_of(ctx, &entry, event->state_key);
    bool fits = slice_eq(inviter, event->sender.s);
    bool open =
        (entry.membership == MEMBERSHIP_INVITE && fits) || entry.membership == MEMBERSHIP_KNOCK;
    if (!found || !open || !cites) {
        receipt_refuse(receipt, received, RECEIPT_ROOM,
                       err_public(ERR_M_NOT_FOUND, "This server is not in the room."));
        return OK;
    }
    stats_family_add(hs->stats, STAT_federation_events_total, RECEIPT_NONE, 1);
    return hs_intake_uninvite(hs, ctx, info.room_id, user, event);
}

/* What waits is looked at each time that the room moves on, so its policy server is not asked for
 * it before it can be judged. */
static struct err is_too_early(const struct receipt *receipt, const struct received *received,
                               bool *early_out)
{
    const struct event *event = &received->event;
    bool asks = false;
    *early_out = false;
    TRY(fed_policy_asks(receipt->hs, receipt->ctx, received->room, event, &asks));
    for (size_t i = 0; asks && i < event->prev_event_count && !*early_out; i++) {
        struct stored_event prev;
        bool found = false;
        TRY(hs_event_find(receipt->hs, receipt->ctx, received->room, event->prev_events[i].s, &prev,
                          &found));
        *early_out = !found || (prev.flags & EVENT_OUTLIER);
    }
    return OK;
}

struct err receipt_take(const struct receipt *receipt, struct received *received)
{
    if (received->is_outside) {
        return take_withdrawal(receipt, received);
    }
    struct intake intake = {.event = &received->event};
    bool early = false;
    TRY(is_too_early(receipt, received, &early));
    if (early) {
        received->report = (struct intake_report){.result = INTAKE_MISSING_PREV};
        receipt_settle(receipt, received);
        return OK;
    }
    TRY(fed_policy_check(receipt->fed, receipt->ctx, received->room, &received->event,
                         &intake.policy_failed));
    TRY(hs_intake_event(receipt->hs, receipt->ctx, received->room, &intake, &received->report));
    receipt_settle(receipt, received);
    return OK;
}
