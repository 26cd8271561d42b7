#include "homeserver/service/to_device.h"

#include "crypto/sha256.h"
#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/inbox_rows.h"
#include "homeserver/service/users.h"

#include <pthread.h>
#include <string.h>

enum { STRIPES = 64, STRIPE_MAX = 8192, ROW_BYTES_MAX = 1024, TXNS_DROPPED_MAX = 50 };
#define TXN_KEPT_MS (INT64_C(24) * 3600 * 1000)

/* What is known of an inbox without looking. */
struct inbox_mark {
    uint64_t newest;  /* no message stands above this position */
    uint64_t deleted; /* no message stands at or below this one */
};
/* `dropped` counts marks that were thrown away: a reader that was overtaken keeps nothing. */
struct inbox_stripe {
    pthread_mutex_t lock;
    struct map *marks; /* object id -> struct inbox_mark */
    uint64_t dropped;
};
struct hs_inbox {
    struct inbox_stripe stripes[STRIPES];
    hs_inbox_remote_fn remote;
};

/* --- keys --- */

struct store_object inbox_object(struct ctx *ctx, uint64_t user, struct slice device_id)
{
    return (struct store_object){
        .kind = STORE_INBOX,
        .id = arena_concat(ctx->arena, store_id_u64(ctx->arena, user), device_id)};
}

/* Longer device ids have no inbox. */
static bool has_inbox(struct slice device_id)
{
    return device_id.len > 0 && device_id.len <= STORE_ID_BYTES_MAX - 8;
}

static struct slice number_key(struct ctx *ctx, enum inbox_row row, uint64_t number)
{
    char letter[] = {(char)row};
    return arena_concat(ctx->arena, (struct slice){letter, 1}, store_id_u64(ctx->arena, number));
}

struct slice inbox_txn_by_time(struct ctx *ctx, uint64_t time_ms, struct slice txn_key)
{
    struct sha256 hash = sha256_of(txn_key);
    return arena_concat(ctx->arena, number_key(ctx, INBOX_ROW_TXN_BY_TIME, time_ms),
                        slice_sub(sha256_slice(&hash), 0, 8));
}

/* --- marks --- */

static struct inbox_stripe *stripe_of(struct hs *hs, struct slice id)
{
    return &hs->inbox->stripes[slice_hash(id) % STRIPES];
}

static void drop_marks(struct inbox_stripe *stripe)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(stripe->marks, &cursor, &key, &value)) {
        mem_free((void *)(uintptr_t)value);
    }
    map_free(&stripe->marks);
}

static void put_mark(struct inbox_stripe *stripe, struct slice id, struct inbox_mark mark)
{
    if (map_count(stripe->marks) >= STRIPE_MAX) {
        drop_marks(stripe);
        stripe->marks = map_new();
        stripe->dropped++;
    }
    struct inbox_mark *kept = mem_alloc(sizeof *kept);
    *kept = mark;
    map_set_ptr(stripe->marks, id, kept);
}

/* Before a message is written: whoever looks from now on looks into the store. */
static void raise_mark(struct hs *hs, struct slice id, uint64_t pos)
{
    struct inbox_stripe *stripe = stripe_of(hs, id);
    pthread_mutex_lock(&stripe->lock);
    struct inbox_mark *mark = map_get_ptr(stripe->marks, id);
    if (!mark) {
        put_mark(stripe, id, (struct inbox_mark){.newest = pos});
    } else if (mark->newest < pos) {
        mark->newest = pos;
    }
    pthread_mutex_unlock(&stripe->lock);
}

static bool find_mark(struct inbox_stripe *stripe, struct slice id, struct inbox_mark *mark_out,
                      uint64_t *dropped_out)
{
    pthread_mutex_lock(&stripe->lock);
    const struct inbox_mark *mark = map_get_ptr(stripe->marks, id);
    if (mark) {
        *mark_out = *mark;
    }
    *dropped_out = stripe->dropped;
    pthread_mutex_unlock(&stripe->lock);
    return mark != NULL;
}

