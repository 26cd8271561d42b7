/* What of the stream of changes is for application services: rows and ephemeral data of theirs. */
#include "homeserver/appservice/as_priv.h"
#include "homeserver/room/membership.h"
#include "homeserver/service/device_keys.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/users.h"

enum { SMALL_JSON_BYTES_MAX = 1 << 20, LINGER_MS = 5 };

/* Another table: what is remembered of the last one says nothing. */
static void follow_table(struct as *as)
{
    const struct appservice_table *table = hs_appservices_table(as->hs);
    pthread_mutex_lock(&as->lock);
    bool changed = as->table != table;
    if (changed) {
        as_queues_match(as, table);
    }
    pthread_mutex_unlock(&as->lock);
    if (changed) {
        as_interest_reset(as->interest);
    }
}

static void set_safe_pos(struct as *as, uint64_t pos)
{
    pthread_mutex_lock(&as->lock);
    as->safe_pos = pos > as->safe_pos ? pos : as->safe_pos;
    pthread_mutex_unlock(&as->lock);
}

/* The queue of the i-th service, if it is in the set. */
static struct as_queue *queue_of(const struct as *as, as_set set, size_t i)
{
    return set >> i & 1 ? as->by_index[i] : NULL;
}

static as_set services_that_want(const struct as *as, enum as_look look)
{
    as_set set = 0;
    for (size_t i = 0; i < as->table->count; i++) {
        const struct appservice *service = &as->table->items[i];
        bool wants = look == AS_LOOK_INBOX ? service->wants_to_device : service->wants_encryption;
        set |= wants && service->url.ptr ? (as_set)1 << i : 0;
    }
    return set;
}

static as_set services_with_ephemeral(const struct as *as)
{
    as_set set = 0;
    for (size_t i = 0; i < as->table->count; i++) {
        const struct appservice *service = &as->table->items[i];
        set |= service->wants_ephemeral && service->url.ptr ? (as_set)1 << i : 0;
    }
    return set;
}

/* --- users to look at --- */

struct look_at {
    uint64_t user;
    enum as_look look;
    uint64_t pos;
};

static struct err put_look(struct as *as, struct ctx *ctx, as_set set, const struct look_at *at)
{
    set &= services_that_want(as, at->look);
    for (size_t i = 0; i < APPSERVICES_MAX; i++) {
        struct as_queue *queue = queue_of(as, set, i);
        struct as_user_row row;
        bool found = false;
        if (!queue) {
            continue;
        }
        TRY(as_user_read(as->hs, ctx, queue->id_owned, at->user, &row, &found));
        /* Whoever left and came back has changed, and the other way round. */
        row.looks &= ~(uint32_t)(at->look == AS_LOOK_LIST ? AS_LOOK_LEFT : 0);
        row.looks &= ~(uint32_t)(at->look == AS_LOOK_LEFT ? AS_LOOK_LIST : 0);
        row.looks |= at->look;
        row.pos = at->pos;
        struct store_update *update = as_rows_update(ctx, queue->id_owned);
        as_user_put(ctx, update, &row);
        TRY(store_write(as->hs->store, ctx, &update, 1));
        as_queue_wake(queue);
    }
    return OK;
}

static struct err own_user(struct as *as, struct ctx *ctx, const struct change *change,
                           enum as_look look)
{
    as_set set = 0;
    struct look_at at = {change->user, look, change->pos};
    TRY(as_interest_of_user(as->interest, ctx, change->user, &set));
    return put_look(as, ctx, set, &at);
}

static struct err list_changed(struct as *as, struct ctx *ctx, uint64_t user, uint64_t pos)
{
    as_set set = 0;
    struct look_at at = {user, AS_LOOK_LIST, pos};
    const struct as_sharing sharing = {user, pos, services_that_want(as, AS_LOOK_LIST)};
    if (!sharing.wanted) {
        return OK;
    }
    TRY(as_interest_of_sharing(as->interest, ctx, &sharing, &set));
    return put_look(as, ctx, set, &at);
}

