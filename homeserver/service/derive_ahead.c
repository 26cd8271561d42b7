/* Many members change at once: a room is joined, its partial time ends. Those of other servers are
 * written page by page before the change itself, so that memory does not grow with the room. A row
 * says so until the change is written (DERIVED_KEY_AHEAD); until then members are read from the
 * room's state (room_members.c), so nobody sees the one without the other. What an interrupted run
 * has written stays hidden in the same way, until the next change goes over the whole index. */
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

enum { CHANGES_PER_PAGE = 256 };

struct ahead {
    struct derive *d;
    struct derive_states states;
    struct room_head *head;
    struct derive part; /* of the page */
};

/* --- the row that says so --- */

static struct slice ahead_key(struct ctx *ctx)
{
    return key_bytes(ctx, DERIVED_KEY_AHEAD, (struct slice){0});
}

void room_ahead_begin(struct room *room, struct ctx *ctx, struct store_update *derived)
{
    store_put(derived, ahead_key(ctx), (struct slice){0});
    pthread_mutex_lock(&room->lock);
    room->is_ahead = true;
    pthread_mutex_unlock(&room->lock);
}

struct err room_ahead_load(struct hs *hs, struct ctx *ctx, struct room *room)
{
    struct slice row;
    return store_get(hs->store, ctx, room_derived_object(ctx, room->number), ahead_key(ctx), &row,
                     &room->is_ahead);
}

/* --- counting --- */

static void count(struct room_head *head, enum membership membership, uint32_t by)
{
    head->joined_count += membership == MEMBERSHIP_JOIN ? by : 0;
    head->invited_count += membership == MEMBERSHIP_INVITE ? by : 0;
}

static const uint32_t ONE_LESS = UINT32_MAX;

void derive_count(struct derive *d, struct room_head *head)
{
    for (size_t i = 0; i < d->members.count; i++) {
        count(head, d->members.items[i].membership, 1);
        count(head, d->members.items[i].previous, ONE_LESS);
    }
}

static struct err count_out(struct ahead *a, struct ctx *page, int64_t number)
{
    struct stored_event event;
    bool found = false;
    if (number) {
        TRY(room_event_once(a->d->hs, page, a->d->room, number, &event, &found));
        count(a->head, membership_of(found ? &event.event : NULL), ONE_LESS);
    }
    return OK;
}

/* --- one change --- */

static struct err name_change(struct derive *d, struct ctx *page,
                              const struct state_difference *change, struct slice *user_id_out)
{
    struct slice type;
    struct slice state_key;
    if (d->event && change->right == d->number) {
        type = d->event->type;
        state_key = d->event->state_key;
    } else {
        TRY(hs_state_key_name(d->hs, page, d->room, change->key, &type, &state_key));
    }
    room_state_cache_drop(d->room, state_pair(page, type, state_key));
    *user_id_out = slice_eq(type, LIT("m.room.member")) && ids_is_user(state_key)
                       ? state_key
                       : (struct slice){0};
    return OK;
}

static struct err take_member(struct ahead *a, struct ctx *page, struct slice user_id,
                              int64_t number)
{
    struct derive *d = a->d;
    bool is_own = d->event && number == d->number;
    bool waits = is_own || hs_user_is_local(d->hs, user_id);
    struct derive *taker = waits ? d : &a->part;
    TRY(derive_member_changed(taker, page, user_id, number));
    count(a->head, taker->members.items[taker->members.count - 1].membership, 1);
    return OK;
}

static struct err take_change(struct ahead *a, struct ctx *page,
                              const struct state_difference *change)
{
    struct slice user_id;
    TRY(name_change(a->d, page, change, &user_id));
    if (!user_id.len) {
        return OK;
    }
    TRY(count_out(a, page, change->left));
    return take_member(a, page, user_id, change->right);
}

/* --- a page --- */

static void begin_part(struct ahead *a, struct ctx *page)
{
    const struct derive *d = a->d;
    a->part = (struct derive){
        .hs = d->hs,
        .ctx = page,
        .room = d->room,
        .number = d->number,
        .pos = d->room->head.pos,
        .is_page = true,
        .derived = store_update_new(page, room_derived_object(page, d->room->number))};
}

static struct err write_part(struct ahead *a, struct ctx *page)
{
    struct derive *part = &a->part;
    TRY(derive_members_write(part));
    struct store_update **updates = arena_array(page->arena, part->user_count + 1, sizeof *updates);
    updates[0] = part->derived;
    for (size_t i = 0; i < part->user_count; i++) {
        updates[i + 1] = part->users[i];
    }
    return store_write(part->hs->store, page, updates, part->user_count + 1);
}

