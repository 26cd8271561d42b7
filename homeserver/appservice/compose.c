/* The body of a transaction. Spec: application-service, "Pushing events", "Pushing ephemeral data".
 * Messages to devices, device lists and counts of keys go out under the names of the proposals
 * (MSC2409, MSC3202) and under the names without a prefix that bridges read, too. */
#include "homeserver/appservice/as_priv.h"
#include "homeserver/room/membership.h"
#include "homeserver/service/device_keys.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/timeline.h"
#include "homeserver/service/to_device.h"
#include "homeserver/service/users.h"

enum { EVENTS_BYTES_MAX = 2 << 20, BODY_BYTES_MAX = 48 << 20, INBOXES_CHUNK = 16 };

struct draft {
    struct as *as;
    struct hs *hs;
    struct ctx *ctx;
    const struct appservice *service;
    struct as_made *made;
    struct as_state state;
    struct buf events, to_device;
    struct json changed, left, counts, fallbacks;
    size_t to_device_count, inbox_cap;
    bool takes_rows;
};

/* --- events --- */

/* Whether an invite is for a user of the service, which then wants to know the room. */
static struct err is_own_invite(struct draft *d, struct stored_event *event, bool *is_out)
{
    *is_out = false;
    if (!(event->event.has_state_key && slice_eq(event->event.type, LIT("m.room.member")) &&
          hs_appservice_has_user(d->hs, d->service, event->event.state_key))) {
        return OK;
    }
    TRY(hs_event_parse_content(d->ctx, event));
    *is_out = membership_of(&event->event) == MEMBERSHIP_INVITE;
    return OK;
}

static struct err invite_state(struct draft *d, struct room *room, const struct stored_event *event,
                               struct json *state_out)
{
    struct buf text;
    uint64_t user = 0;
    bool found = false;
    struct user_room entry = {0};
    buf_init_arena(&text, d->ctx->arena, EVENTS_BYTES_MAX);
    if (event->flags & EVENT_LOOSE) {
        TRY(hs_user_find(d->hs, d->ctx, event->event.state_key, &user, &found));
        if (found) {
            TRY(hs_user_room(d->hs, d->ctx, user, hs_room_info(room).number, &entry, &found));
        }
        buf_add(&text, found && entry.invite_state.len ? entry.invite_state : LIT("[]"));
    } else {
        struct json_out out = json_out_to(&text);
        TRY(hs_write_stripped_state(d->hs, d->ctx, room, event->state_before, event->event.sender.s,
                                    &out));
    }
    return json_parse(d->ctx->arena, buf_slice(&text), state_out);
}

static struct err add_invite_state(struct draft *d, struct room *room,
                                   const struct stored_event *event, struct buf *text)
{
    struct json tree;
    struct json state;
    TRY(json_parse(d->ctx->arena, buf_slice(text), &tree));
    TRY(invite_state(d, room, event, &state));
    const struct json *old = json_get_object(&tree, LIT("unsigned"));
    struct json extra = old ? json_without(d->ctx->arena, old, NULL, 0) : json_object();
    json_set(d->ctx->arena, &extra, LIT("invite_room_state"), state);
    json_set(d->ctx->arena, &tree, LIT("unsigned"), extra);
    buf_clear(text);
    json_write_canonical(text, &tree);
    return OK;
}

/* Rooms that were purged since, and events that went with them, are passed over. */
static struct err write_event(struct draft *d, const struct as_event_row *row)
{
    struct room *room = NULL;
    struct stored_event event;
    struct buf text;
    bool found = false;
    bool is_invite = false;
    /* A service is told of what happens as if it had been in the room. */
    const struct viewer nobody = {.joined_from = INT64_MIN, .joined_until = INT64_MAX};
    struct err err = hs_room_get(d->hs, d->ctx, row->room, &room);
    if (err.code == ERR_M_NOT_FOUND) {
        return OK;
    }
    TRY(err);
    TRY(hs_event_scan(d->hs, d->ctx, room, row->number, &event, &found));
    if (!found) {
        return OK;
    }
    buf_init_arena(&text, d->ctx->arena, EVENTS_BYTES_MAX);
    struct json_out out = json_out_to(&text);
    TRY(hs_write_event(d->hs, d->ctx, room, &nobody, &event, VIEW_ROOM_ID, &out));
    TRY(is_own_invite(d, &event, &is_invite));
    if (is_invite) {
        TRY(add_invite_state(d, room, &event, &text));
    }
    if (d->events.len > 0) {
        buf_add_byte(&d->events, ',');
    }
    buf_add(&d->events, buf_slice(&text));
    d->made->txn.event_count++;
    return OK;
}