/* Those of `set` that share no room with the user any more. */
static struct err left_behind(struct as *as, struct ctx *ctx, as_set set, uint64_t user,
                              uint64_t pos)
{
    as_set still = 0;
    const struct as_sharing sharing = {user, pos, set};
    struct look_at at = {user, AS_LOOK_LEFT, pos};
    TRY(as_interest_of_sharing(as->interest, ctx, &sharing, &still));
    return put_look(as, ctx, set & ~still, &at);
}

/* The service's first user came, or its last one went: it begins or ceases to share the room with
 * everybody in it. */
static struct err all_members(struct as *as, struct ctx *ctx, struct room *room,
                              const struct as_event_interest *interest, uint64_t pos)
{
    struct room_members members;
    if (!(interest->first | interest->last)) {
        return OK;
    }
    TRY(hs_room_members(as->hs, ctx, room, MEMBERSHIP_JOIN, 0, &members));
    for (size_t i = 0; i < members.count; i++) {
        struct look_at at = {members.items[i].user, AS_LOOK_LIST, pos};
        TRY(put_look(as, ctx, interest->first, &at));
        if (interest->last) {
            TRY(left_behind(as, ctx, interest->last, members.items[i].user, pos));
        }
    }
    return OK;
}

/* What a member event means for whom services share rooms with. */
static struct err follow_member(struct as *as, struct ctx *ctx, struct room *room,
                                const struct stored_event *event,
                                const struct as_event_interest *found)
{
    struct as_event_interest interest = *found;
    enum membership before = MEMBERSHIP_NONE;
    enum membership after = membership_of(&event->event);
    as_set wants = services_that_want(as, AS_LOOK_LIST);
    uint64_t user = 0;
    interest.set &= wants;
    interest.first &= wants;
    interest.last &= wants;
    if (!interest.set) {
        return OK;
    }
    TRY(hs_membership_at(as->hs, ctx, room, event->state_before, event->event.state_key, &before));
    if ((before == MEMBERSHIP_JOIN) == (after == MEMBERSHIP_JOIN)) {
        return OK;
    }
    TRY(hs_user_intern(as->hs, ctx, event->event.state_key, &user));
    struct look_at at = {user, AS_LOOK_LIST, event->pos};
    if (after == MEMBERSHIP_JOIN) {
        TRY(put_look(as, ctx, interest.set, &at));
    } else {
        TRY(left_behind(as, ctx, interest.set, user, event->pos));
    }
    return all_members(as, ctx, room, &interest, event->pos);
}

/* --- events --- */

static struct err put_event(struct as *as, struct ctx *ctx, as_set set,
                            const struct as_event_row *row)
{
    for (size_t i = 0; i < APPSERVICES_MAX; i++) {
        struct as_queue *queue = queue_of(as, set, i);
        struct as_state state;
        if (!queue) {
            continue;
        }
        /* After a crash events come again that went into a transaction already. */
        TRY(as_state_load(as->hs, ctx, queue->id_owned, &state));
        if (row->pos <= state.sent_pos) {
            continue;
        }
        struct store_update *update = as_rows_update(ctx, queue->id_owned);
        as_event_put(ctx, update, row);
        TRY(store_write(as->hs->store, ctx, &update, 1));
        as_queue_wake(queue);
    }
    return OK;
}

static struct err take_event(struct as *as, struct ctx *ctx, const struct change *change)
{
    struct room *room = NULL;
    struct stored_event event;
    struct as_event_interest interest;
    struct as_event_row row = {change->pos, change->room, change->number};
    bool found = false;
    TRY(hs_room_get(as->hs, ctx, change->room, &room));
    TRY(hs_event_scan(as->hs, ctx, room, change->number, &event, &found));
    if (!found || (event.flags & EVENT_HIDDEN)) {
        return OK;
    }
    bool is_member =
        slice_eq(event.event.type, LIT("m.room.member")) && (event.flags & EVENT_STATE);
    if (is_member) {
        TRY(hs_event_parse_content(ctx, &event));
    }
    TRY(as_interest_of_event(as->interest, ctx, room, &event, &interest));
    TRY(put_event(as, ctx, interest.set, &row));
    return is_member ? follow_member(as, ctx, room, &event, &interest) : OK;
}

/* A user of a service was invited over federation, or the invite was taken back: no log here has
 * the event. */