static struct err newest_stored(struct hs *hs, struct ctx *ctx, struct store_object object,
                                uint64_t *pos_out)
{
    struct store_rows rows;
    struct store_range range = {
        .from = LIT("m"), .to = LIT("n"), .limit = 1, .order = STORE_REVERSE};
    TRY(store_read_range(hs->store, ctx, object, range, &rows));
    *pos_out = 0;
    if (rows.count > 0) {
        struct unpack in = unpack_of(slice_from(rows.rows[0].key, 1));
        *pos_out = unpack_be64(&in);
        TRY(unpack_check(&in));
    }
    return OK;
}

/* The mark of an inbox, from the store when it is not in memory. */
static struct err get_mark(struct hs *hs, struct ctx *ctx, struct store_object object,
                           struct inbox_mark *mark_out)
{
    struct inbox_stripe *stripe = stripe_of(hs, object.id);
    uint64_t dropped = 0;
    *mark_out = (struct inbox_mark){0};
    if (find_mark(stripe, object.id, mark_out, &dropped)) {
        return OK;
    }
    TRY(newest_stored(hs, ctx, object, &mark_out->newest));
    pthread_mutex_lock(&stripe->lock);
    const struct inbox_mark *mark = map_get_ptr(stripe->marks, object.id);
    if (mark) {
        *mark_out = *mark;
    } else if (stripe->dropped == dropped) {
        put_mark(stripe, object.id, *mark_out);
    }
    pthread_mutex_unlock(&stripe->lock);
    return OK;
}

bool hs_inbox_may_have(struct hs *hs, uint64_t user, struct slice device_id, uint64_t since)
{
    char id[STORE_ID_BYTES_MAX];
    struct inbox_mark mark = {0};
    uint64_t dropped = 0;
    if (!has_inbox(device_id)) {
        return false;
    }
    for (int i = 0; i < 8; i++) {
        id[i] = (char)(unsigned char)(user >> (56 - 8 * i));
    }
    memcpy(id + 8, device_id.ptr, device_id.len);
    struct slice key = {id, 8 + device_id.len};
    return !find_mark(stripe_of(hs, key), key, &mark, &dropped) || mark.newest > since;
}

/* --- reading --- */

struct err hs_inbox_read(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice device_id,
                         struct inbox_range wanted, struct to_device_messages *messages_out)
{
    struct inbox_mark mark;
    struct store_rows rows;
    *messages_out = (struct to_device_messages){0};
    if (!has_inbox(device_id) || wanted.upto <= wanted.since) {
        return OK;
    }
    struct store_object object = inbox_object(ctx, user, device_id);
    TRY(get_mark(hs, ctx, object, &mark));
    if (mark.newest <= wanted.since) {
        return OK;
    }
    struct store_range range = {.from = number_key(ctx, INBOX_ROW_MESSAGE, wanted.since + 1),
                                .to = number_key(ctx, INBOX_ROW_MESSAGE, wanted.upto + 1),
                                .limit = wanted.limit};
    TRY(store_read_range(hs->store, ctx, object, range, &rows));
    messages_out->items = arena_array(ctx->arena, rows.count + 1, sizeof *messages_out->items);
    for (size_t i = 0; i < rows.count; i++) {
        struct unpack in = unpack_of(slice_from(rows.rows[i].key, 1));
        messages_out->items[i] =
            (struct to_device_message){.pos = unpack_be64(&in), .json = rows.rows[i].value};
        TRY(unpack_check(&in));
    }
    messages_out->count = rows.count;
    return OK;
}

static void mark_deleted(struct hs *hs, struct slice id, uint64_t upto)
{
    struct inbox_stripe *stripe = stripe_of(hs, id);
    pthread_mutex_lock(&stripe->lock);
    struct inbox_mark *mark = map_get_ptr(stripe->marks, id);
    if (mark && mark->deleted < upto) {
        mark->deleted = upto;
    }
    pthread_mutex_unlock(&stripe->lock);
}

/* Nobody's answer waits for this write: a message that came back would stand below every later
 * `since`. */
struct err hs_inbox_acknowledge(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct slice device_id, uint64_t upto)
{
    struct inbox_mark mark;
    if (!has_inbox(device_id)) {
        return OK;
    }
    struct store_object object = inbox_object(ctx, user, device_id);
    TRY(get_mark(hs, ctx, object, &mark));
    if (upto <= mark.deleted || mark.newest <= mark.deleted) {
        return OK;
    }
    uint64_t ticket = ctx->write_ticket;
    struct store_update *update = store_update_new(ctx, object);
    store_delete_range(update, number_key(ctx, INBOX_ROW_MESSAGE, 0),
                       number_key(ctx, INBOX_ROW_MESSAGE, upto + 1));
    struct err err = store_write(hs->store, ctx, &update, 1);
    ctx->write_ticket = ticket;
    if (err.code == 0) {
        mark_deleted(hs, object.id, upto);
    }
    return err;
}

