/* What derives from the rows of an account beside its tokens: the index of pushers, and when
 * devices were seen. Also: who is there. */
#include "homeserver/service/check_priv.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/users_priv.h"

static const struct store_object pushers = {STORE_SERVER, {"pushers", 7}};

struct err check_user_known(struct checker *c, uint64_t user, bool *known_out)
{
    struct slice value;
    struct store_object ids = {.kind = STORE_USER_IDS};
    return store_get(c->hs->store, &c->page, ids, key_u64(&c->page, 'n', user), &value, known_out);
}

struct err check_device_known(struct checker *c, uint64_t user, struct slice device_id,
                              bool *known_out)
{
    struct slice value;
    *known_out = false;
    return device_id.len > 0 && device_id.len <= DEVICE_ID_BYTES_MAX
               ? store_get(c->hs->store, &c->page, users_object(&c->page, user),
                           users_row_key(&c->page, USER_ROW_DEVICE, device_id), &value, known_out)
               : OK;
}

static struct err visit_seen(struct checker *c, void *arg, const struct store_row *row)
{
    const struct store_object *object = arg;
    struct unpack user = unpack_of(object->id);
    bool known = false;
    check_compared(c, CHECK_DEVICES);
    TRY(check_device_known(c, unpack_be64(&user), slice_from(row->key, 1), &known));
    return known ? OK : check_row_stray(c, (struct check_place){CHECK_DEVICES, *object, row->key});
}

/* "u" name -> pusher; in the index: name, user. */
static struct err visit_pusher(struct checker *c, void *arg, const struct store_row *row)
{
    const struct store_object *object = arg;
    struct slice key = arena_concat(c->page.arena, slice_from(row->key, 1), object->id);
    return check_row_is(c, (struct check_place){CHECK_PUSHERS, pushers, key}, (struct slice){0});
}

struct err check_account(struct checker *c, struct store_object user)
{
    TRY(check_each_row(c, user, USER_ROW_DEVICE_SEEN, visit_seen, &user));
    return check_each_row(c, user, USER_ROW_PUSHER, visit_pusher, &user);
}

static struct err visit_index(struct checker *c, void *arg, const struct store_row *row)
{
    struct slice value;
    bool found = false;
    (void)arg;
    check_compared(c, CHECK_PUSHERS);
    if (row->key.len > 8) {
        size_t len = row->key.len - 8;
        struct store_object user = {STORE_USER, slice_from(row->key, len)};
        TRY(store_get(c->hs->store, &c->page, user,
                      users_row_key(&c->page, USER_ROW_PUSHER, slice_sub(row->key, 0, len)), &value,
                      &found));
    }
    return found ? OK : check_row_stray(c, (struct check_place){CHECK_PUSHERS, pushers, row->key});
}

struct err check_pushers(struct checker *c)
{
    return check_each_row(c, pushers, 0, visit_index, NULL);
}
