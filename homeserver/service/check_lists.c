/* The stream of device list changes, and inboxes. The stream is a log of its own: who changed when
 * stands nowhere else. Each of its two indexes can be made from the other, though. */
#include "homeserver/base/map.h"
#include "homeserver/service/check_priv.h"
#include "homeserver/service/inbox_rows.h"
#include "homeserver/service/users.h"
#include "homeserver/service/keys_priv.h"

/* --- device lists --- */

struct lists_walk {
    struct store_object object;
    struct map *newest; /* "u" key of a user and viewer -> newest position, see mark_of */
};

/* A position that both indexes name outdoes one that a single one names. */
static uint64_t mark_of(uint64_t pos, bool confirmed)
{
    return pos << 1 | (confirmed ? 1 : 0);
}

static bool is_position(struct checker *c, uint64_t pos)
{
    return pos > 0 && pos <= check_counter(c);
}

static struct err users_are_known(struct checker *c, struct list_change change, bool *known_out)
{
    TRY(check_user_known(c, change.user, known_out));
    return *known_out && change.viewer ? check_user_known(c, change.viewer, known_out) : OK;
}

static struct err get_pos(struct checker *c, const struct lists_walk *walk, struct slice by_user,
                          uint64_t *pos_out)
{
    struct slice value;
    bool found = false;
    TRY(store_get(c->hs->store, &c->page, walk->object, by_user, &value, &found));
    struct unpack in = unpack_of(found ? value : (struct slice){0});
    *pos_out = found ? unpack_be64(&in) : 0;
    *pos_out = in.bad || in.rest.len ? 0 : *pos_out;
    return OK;
}

/* Finds the newest change of each user (and viewer). */
static struct err visit_change(struct checker *c, void *arg, const struct store_row *row)
{
    struct lists_walk *walk = arg;
    struct list_change change = {0};
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t pos = unpack_be64(&key);
    uint64_t other = 0;
    uint64_t mark = 0;
    bool known = !key.bad && key.rest.len == 0 && is_position(c, pos) &&
                 lists_decode(row->value, &change).code == 0;
    if (known) {
        TRY(users_are_known(c, change, &known));
    }
    if (!known) {
        return check_row_stray(c, (struct check_place){CHECK_DEVICE_LISTS, walk->object, row->key});
    }
    struct slice by_user = lists_key_user(&c->page, change);
    TRY(get_pos(c, walk, by_user, &other));
    map_get(walk->newest, by_user, &mark);
    if (other == pos || (!(mark & 1) && pos > mark >> 1)) {
        map_set(walk->newest, by_user, mark_of(pos, other == pos));
    }
    return OK;
}

/* A change that stands in the index by user alone is put back, where nothing else has its place. */
static struct err visit_user(struct checker *c, void *arg, const struct store_row *row)
{
    struct lists_walk *walk = arg;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    struct unpack in = unpack_of(row->value);
    struct list_change change = {.user = unpack_be64(&key)};
    uint64_t pos = unpack_be64(&in);
    uint64_t mark = 0;
    struct slice value;
    bool taken = true;
    bool known = false;
    change.viewer = unpack_be64(&key);
    if (map_get(walk->newest, row->key, &mark)) {
        return OK;
    }
    if (!key.bad && key.rest.len == 0 && !in.bad && is_position(c, pos)) {
        TRY(users_are_known(c, change, &known));
        TRY(store_get(c->hs->store, &c->page, walk->object, lists_key_pos(&c->page, pos), &value,
                      &taken));
    }
    if (!known || taken) {
        return check_row_stray(c, (struct check_place){CHECK_DEVICE_LISTS, walk->object, row->key});
    }
    map_set(walk->newest, row->key, mark_of(pos, true));
    return check_row_is(
        c, (struct check_place){CHECK_DEVICE_LISTS, walk->object, lists_key_pos(&c->page, pos)},
        lists_encode(&c->page, change));
}

/* Only the newest change of a user stands. */
static struct err visit_newest(struct checker *c, void *arg, const struct store_row *row)
{
    const struct lists_walk *walk = arg;
    struct list_change change;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t pos = unpack_be64(&key);
    uint64_t mark = 0;
    if (lists_decode(row->value, &change).code != 0) {
        return OK;
    }
    struct slice by_user = lists_key_user(&c->page, change);
    if (key.bad || key.rest.len || !is_position(c, pos) ||
        !map_get(walk->newest, by_user, &mark)) { /* reported before */
        return OK;
    }
    if (mark >> 1 != pos) {
        return check_row_stray(c, (struct check_place){CHECK_DEVICE_LISTS, walk->object, row->key});
    }
    TRY(check_position(c, pos));
    return check_row_is(c, (struct check_place){CHECK_DEVICE_LISTS, walk->object, by_user},
                        store_id_u64(c->page.arena, pos));
}