/* --- sending --- */

struct sending {
    struct hs *hs;
    struct ctx *ctx;
    const struct to_device_send *send;
    struct store_update **updates;
    struct change *changes;
    size_t count, cap; /* of both; the transaction's update comes behind */
};

static struct slice message_of(struct sending *s, const struct json *content)
{
    struct json message = json_object();
    json_set(s->ctx->arena, &message, LIT("content"), *content);
    json_set(s->ctx->arena, &message, LIT("sender"), json_string(s->send->sender));
    json_set(s->ctx->arena, &message, LIT("type"), json_string(s->send->type));
    return json_canonical(s->ctx->arena, &message);
}

static void *grown(struct ctx *ctx, void *items, size_t old, size_t now, size_t size)
{
    return arena_grow(ctx->arena, items, old * size, now * size);
}

/* Each message has its own position, so an answer can stop between any two. */
static void deliver(struct sending *s, uint64_t user, struct slice device_id, struct slice json)
{
    struct store_object object = inbox_object(s->ctx, user, device_id);
    if (s->count + 1 >= s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        s->updates = grown(s->ctx, s->updates, s->cap, cap, sizeof *s->updates);
        s->changes = grown(s->ctx, s->changes, s->cap, cap, sizeof *s->changes);
        s->cap = cap;
    }
    struct change *change = &s->changes[s->count];
    *change = (struct change){
        .pos = positions_reserve(s->hs->positions), .kind = CHANGE_TO_DEVICE, .user = user};
    size_t len =
        device_id.len < sizeof change->device_id ? device_id.len : sizeof change->device_id - 1;
    memcpy(change->device_id, device_id.ptr, len);
    raise_mark(s->hs, object.id, change->pos);
    s->updates[s->count] = store_update_new(s->ctx, object);
    store_put(s->updates[s->count], number_key(s->ctx, INBOX_ROW_MESSAGE, change->pos), json);
    s->count++;
}

static struct err deliver_item(struct sending *s, const struct to_device_item *item)
{
    struct devices devices;
    uint64_t user = 0;
    bool found = false;
    bool to_all = slice_eq(item->device_id, LIT("*"));
    TRY(hs_user_find(s->hs, s->ctx, item->user_id, &user, &found));
    if (!found) {
        return OK;
    }
    struct slice json = message_of(s, item->content);
    if (!to_all) {
        struct device device;
        TRY(hs_device_get(s->hs, s->ctx, user, item->device_id, &device, &found));
        if (found && has_inbox(item->device_id)) {
            deliver(s, user, item->device_id, json);
        }
        return OK;
    }
    TRY(hs_devices_list(s->hs, s->ctx, user, &devices));
    for (size_t i = 0; i < devices.count; i++) {
        if (has_inbox(devices.items[i].device_id)) {
            deliver(s, user, devices.items[i].device_id, json);
        }
    }
    return OK;
}

static struct err deliver_all(struct sending *s)
{
    for (size_t i = 0; i < s->send->count; i++) {
        if (hs_user_is_local(s->hs, s->send->items[i].user_id)) {
            TRY(deliver_item(s, &s->send->items[i]));
        }
    }
    return OK;
}

/* --- transactions --- */

static bool is_remembered(const struct to_device_send *send)
{
    return send->txn_id.ptr && has_inbox(send->device_id);
}

static struct slice txn_key(struct ctx *ctx, const struct to_device_send *send)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, STORE_KEY_BYTES_MAX);
    buf_add_byte(&key, INBOX_ROW_TXN);
    pack_bytes(&key, send->type);
    buf_add(&key, send->txn_id);
    return buf_slice(&key);
}