static struct err take_page(struct ahead *a, struct ctx *page, const struct state_page *changes)
{
    begin_part(a, page);
    room_ahead_begin(a->d->room, page, a->part.derived);
    for (size_t i = 0; i < changes->count; i++) {
        TRY(take_change(a, page, &changes->items[i]));
    }
    return write_part(a, page);
}

static struct err take_pages(struct ahead *a, struct ctx *page)
{
    struct state_page changes = {.left = a->states.before,
                                 .right = a->states.after,
                                 .limit = CHANGES_PER_PAGE,
                                 .more = true};
    while (changes.more) {
        TRY(state_diff_page(a->d->hs->states, page, a->d->room->number, &changes));
        TRY(take_page(a, page, &changes));
        room_page_next(page);
    }
    return OK;
}

/* --- rows of an interrupted run --- */

/* A row of the index whose member the state does not know: it goes. */
static struct err drop_stray(struct ahead *a, struct ctx *page, const struct store_row *row)
{
    struct derive *d = a->d;
    struct room_member member = {0};
    uint64_t key = 0;
    int64_t number = 0;
    bool found = false;
    TRY(member_row_decode(row->value, &member));
    TRY(hs_state_key_find(d->hs, page, d->room, LIT("m.room.member"), member.user_id, &key,
                          &found));
    if (found) {
        TRY(state_get(d->hs->states, page, d->room->number, a->states.after, key, &number, &found));
    }
    return found ? OK : take_member(a, page, member.user_id, 0);
}

static struct err drop_strays(struct ahead *a, struct ctx *page)
{
    struct slice from = key_bytes(a->d->ctx, DERIVED_KEY_MEMBER, (struct slice){0});
    struct slice to = key_bytes(a->d->ctx, DERIVED_KEY_MEMBER + 1, (struct slice){0});
    size_t seen = CHANGES_PER_PAGE;
    while (seen == CHANGES_PER_PAGE) {
        struct store_rows rows;
        struct store_range range = {.from = from, .to = to, .limit = CHANGES_PER_PAGE};
        TRY(store_read_range(a->d->hs->store, page, room_derived_object(page, a->d->room->number),
                             range, &rows));
        begin_part(a, page);
        for (size_t i = 0; i < rows.count; i++) {
            TRY(drop_stray(a, page, &rows.rows[i]));
        }
        TRY(write_part(a, page));
        seen = rows.count;
        if (seen) { /* a byte more: the key behind it */
            from = arena_concat(a->d->ctx->arena, rows.rows[seen - 1].key, (struct slice){"", 1});
        }
        room_page_next(page);
    }
    return OK;
}

/* --- the difference --- */

static struct err take_many(struct derive *d, struct derive_states states, struct room_head *head)
{
    struct ahead ahead = {.d = d, .states = states, .head = head};
    bool heals = d->room->is_ahead;
    if (heals) { /* everything anew */
        ahead.states.before = 0;
        head->joined_count = 0;
        head->invited_count = 0;
    }
    d->is_ahead = true;
    struct ctx page = room_page_begin(d->ctx);
    page.reads_once = true;
    struct err err = take_pages(&ahead, &page);
    if (err.code == 0 && heals) {
        room_page_next(&page);
        err = drop_strays(&ahead, &page);
    }
    TRY(room_page_end(d->ctx, &page, err));
    store_delete(d->derived, ahead_key(d->ctx));
    return OK;
}

static struct err take_few(struct derive *d, struct ctx *page, const struct state_page *changes)
{
    for (size_t i = 0; i < changes->count; i++) {
        struct slice user_id;
        TRY(name_change(d, page, &changes->items[i], &user_id));
        if (user_id.len) {
            TRY(derive_member_changed(d, page, user_id, changes->items[i].right));
        }
    }
    return OK;
}

struct err derive_difference(struct derive *d, struct derive_states states, struct room_head *head)
{
    struct state_page changes = {
        .left = states.before, .right = states.after, .limit = CHANGES_PER_PAGE};
    struct ctx page = room_page_begin(d->ctx);
    struct err err = state_diff_page(d->hs->states, &page, d->room->number, &changes);
    bool many = changes.more || d->room->is_ahead;
    if (err.code == 0 && !many) {
        err = take_few(d, &page, &changes);
    }
    TRY(room_page_end(d->ctx, &page, err));
    if (many) {
        return take_many(d, states, head);
    }
    derive_count(d, head);
    return OK;
}