static struct err take_entry(struct as *as, struct ctx *ctx, const struct user_room *entry,
                             as_set set)
{
    struct as_event_row row = {entry->pos, entry->room, entry->number};
    struct room *room = NULL;
    struct stored_event event;
    bool found = false;
    if (entry->number == 0) {
        return OK;
    }
    TRY(hs_room_get(as->hs, ctx, entry->room, &room));
    TRY(hs_event_scan(as->hs, ctx, room, entry->number, &event, &found));
    return found && (event.flags & EVENT_LOOSE) ? put_event(as, ctx, set, &row) : OK;
}

static struct err take_membership(struct as *as, struct ctx *ctx, const struct change *change)
{
    struct user_room entry;
    as_set set = 0;
    bool found = false;
    TRY(as_interest_of_user(as->interest, ctx, change->user, &set));
    if (!set) {
        return OK;
    }
    TRY(hs_user_room(as->hs, ctx, change->user, change->room, &entry, &found));
    return found && entry.pos == change->pos ? take_entry(as, ctx, &entry, set) : OK;
}

/* --- ephemeral data --- */

static void pass(struct as *as, as_set set, struct slice key, const struct buf *json)
{
    pthread_mutex_lock(&as->lock);
    for (size_t i = 0; i < APPSERVICES_MAX; i++) {
        struct as_queue *queue = queue_of(as, set, i);
        if (queue) {
            as_pass(queue, key, buf_slice(json));
        }
    }
    pthread_mutex_unlock(&as->lock);
}

static void write_type(struct json_out *out, struct slice type, struct slice room_id)
{
    json_out_object(out);
    json_out_key_string(out, LIT("type"), type);
    if (room_id.len > 0) {
        json_out_key_string(out, LIT("room_id"), room_id);
    }
}

static struct err find_room(struct as *as, struct ctx *ctx, const struct change *change,
                            struct room **room_out, as_set *set_out)
{
    TRY(hs_room_get(as->hs, ctx, change->room, room_out));
    TRY(as_interest_of_room(as->interest, ctx, *room_out, change->pos, set_out));
    *set_out &= services_with_ephemeral(as);
    return OK;
}

static struct err take_typing(struct as *as, struct ctx *ctx, const struct change *change)
{
    struct room *room = NULL;
    struct slice *user_ids = NULL;
    struct buf text;
    uint64_t pos = 0;
    as_set set = 0;
    TRY(find_room(as, ctx, change, &room, &set));
    if (!set) {
        return OK;
    }
    size_t count = hs_typing_get(as->hs, ctx, change->room, &user_ids, &pos);
    buf_init_arena(&text, ctx->arena, SMALL_JSON_BYTES_MAX);
    struct json_out out = json_out_to(&text);
    write_type(&out, LIT("m.typing"), hs_room_info(room).room_id);
    hs_typing_write(user_ids, count, &out);
    json_out_object_end(&out);
    pass(as, set, arena_printf(ctx->arena, "typing %llu", (unsigned long long)change->room), &text);
    return OK;
}

static void write_receipt(struct json_out *out, const struct receipt *receipt, struct slice room_id)
{
    write_type(out, LIT("m.receipt"), room_id);
    json_out_key_object(out, LIT("content"));
    json_out_key_object(out, receipt->event_id);
    json_out_key_object(out, receipt->type == RECEIPT_READ ? LIT("m.read") : LIT("m.read.private"));
    json_out_key_object(out, receipt->user_id);
    json_out_key_int(out, LIT("ts"), receipt->ts_ms);
    if (receipt->thread.ptr) {
        json_out_key_string(out, LIT("thread_id"), receipt->thread);
    }
    for (int i = 0; i < 5; i++) {
        json_out_object_end(out);
    }
}