static struct err drop_old_txns(struct sending *s, struct store_update *update)
{
    struct store_rows rows;
    int64_t before = now_wall_ms(s->ctx->now) - TXN_KEPT_MS;
    struct store_range range = {
        .from = number_key(s->ctx, INBOX_ROW_TXN_BY_TIME, 0),
        .to = number_key(s->ctx, INBOX_ROW_TXN_BY_TIME, before > 0 ? (uint64_t)before : 0),
        .limit = TXNS_DROPPED_MAX};
    TRY(store_read_range(s->hs->store, s->ctx,
                         inbox_object(s->ctx, s->send->user, s->send->device_id), range, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        store_delete(update, rows.rows[i].key);
        store_delete(update, rows.rows[i].value);
    }
    return OK;
}

static struct err txn_update(struct sending *s, struct store_update **update_out)
{
    struct ctx *ctx = s->ctx;
    uint64_t now = (uint64_t)now_wall_ms(ctx->now);
    struct slice key = txn_key(ctx, s->send);
    struct store_update *update =
        store_update_new(ctx, inbox_object(ctx, s->send->user, s->send->device_id));
    TRY(drop_old_txns(s, update));
    store_put(update, key, store_id_u64(ctx->arena, now));
    store_put(update, inbox_txn_by_time(ctx, now, key), key);
    *update_out = update;
    return OK;
}

static struct err write_all(struct sending *s)
{
    struct store_update *txn = NULL;
    size_t count = s->count;
    TRY(deliver_all(s));
    count = s->count;
    if (is_remembered(s->send)) {
        TRY(txn_update(s, &txn));
        if (!s->updates) {
            s->updates = arena_array(s->ctx->arena, 1, sizeof(struct store_update *));
        }
        s->updates[count++] = txn;
    }
    return store_write(s->hs->store, s->ctx, s->updates, count);
}

static struct err send_new(struct hs *hs, struct ctx *ctx, const struct to_device_send *send)
{
    struct sending sending = {.hs = hs, .ctx = ctx, .send = send};
    if (hs->inbox->remote) {
        TRY(hs->inbox->remote(hs, ctx, send));
    }
    struct err err = write_all(&sending);
    for (size_t i = 0; i < sending.count; i++) {
        if (err.code != 0) {
            positions_abandon(hs->positions, sending.changes[i].pos);
        } else {
            positions_complete(hs->positions, &sending.changes[i], ctx->write_ticket);
        }
    }
    return err;
}

struct err hs_to_device_send(struct hs *hs, struct ctx *ctx, const struct to_device_send *send)
{
    struct slice value;
    bool found = false;
    if (send->type.len + send->txn_id.len > STORE_KEY_BYTES_MAX - 16) {
        return err_public(ERR_M_INVALID_PARAM, "The event type or transaction id is too long.");
    }
    if (is_remembered(send)) {
        TRY(store_get(hs->store, ctx, inbox_object(ctx, send->user, send->device_id),
                      txn_key(ctx, send), &value, &found));
    }
    if (found) {
        /* What the first attempt wrote may not be durable yet; the ticket of any write covers it.
         */
        struct store_update *nothing =
            store_update_new(ctx, inbox_object(ctx, send->user, send->device_id));
        return store_write(hs->store, ctx, &nothing, 1);
    }
    return send_new(hs, ctx, send);
}

/* --- life --- */

static struct err on_device_removed(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    struct slice device_id)
{
    if (!has_inbox(device_id)) {
        return OK;
    }
    struct store_update *update = store_update_new(ctx, inbox_object(ctx, user, device_id));
    store_delete_range(update, LIT(""), LIT(""));
    return store_write(hs->store, ctx, &update, 1);
}

struct hs_inbox *hs_inbox_new(struct hs *hs)
{
    struct hs_inbox *inbox = mem_alloc(sizeof *inbox);
    for (size_t i = 0; i < STRIPES; i++) {
        pthread_mutex_init(&inbox->stripes[i].lock, NULL);
        inbox->stripes[i].marks = map_new();
    }
    hs_on_device_removed(hs, on_device_removed);
    return inbox;
}

void hs_inbox_free(struct hs_inbox **inbox)
{
    if (!*inbox) {
        return;
    }
    for (size_t i = 0; i < STRIPES; i++) {
        drop_marks(&(*inbox)->stripes[i]);
        pthread_mutex_destroy(&(*inbox)->stripes[i].lock);
    }
    mem_free(*inbox);
    *inbox = NULL;
}

void hs_inbox_set_remote(struct hs *hs, hs_inbox_remote_fn fn)
{
    hs->inbox->remote = fn;
}