static struct err take_events(struct draft *d)
{
    struct as_event_row *rows = NULL;
    size_t count = 0;
    pthread_mutex_lock(&d->as->lock);
    uint64_t upto = d->as->safe_pos;
    pthread_mutex_unlock(&d->as->lock);
    TRY(as_events_read(d->hs, d->ctx, d->service->id, upto, AS_EVENTS_MAX, &rows, &count));
    d->made->more = count == AS_EVENTS_MAX;
    for (size_t i = 0; i < count; i++) {
        if (d->events.len > EVENTS_BYTES_MAX / 2) {
            d->made->more = true;
            return OK;
        }
        struct err err = write_event(d, &rows[i]);
        if (err.code == ERR_CORRUPT) {
            log_error(d->hs->log, "appservice_event", .dest = d->service->id,
                      .err = slice_of(err.text));
            err = OK;
        }
        TRY(err);
        as_event_delete(d->ctx, d->made->update, rows[i].pos);
        d->state.sent_pos = rows[i].pos;
        d->takes_rows = true;
    }
    return OK;
}

/* --- devices of its users --- */

static void note_inbox(struct draft *d, uint64_t user, struct slice device_id, uint64_t pos)
{
    struct as_txn *txn = &d->made->txn;
    if (txn->inbox_count == d->inbox_cap) {
        size_t cap = d->inbox_cap + INBOXES_CHUNK;
        txn->inboxes = arena_grow(d->ctx->arena, txn->inboxes, d->inbox_cap * sizeof *txn->inboxes,
                                  cap * sizeof *txn->inboxes);
        d->inbox_cap = cap;
    }
    txn->inboxes[txn->inbox_count++] = (struct as_inbox_mark){user, device_id, pos};
}

/* {"content":...,"sender":...,"type":...} with whom it is for. */
static void write_message(struct draft *d, struct slice user_id, struct slice device_id,
                          struct slice json)
{
    if (d->to_device.len > 0) {
        buf_add_byte(&d->to_device, ',');
    }
    struct json_out out = json_out_to(&d->to_device);
    json_out_object(&out);
    json_out_key_string(&out, LIT("to_user_id"), user_id);
    json_out_key_string(&out, LIT("to_device_id"), device_id);
    buf_add_byte(&d->to_device, ',');
    buf_add(&d->to_device, slice_from(json, 1));
    d->to_device_count++;
}

/* all_out: nothing is left of the inbox. */
static struct err take_inbox(struct draft *d, const struct account *account, struct slice device_id,
                             bool *all_out)
{
    struct to_device_messages messages;
    struct inbox_range range = {.upto = positions_published(d->hs->positions),
                                .limit = AS_TO_DEVICE_MAX - d->to_device_count};
    *all_out = range.limit > 0;
    if (!*all_out) {
        return OK;
    }
    TRY(as_inbox_mark_read(d->hs, d->ctx, d->service->id, account->user, device_id, &range.since));
    TRY(hs_inbox_read(d->hs, d->ctx, account->user, device_id, range, &messages));
    for (size_t i = 0; i < messages.count; i++) {
        write_message(d, account->user_id, device_id, messages.items[i].json);
    }
    if (messages.count > 0) {
        note_inbox(d, account->user, device_id, messages.items[messages.count - 1].pos);
    }
    *all_out = messages.count < range.limit;
    return OK;
}

/* Sets tree[user][device] = value. */
static void set_of_device(struct draft *d, struct json *tree, const struct account *account,
                          struct slice device_id, struct json value)
{
    const struct json *old = json_get_object(tree, account->user_id);
    struct json devices = old ? json_without(d->ctx->arena, old, NULL, 0) : json_object();
    json_set(d->ctx->arena, &devices, device_id, value);
    json_set(d->ctx->arena, tree, account->user_id, devices);
}

static struct err add_counts(struct draft *d, const struct account *account, struct slice device_id)
{
    struct key_counts counts;
    struct json one_time = json_object();
    struct json unused = json_array();
    TRY(hs_key_counts(d->hs, d->ctx, account->user, device_id, &counts));
    for (size_t i = 0; i < counts.one_time_count; i++) {
        json_set(d->ctx->arena, &one_time, counts.one_time[i].algorithm,
                 json_int(counts.one_time[i].count));
    }
    for (size_t i = 0; i < counts.unused_fallback_count; i++) {
        json_push(d->ctx->arena, &unused, json_string(counts.unused_fallback[i]));
    }
    set_of_device(d, &d->counts, account, device_id, one_time);
    set_of_device(d, &d->fallbacks, account, device_id, unused);
    return OK;
}

static struct err take_devices(struct draft *d, const struct account *account, uint32_t looks,
                               bool *all_out)
{
    struct devices devices;
    TRY(hs_devices_list(d->hs, d->ctx, account->user, &devices));
    for (size_t i = 0; i < devices.count; i++) {
        struct slice device_id = devices.items[i].device_id;
        bool all = true;
        size_t before = d->to_device_count;
        if ((looks & AS_LOOK_INBOX) && d->service->wants_to_device) {
            TRY(take_inbox(d, account, device_id, &all));
        }
        bool counts = (looks & AS_LOOK_COUNTS) || d->to_device_count > before;
        if (counts && d->service->wants_encryption) {
            TRY(add_counts(d, account, device_id));
        }
        *all_out = *all_out && all;
    }
    return OK;
}