/* Spec: application-service, "Pushing ephemeral data": private receipts of own users alone. */
static struct err take_receipt(struct as *as, struct ctx *ctx, const struct change *change)
{
    struct room *room = NULL;
    struct receipts receipts;
    as_set set = 0;
    as_set own = 0;
    TRY(find_room(as, ctx, change, &room, &set));
    if (!set) {
        return OK;
    }
    TRY(as_interest_of_user(as->interest, ctx, change->user, &own));
    TRY(hs_receipts_since(as->hs, ctx, room, change->user, change->pos - 1, change->pos,
                          &receipts));
    for (size_t i = 0; i < receipts.count; i++) {
        const struct receipt *receipt = &receipts.items[i];
        struct buf text;
        buf_init_arena(&text, ctx->arena, SMALL_JSON_BYTES_MAX);
        struct json_out out = json_out_to(&text);
        write_receipt(&out, receipt, hs_room_info(room).room_id);
        struct slice key =
            arena_printf(ctx->arena, "receipt %llu %llu %d %.*s", (unsigned long long)change->room,
                         (unsigned long long)receipt->user, (int)receipt->type,
                         (int)receipt->thread.len, receipt->thread.ptr ? receipt->thread.ptr : "");
        pass(as, receipt->type == RECEIPT_READ ? set : set & own, key, &text);
    }
    return OK;
}

static void write_presence(struct json_out *out, const struct presence_state *state)
{
    static const struct slice words[] = {{"offline", 7}, {"unavailable", 11}, {"online", 6}};
    write_type(out, LIT("m.presence"), (struct slice){0});
    json_out_key_string(out, LIT("sender"), state->user_id);
    json_out_key_object(out, LIT("content"));
    json_out_key_string(out, LIT("presence"), words[state->presence]);
    if (state->last_active_ago_ms >= 0) {
        json_out_key_int(out, LIT("last_active_ago"), state->last_active_ago_ms);
    }
    if (state->status_msg.ptr) {
        json_out_key_string(out, LIT("status_msg"), state->status_msg);
    }
    json_out_key_bool(out, LIT("currently_active"), state->currently_active);
    json_out_object_end(out);
    json_out_object_end(out);
}

static struct err take_presence(struct as *as, struct ctx *ctx, const struct change *change)
{
    struct presence_state state;
    struct buf text;
    as_set set = 0;
    const struct as_sharing sharing = {change->user, change->pos, services_with_ephemeral(as)};
    if (!sharing.wanted || !hs_presence_get(as->hs, ctx, change->user, &state)) {
        return OK;
    }
    TRY(as_interest_of_sharing(as->interest, ctx, &sharing, &set));
    if (!set) {
        return OK;
    }
    buf_init_arena(&text, ctx->arena, SMALL_JSON_BYTES_MAX);
    struct json_out out = json_out_to(&text);
    write_presence(&out, &state);
    pass(as, set, arena_printf(ctx->arena, "presence %llu", (unsigned long long)change->user),
         &text);
    return OK;
}

/* --- the port --- */

static struct err take_change(struct as *as, struct ctx *ctx, const struct change *change)
{
    switch (change->kind) {
    case CHANGE_EVENT:
        return take_event(as, ctx, change);
    case CHANGE_STATE_ONLY:
        as_interest_drop_room(as->interest, change->room);
        return OK;
    case CHANGE_MEMBERSHIP:
        return take_membership(as, ctx, change);
    case CHANGE_RECEIPT:
        return take_receipt(as, ctx, change);
    case CHANGE_TYPING:
        return take_typing(as, ctx, change);
    case CHANGE_TO_DEVICE:
        return own_user(as, ctx, change, AS_LOOK_INBOX);
    case CHANGE_KEY_COUNTS:
        return own_user(as, ctx, change, AS_LOOK_COUNTS);
    case CHANGE_DEVICE_KEYS:
        return list_changed(as, ctx, change->user, change->pos);
    case CHANGE_PRESENCE:
        return take_presence(as, ctx, change);
    case CHANGE_ACCOUNT_DATA:
    case CHANGE_PUSH_RULES:
    case CHANGE_PROFILE:
        return OK;
    }
    return OK;
}

static struct err handle(void *arg, struct ctx *ctx, const struct change *change)
{
    struct as *as = arg;
    follow_table(as);
    bool none = hs_appservices_table(as->hs)->count == 0; /* then nothing is looked at */
    struct err err = none ? OK : take_change(as, ctx, change);
    if (err.code == 0 || err.code == ERR_M_NOT_FOUND || err.code == ERR_CORRUPT) {
        set_safe_pos(as, change->pos); /* done with, or passed over */
    }
    return err;
}