struct err check_device_lists(struct checker *c)
{
    struct lists_walk walk = {.object = lists_object(c->ctx), .newest = map_new()};
    struct err err = check_each_row(c, walk.object, LISTS_ROW_BY_POS, visit_change, &walk);
    err = err.code ? err : check_each_row(c, walk.object, LISTS_ROW_BY_USER, visit_user, &walk);
    err = err.code ? err : check_each_row(c, walk.object, LISTS_ROW_BY_POS, visit_newest, &walk);
    map_free(&walk.newest);
    return err;
}

/* --- inboxes --- */

static struct check_place inbox_place(void *arg, struct slice key)
{
    return (struct check_place){CHECK_INBOXES, *(const struct store_object *)arg, key};
}

/* A message that is no JSON would spoil every answer that holds it. */
static struct err visit_message(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t pos = unpack_be64(&key);
    struct json message;
    check_compared(c, CHECK_INBOXES);
    if (key.bad || key.rest.len || !is_position(c, pos) ||
        json_parse(c->page.arena, row->value, &message).code != 0) {
        return check_row_stray(c, inbox_place(arg, row->key));
    }
    return check_position(c, pos);
}

static struct err visit_txn(struct checker *c, void *arg, const struct store_row *row)
{
    struct unpack in = unpack_of(row->value);
    uint64_t time_ms = unpack_be64(&in);
    if (in.bad || in.rest.len) {
        return check_row_stray(c, inbox_place(arg, row->key));
    }
    return check_row_is(c, inbox_place(arg, inbox_txn_by_time(&c->page, time_ms, row->key)),
                        row->key);
}

static struct err visit_txn_by_time(struct checker *c, void *arg, const struct store_row *row)
{
    const struct store_object *inbox = arg;
    struct slice value;
    bool found = false;
    check_compared(c, CHECK_INBOXES);
    if (row->value.len <= STORE_KEY_BYTES_MAX) {
        TRY(store_get(c->hs->store, &c->page, *inbox, row->value, &value, &found));
    }
    struct unpack in = unpack_of(found ? value : (struct slice){0});
    struct slice expected = inbox_txn_by_time(&c->page, unpack_be64(&in), row->value);
    return found && slice_eq(expected, row->key) ? OK
                                                 : check_row_stray(c, inbox_place(arg, row->key));
}

static struct err visit_orphan(struct checker *c, void *arg, const struct store_row *row)
{
    return check_row_stray(c, inbox_place(arg, row->key));
}

/* A device of this server, or a user of another one, whose row remembers what came in. */
static struct err inbox_is_known(struct checker *c, uint64_t user, struct slice device_id,
                                 bool *known_out)
{
    struct slice user_id;
    TRY(check_device_known(c, user, device_id, known_out));
    if (*known_out) {
        return OK;
    }
    struct err err = hs_user_id_of(c->hs, &c->page, user, &user_id);
    *known_out = err.code == 0 && !hs_user_is_local(c->hs, user_id);
    return err.code == ERR_CORRUPT ? OK : err;
}

static struct err visit_inbox(void *arg, struct slice id)
{
    struct checker *c = arg;
    struct store_object inbox = {STORE_INBOX, arena_copy(c->room.arena, id)};
    struct unpack key = unpack_of(inbox.id);
    uint64_t user = unpack_be64(&key);
    bool known = false;
    arena_reset(c->page.arena);
    if (!key.bad) {
        TRY(inbox_is_known(c, user, key.rest, &known));
    }
    if (known) {
        TRY(check_each_row(c, inbox, INBOX_ROW_MESSAGE, visit_message, &inbox));
        TRY(check_each_row(c, inbox, INBOX_ROW_TXN, visit_txn, &inbox));
        TRY(check_each_row(c, inbox, INBOX_ROW_TXN_BY_TIME, visit_txn_by_time, &inbox));
    } else {
        TRY(check_each_row(c, inbox, 0, visit_orphan, &inbox));
    }
    arena_reset(c->room.arena);
    return OK;
}

struct err check_inboxes(struct checker *c)
{
    return store_each_object(c->hs->store, c->ctx, STORE_INBOX, visit_inbox, c);
}
