/* Relations and threads, from the events as they are now: a redacted one relates to nothing. */
#include "homeserver/room/relates.h"
#include "homeserver/service/check_priv.h"

/* The relation that counts; false = none. As in derive_relation. */
static bool relation_of(const struct event *event, uint32_t flags, struct relation *relation_out)
{
    if (event->has_state_key || (flags & EVENT_REDACTED)) {
        return false;
    }
    *relation_out = relates_parse(event->content);
    struct slice target = relation_out->event_id.s;
    return relation_out->rel_type.len && target.len && target.len <= STORE_ID_BYTES_MAX &&
           slice_find(target, '\0') == target.len;
}

static void note_thread(struct room_walk *w, struct slice root)
{
    struct walk_thread *thread = map_get_ptr(w->threads, root);
    if (!thread) {
        thread = arena_alloc(w->c->room.arena, sizeof *thread);
        thread->root = arena_copy(w->c->room.arena, root);
        thread->newest = w->number;
        map_set_ptr(w->threads, root, thread);
    }
    thread->newest = w->number > thread->newest ? w->number : thread->newest;
}

/* The target, when it is in this room, says that something relates to it. */
static struct err check_mark(struct room_walk *w, struct slice target)
{
    struct checker *c = w->c;
    struct room_record record;
    uint64_t room = 0;
    int64_t number = 0;
    bool found = false;
    TRY(hs_event_locate(c->hs, &c->page, target, &room, &number, &found));
    if (!found || room != w->shape.number) {
        return OK;
    }
    TRY(check_record_load(c, room, number, &record, &found));
    check_compared(c, CHECK_RELATED);
    if (!found || (record.flags & EVENT_RELATED)) {
        return OK;
    }
    if (number == w->number) {
        w->record.flags |= EVENT_RELATED;
    }
    if (c->mode == CHECK_REBUILD) {
        TRY(rebuild_flag(c, room, number, EVENT_RELATED));
    }
    check_report(c, CHECK_RELATED, target, "is not marked as related to", c->mode == CHECK_REBUILD);
    return OK;
}

struct err check_relation(struct room_walk *w)
{
    struct relation relation;
    struct buf row;
    if (!relation_of(&w->event, w->record.flags, &relation)) {
        return OK;
    }
    struct slice target = relation.event_id.s;
    buf_init_arena(&row, w->c->page.arena, SIZE_MAX / 2);
    pack_u64(&row, w->record.sender);
    pack_bytes(&row, relation.rel_type);
    pack_bytes(&row, w->event.type);
    pack_bytes(&row, relation.key);
    struct check_place place = {CHECK_RELATIONS, w->derived,
                                relation_key(&w->c->page, target, w->number)};
    TRY(check_row_is(w->c, place, buf_slice(&row)));
    if (relates_is(&relation, LIT("m.thread"))) {
        note_thread(w, target);
    }
    return check_mark(w, target);
}

/* --- the way back --- */

static struct err visit_relation(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    struct slice target;
    struct slice tail = slice_cut(slice_from(row->key, 1), '\0', &target);
    struct unpack in = unpack_of(tail);
    int64_t child = unpack_be_i64(&in);
    struct room_record record;
    struct event event;
    struct relation relation;
    bool found = false;
    if (!in.bad && in.rest.len == 0) {
        TRY(check_record_load(c, w->shape.number, child, &record, &found));
    }
    if (found) {
        TRY(check_event_load(w, child, &event, &found));
    }
    if (found && relation_of(&event, record.flags, &relation) &&
        slice_eq(relation.event_id.s, target)) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_RELATIONS, w->derived, row->key});
}

static struct err visit_thread(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    if (map_get_ptr(w->threads, slice_from(row->key, 1))) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_THREADS, w->derived, row->key});
}

static struct err visit_newest(struct checker *c, void *arg, const struct store_row *row)
{
    struct room_walk *w = arg;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    int64_t newest = unpack_be_i64(&key);
    const struct walk_thread *thread = map_get_ptr(w->threads, row->value);
    if (thread && thread->newest == newest && !key.bad && key.rest.len == 0) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){CHECK_THREADS, w->derived, row->key});
}

static struct err check_thread(struct room_walk *w, const struct walk_thread *thread)
{
    struct checker *c = w->c;
    struct buf row;
    buf_init_arena(&row, c->page.arena, 16);
    pack_i64(&row, thread->newest);
    TRY(check_row_is(c,
                     (struct check_place){CHECK_THREADS, w->derived,
                                          key_bytes(&c->page, DERIVED_KEY_THREAD, thread->root)},
                     buf_slice(&row)));
    return check_row_is(
        c,
        (struct check_place){CHECK_THREADS, w->derived,
                             key_i64(&c->page, DERIVED_KEY_THREADS, thread->newest)},
        thread->root);
}

struct err check_relations(struct room_walk *w)
{
    size_t cursor = 0;
    struct slice root;
    uint64_t value = 0;
    TRY(check_each_row(w->c, w->derived, DERIVED_KEY_RELATION, visit_relation, w));
    while (map_next(w->threads, &cursor, &root, &value)) {
        TRY(check_thread(w, (const struct walk_thread *)(uintptr_t)value));
        arena_reset(w->c->page.arena);
    }
    TRY(check_each_row(w->c, w->derived, DERIVED_KEY_THREAD, visit_thread, w));
    return check_each_row(w->c, w->derived, DERIVED_KEY_THREADS, visit_newest, w);
}