static struct err rest(void *arg, struct ctx *ctx, int64_t *next_wall_ms)
{
    struct as *as = arg;
    (void)ctx;
    follow_table(as);
    uint64_t pos = hs_tail_position(as->tail);
    set_safe_pos(as, pos > as->lost_upto ? pos : as->lost_upto);
    *next_wall_ms = as_pump(as);
    return OK;
}

/* --- after a crash --- */

struct search {
    struct as *as;
    struct ctx *ctx;
    uint64_t since;
    enum as_look look;
};

static struct err own_number(struct search *s, struct slice id, uint64_t *user_out, as_set *set_out)
{
    struct unpack in = unpack_of(id);
    *set_out = 0;
    *user_out = unpack_be64(&in);
    if (in.bad) {
        return OK;
    }
    struct err err = as_interest_of_user(s->as->interest, s->ctx, *user_out, set_out);
    return err.code == ERR_CORRUPT ? OK : err;
}

/* An object of a user or of a device: (kind, be64 user ...). */
static struct err look_again(void *arg, struct slice id)
{
    struct search *s = arg;
    as_set set = 0;
    struct look_at at = {.look = s->look, .pos = s->as->lost_upto};
    TRY(own_number(s, id, &at.user, &set));
    return put_look(s->as, s->ctx, set, &at);
}

static struct err look_for_invites(void *arg, struct slice id)
{
    struct search *s = arg;
    struct user_rooms rooms;
    uint64_t user = 0;
    as_set set = 0;
    TRY(own_number(s, id, &user, &set));
    if (!set) {
        return OK;
    }
    TRY(hs_user_rooms(s->as->hs, s->ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count; i++) {
        const struct user_room *entry = &rooms.items[i];
        if (entry->pos > s->since) {
            TRY(take_entry(s->as, s->ctx, entry, set));
        }
    }
    return OK;
}

static struct err lost_lists(struct search *s)
{
    uint64_t *users = NULL;
    size_t count = 0;
    TRY(hs_device_changes(s->as->hs, s->ctx, s->since, s->as->lost_upto, &users, &count));
    for (size_t i = 0; i < count; i++) {
        TRY(list_changed(s->as, s->ctx, users[i], s->as->lost_upto));
    }
    return OK;
}

/* Looks at all there is of the users of services; only after a crash. */
static struct err lost(void *arg, struct ctx *ctx)
{
    struct as *as = arg;
    struct store *store = as->hs->store;
    follow_table(as);
    as_interest_reset(as->interest);
    struct search s = {.as = as, .ctx = ctx, .since = hs_tail_position(as->tail)};
    as->lost_upto = positions_published(as->hs->positions);
    TRY(store_each_object(store, ctx, STORE_USER, look_for_invites, &s));
    if (services_that_want(as, AS_LOOK_INBOX)) {
        s.look = AS_LOOK_INBOX;
        TRY(store_each_object(store, ctx, STORE_INBOX, look_again, &s));
    }
    if (services_that_want(as, AS_LOOK_COUNTS)) {
        s.look = AS_LOOK_COUNTS;
        TRY(store_each_object(store, ctx, STORE_USER_KEYS, look_again, &s));
        TRY(lost_lists(&s));
    }
    as_interest_reset(
        as->interest); /* it looked at rooms as they are, not as the replay has them */
    return OK;
}

const struct hs_tail_port as_tail_port = {
    .name = "appservices",
    .kinds = TAIL_KIND(CHANGE_EVENT) | TAIL_KIND(CHANGE_STATE_ONLY) | TAIL_KIND(CHANGE_RECEIPT) |
             TAIL_KIND(CHANGE_TYPING) | TAIL_KIND(CHANGE_MEMBERSHIP) | TAIL_KIND(CHANGE_TO_DEVICE) |
             TAIL_KIND(CHANGE_DEVICE_KEYS) | TAIL_KIND(CHANGE_KEY_COUNTS) |
             TAIL_KIND(CHANGE_PRESENCE),
    .start = TAIL_FROM_NOW,
    .linger_ms = LINGER_MS,
    .handle = handle,
    .rest = rest,
    .lost = lost,
};