static struct err take_user(struct draft *d, const struct as_user_row *row)
{
    struct account account = {.user = row->user};
    bool all = true;
    TRY(hs_user_id_of(d->hs, d->ctx, row->user, &account.user_id));
    if ((row->looks & (AS_LOOK_INBOX | AS_LOOK_COUNTS)) &&
        hs_appservice_has_user(d->hs, d->service, account.user_id)) {
        TRY(take_devices(d, &account, row->looks, &all));
    }
    if (!all) { /* another transaction has the rest, and the news of its list */
        d->made->more = true;
        return OK;
    }
    if ((row->looks & AS_LOOK_LIST) && d->service->wants_encryption) {
        json_push(d->ctx->arena, &d->changed, json_string(account.user_id));
    } else if ((row->looks & AS_LOOK_LEFT) && d->service->wants_encryption) {
        json_push(d->ctx->arena, &d->left, json_string(account.user_id));
    }
    as_user_take(d->ctx, d->made->update, row);
    d->takes_rows = true;
    return OK;
}

static struct err take_users(struct draft *d)
{
    struct as_user_row *rows = NULL;
    size_t count = 0;
    TRY(as_users_read(d->hs, d->ctx, d->service->id, AS_USERS_MAX, &rows, &count));
    d->made->more = d->made->more || count == AS_USERS_MAX;
    for (size_t i = 0; i < count; i++) {
        TRY(take_user(d, &rows[i]));
    }
    return OK;
}

/* --- the whole --- */

static void write_list(struct json_out *out, struct slice key, struct slice values)
{
    json_out_key(out, key);
    buf_add_byte(out->buf, '[');
    buf_add(out->buf, values);
    buf_add_byte(out->buf, ']');
    out->need_comma = true;
}

static void write_tree(struct json_out *out, struct slice key, const struct json *tree)
{
    json_out_key(out, key);
    json_out_value(out, tree);
}

static void write_encryption(struct draft *d, struct json_out *out)
{
    if (d->changed.count + d->left.count > 0) {
        struct json lists = json_object();
        json_set(d->ctx->arena, &lists, LIT("changed"), d->changed);
        json_set(d->ctx->arena, &lists, LIT("left"), d->left);
        write_tree(out, LIT("device_lists"), &lists);
        write_tree(out, LIT("org.matrix.msc3202.device_lists"), &lists);
    }
    if (d->counts.count > 0) {
        write_tree(out, LIT("device_one_time_keys_count"), &d->counts);
        write_tree(out, LIT("org.matrix.msc3202.device_one_time_keys_count"), &d->counts);
        write_tree(out, LIT("device_unused_fallback_key_types"), &d->fallbacks);
        write_tree(out, LIT("org.matrix.msc3202.device_unused_fallback_key_types"), &d->fallbacks);
    }
}

static struct err write_body(struct draft *d, const struct as_making *making)
{
    struct buf body;
    buf_init_arena(&body, d->ctx->arena, BODY_BYTES_MAX);
    struct json_out out = json_out_to(&body);
    json_out_object(&out);
    write_list(&out, LIT("events"), buf_slice(&d->events));
    if (making->passing_count > 0) {
        write_list(&out, LIT("ephemeral"), making->passing);
        write_list(&out, LIT("de.sorunome.msc2409.ephemeral"), making->passing);
    }
    if (d->to_device_count > 0) {
        write_list(&out, LIT("to_device"), buf_slice(&d->to_device));
        write_list(&out, LIT("de.sorunome.msc2409.to_device"), buf_slice(&d->to_device));
    }
    write_encryption(d, &out);
    json_out_object_end(&out);
    d->made->txn.body = buf_slice(&body);
    return buf_check(&body);
}

/* Ids begin with the time, so that a service never sees one again after a store was made anew. */
static struct err seal(struct draft *d, const struct as_making *making)
{
    struct as_txn *txn = &d->made->txn;
    size_t others = making->passing_count + d->to_device_count + d->changed.count + d->left.count +
                    d->counts.count;
    d->made->found = txn->event_count + others > 0;
    if (!d->made->found && !d->takes_rows) {
        d->made->update = NULL;
        return OK;
    }
    if (d->made->found) {
        d->state.next_txn =
            d->state.next_txn ? d->state.next_txn : (uint64_t)now_wall_ms(d->ctx->now);
        txn->id = d->state.next_txn++;
        txn->other_count = others;
        TRY(write_body(d, making));
        as_txn_put(d->ctx, d->made->update, txn);
    }
    as_state_put(d->ctx, d->made->update, &d->state);
    return OK;
}

struct err as_compose(const struct as_making *making, struct ctx *ctx, struct as_made *made_out)
{
    struct draft d = {.as = making->as,
                      .hs = making->as->hs,
                      .ctx = ctx,
                      .service = making->service,
                      .made = made_out,
                      .changed = json_array(),
                      .left = json_array(),
                      .counts = json_object(),
                      .fallbacks = json_object()};
    *made_out = (struct as_made){.update = as_rows_update(ctx, making->service->id)};
    buf_init_arena(&d.events, ctx->arena, BODY_BYTES_MAX);
    buf_init_arena(&d.to_device, ctx->arena, BODY_BYTES_MAX);
    TRY(as_state_load(d.hs, ctx, making->service->id, &d.state));
    TRY(take_events(&d));
    TRY(take_users(&d));
    return seal(&d, making);
}
