/* What follows from an event besides its log row: relations, threads, applied redactions (members:
 * derive_members.c). Every row here can be rebuilt from the log (rebuild.c). */
#include "homeserver/room/power.h"
#include "homeserver/room/redact.h"
#include "homeserver/room/relates.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

/* --- relations --- */

struct slice relation_key(struct ctx *ctx, struct slice target, int64_t child)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, SIZE_MAX / 2);
    buf_add_byte(&key, DERIVED_KEY_RELATION);
    buf_add(&key, target);
    buf_add_byte(&key, '\0');
    pack_be_i64(&key, child);
    return buf_slice(&key);
}

static struct slice thread_row(struct ctx *ctx, int64_t newest)
{
    struct buf row;
    buf_init_arena(&row, ctx->arena, 16);
    pack_i64(&row, newest);
    return buf_slice(&row);
}

/* The thread moves to the front of the room's list. */
static struct err derive_thread(struct derive *d, struct slice root)
{
    struct slice row;
    bool found = false;
    struct slice key = key_bytes(d->ctx, DERIVED_KEY_THREAD, root);
    TRY(store_get(d->hs->store, d->ctx, room_derived_object(d->ctx, d->room->number), key, &row,
                  &found));
    if (found) {
        struct unpack in = unpack_of(row);
        int64_t newest = unpack_i64(&in);
        if (newest > d->number) { /* history that came later */
            return OK;
        }
        store_delete(d->derived, key_i64(d->ctx, DERIVED_KEY_THREADS, newest));
    }
    store_put(d->derived, key, thread_row(d->ctx, d->number));
    store_put(d->derived, key_i64(d->ctx, DERIVED_KEY_THREADS, d->number), root);
    return OK;
}

/* The target's row says that something relates to it, so that others need not look. */
static struct err mark_related(struct derive *d, struct slice target_id, struct store_update *log)
{
    uint64_t room = 0;
    int64_t number = 0;
    bool found = false;
    struct slice row;
    struct room_record record;
    TRY(hs_event_locate(d->hs, d->ctx, target_id, &room, &number, &found));
    if (!found || room != d->room->number) {
        return OK;
    }
    struct slice key = key_i64(d->ctx, ROOM_KEY_EVENT, number);
    TRY(store_get(d->hs->store, d->ctx, room_object(d->ctx, room), key, &row, &found));
    if (!found) {
        return err_make(ERR_CORRUPT, "an indexed event is missing");
    }
    TRY(room_record_decode(d->ctx->arena, row, &record));
    if (!(record.flags & EVENT_RELATED)) {
        struct buf rewritten;
        record.flags |= EVENT_RELATED;
        buf_init_arena(&rewritten, d->ctx->arena, SIZE_MAX / 2);
        room_record_encode(&rewritten, &record);
        store_put(log, key, buf_slice(&rewritten));
        d->rewritten[0] = number;
    }
    return OK;
}

struct err derive_relation(struct derive *d, struct store_update *log)
{
    struct relation relation = relates_parse(d->event->content);
    struct slice target = relation.event_id.s;
    if (d->event->has_state_key || relation.rel_type.len == 0 || target.len == 0 ||
        target.len > STORE_ID_BYTES_MAX || slice_find(target, '\0') != target.len) {
        return OK;
    }
    struct buf row;
    buf_init_arena(&row, d->ctx->arena, SIZE_MAX / 2);
    pack_u64(&row, d->sender);
    pack_bytes(&row, relation.rel_type);
    pack_bytes(&row, d->event->type);
    pack_bytes(&row, relation.key);
    store_put(d->derived, relation_key(d->ctx, target, d->number), buf_slice(&row));
    TRY(mark_related(d, target, log));
    return relates_is(&relation, LIT("m.thread")) ? derive_thread(d, target) : OK;
}

struct err derive_related(struct derive *d, uint32_t *flags_io)
{
    struct store_rows rows;
    struct slice id = d->event->id.s;
    struct store_range range = {.from = relation_key(d->ctx, id, INT64_MIN),
                                .to = relation_key(d->ctx, id, INT64_MAX),
                                .limit = 1};
    if (!d->is_foreign) {
        return OK;
    }
    TRY(store_read_range(d->hs->store, d->ctx, room_derived_object(d->ctx, d->room->number), range,
                         &rows));
    *flags_io |= rows.count ? EVENT_RELATED : 0;
    return OK;
}

struct err room_relations(struct hs *hs, struct ctx *ctx, struct room *room, struct slice target,
                          struct relation_rows *rows_out)
{
    struct store_rows rows;
    struct relation_rows relations = {0};
    *rows_out = relations;
    if (target.len > STORE_ID_BYTES_MAX) {
        return OK;
    }
    struct store_range range = {.from = relation_key(ctx, target, INT64_MIN),
                                .to = relation_key(ctx, target, INT64_MAX)};
    TRY(store_read_range(hs->store, ctx, room_derived_object(ctx, room->number), range, &rows));
    relations.items = arena_array(ctx->arena, rows.count, sizeof *relations.items);
    for (size_t i = 0; i < rows.count; i++) {
        struct relation_row *relation = &relations.items[relations.count++];
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, rows.rows[i].key.len - 8));
        struct unpack in = unpack_of(rows.rows[i].value);
        relation->child = unpack_be_i64(&key);
        relation->sender = unpack_u64(&in);
        relation->rel_type = unpack_bytes(&in);
        relation->type = unpack_bytes(&in);
        relation->key = unpack_bytes(&in);
        TRY(unpack_check(&in));
    }
    *rows_out = relations;
    return OK;
}

/* --- redactions --- */

struct err room_may_redact(struct hs *hs, struct ctx *ctx, struct room *room,
                           const struct event *redaction, const struct event *target,
                           bool *allowed_out)
{
    const struct event *create = NULL;
    const struct event *levels_event = NULL;
    TRY(room_state_current(hs, ctx, room, LIT("m.room.create"), LIT(""), &create));
    TRY(room_state_current(hs, ctx, room, LIT("m.room.power_levels"), LIT(""), &levels_event));
    struct power_levels levels = power_load(room->rules, create, levels_event);
    *allowed_out = redact_is_allowed(redaction, target, &levels);
    return OK;
}

/* A redacted child no longer counts for its parent. A thread whose last reply goes keeps its place
 * in the list as long as it has another reply. */
static struct err forget_relation(struct derive *d, const struct event *target, int64_t number)
{
    struct relation relation = relates_parse(target->content);
    if (relation.rel_type.len == 0 || relation.event_id.s.len == 0 ||
        relation.event_id.s.len > STORE_ID_BYTES_MAX) {
        return OK;
    }
    struct slice parent = relation.event_id.s;
    store_delete(d->derived, relation_key(d->ctx, parent, number));
    if (!relates_is(&relation, LIT("m.thread"))) {
        return OK;
    }
    struct relation_rows rows;
    int64_t newest = 0;
    TRY(room_relations(d->hs, d->ctx, d->room, parent, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        bool counts =
            rows.items[i].child != number && slice_eq(rows.items[i].rel_type, LIT("m.thread"));
        newest = counts && rows.items[i].child > newest ? rows.items[i].child : newest;
    }
    struct slice key = key_bytes(d->ctx, DERIVED_KEY_THREAD, parent);
    struct slice row;
    bool found = false;
    TRY(store_get(d->hs->store, d->ctx, room_derived_object(d->ctx, d->room->number), key, &row,
                  &found));
    struct unpack in = unpack_of(found ? row : (struct slice){0});
    if (found) {
        store_delete(d->derived, key_i64(d->ctx, DERIVED_KEY_THREADS, unpack_i64(&in)));
    }
    if (newest) {
        store_put(d->derived, key, thread_row(d->ctx, newest));
        store_put(d->derived, key_i64(d->ctx, DERIVED_KEY_THREADS, newest), parent);
    } else {
        store_delete(d->derived, key);
    }
    return OK;
}

/* The names that a redacted member event gave are gone from the member index too. */
static struct err prune_member(struct derive *d, const struct event *pruned, int64_t number)
{
    struct room_member member;
    uint64_t user = 0;
    bool found = false;
    if (!pruned->has_state_key || !slice_eq(pruned->type, LIT("m.room.member"))) {
        return OK;
    }
    TRY(hs_user_find(d->hs, d->ctx, pruned->state_key, &user, &found));
    if (found) {
        TRY(hs_room_member(d->hs, d->ctx, d->room, user, &member, &found));
    }
    if (!found || member.number != number) {
        return OK;
    }
    member.display_name = json_get_string(pruned->content, LIT("displayname"));
    member.avatar_url = json_get_string(pruned->content, LIT("avatar_url"));
    struct buf row;
    buf_init_arena(&row, d->ctx->arena, SIZE_MAX / 2);
    member_row_encode(&row, &member);
    store_put(d->derived, key_u64(d->ctx, DERIVED_KEY_MEMBER, user), buf_slice(&row));
    return OK;
}

/* The target's row with the pruned JSON. */
static struct err rewrite_row(struct derive *d, struct store_update *log,
                              const struct stored_event *target)
{
    struct slice row;
    struct room_record record;
    struct event pruned;
    bool found = false;
    struct slice key = key_i64(d->ctx, ROOM_KEY_EVENT, target->number);
    TRY(store_get(d->hs->store, d->ctx, room_object(d->ctx, d->room->number), key, &row, &found));
    ASSERT(found);
    TRY(room_record_decode(d->ctx->arena, row, &record));
    TRY(event_redacted(d->ctx->arena, &target->event, &pruned));
    TRY(prune_member(d, &pruned, target->number));
    record.flags |= EVENT_REDACTED;
    record.redacted_by = d->number;
    record.json = pruned.json;
    struct buf rewritten;
    buf_init_arena(&rewritten, d->ctx->arena, SIZE_MAX / 2);
    room_record_encode(&rewritten, &record);
    store_put(log, key, buf_slice(&rewritten));
    d->rewritten[1] = target->number;
    return OK;
}

struct slice room_redaction_key(struct ctx *ctx, struct slice target, int64_t redaction)
{
    struct buf key;
    buf_init_arena(&key, ctx->arena, SIZE_MAX / 2);
    buf_add_byte(&key, DERIVED_KEY_REDACTION);
    buf_add(&key, target);
    buf_add_byte(&key, '\0');
    pack_be_i64(&key, redaction);
    return buf_slice(&key);
}

/* Waits for its target, or stays unapplied for ever. Spec: room version 3, "Handling redactions":
 * clients see a redaction of another server only when it may be applied. */
static void withhold(struct derive *d, struct slice target)
{
    if (!d->is_foreign) {
        return;
    }
    d->is_withheld = true;
    if (target.len > 0 && target.len <= STORE_ID_BYTES_MAX) {
        store_put(d->derived, room_redaction_key(d->ctx, target, d->number), (struct slice){0});
    }
}

struct err derive_redaction(struct derive *d, struct store_update *log)
{
    struct stored_event target;
    bool found = false;
    bool allowed = false;
    if (d->event->has_state_key || !slice_eq(d->event->type, LIT("m.room.redaction"))) {
        return OK;
    }
    struct slice id = d->event->redacts.s;
    if (slice_eq(id, d->event->id.s)) {
        return OK;
    }
    TRY(hs_event_find(d->hs, d->ctx, d->room, id, &target, &found));
    if (!found || (target.flags & (EVENT_OUTLIER | EVENT_REJECTED))) {
        withhold(d, id);
        return OK;
    }
    if (target.flags & EVENT_REDACTED) {
        return OK;
    }
    TRY(room_may_redact(d->hs, d->ctx, d->room, d->event, &target.event, &allowed));
    bool is_mutual = slice_eq(target.event.type, LIT("m.room.redaction")) &&
                     slice_eq(target.event.redacts.s, d->event->id.s);
    if (!allowed || is_mutual) {
        withhold(d, (struct slice){0});
        return OK;
    }
    if (target.event.has_state_key) {
        room_state_cache_drop(d->room,
                              state_pair(d->ctx, target.event.type, target.event.state_key));
    }
    TRY(forget_relation(d, &target.event, target.number));
    return rewrite_row(d, log, &target);
}

/* The redaction is shown from now on. */
static struct err release_redaction(struct derive *d, struct store_update *log, int64_t number)
{
    struct slice row;
    struct room_record record;
    bool found = false;
    struct slice key = key_i64(d->ctx, ROOM_KEY_EVENT, number);
    TRY(store_get(d->hs->store, d->ctx, room_object(d->ctx, d->room->number), key, &row, &found));
    if (!found) {
        return OK;
    }
    struct buf rewritten;
    TRY(room_record_decode(d->ctx->arena, row, &record));
    record.flags &= ~(uint32_t)EVENT_WITHHELD;
    buf_init_arena(&rewritten, d->ctx->arena, SIZE_MAX / 2);
    room_record_encode(&rewritten, &record);
    store_put(log, key, buf_slice(&rewritten));
    d->rewritten[1] = number;
    return OK;
}

struct err derive_waiting_redaction(struct derive *d, struct store_update *log,
                                    int64_t *redaction_out)
{
    struct store_rows rows;
    struct slice id = d->event->id.s;
    struct store_range range = {.from = room_redaction_key(d->ctx, id, INT64_MIN),
                                .to = room_redaction_key(d->ctx, id, INT64_MAX)};
    *redaction_out = 0;
    TRY(store_read_range(d->hs->store, d->ctx, room_derived_object(d->ctx, d->room->number), range,
                         &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct stored_event redaction;
        bool found = false;
        bool allowed = false;
        struct unpack key = unpack_of(slice_from(rows.rows[i].key, rows.rows[i].key.len - 8));
        int64_t number = unpack_be_i64(&key);
        store_delete(d->derived, rows.rows[i].key);
        TRY(hs_event_load(d->hs, d->ctx, d->room, number, &redaction, &found));
        if (found) {
            TRY(room_may_redact(d->hs, d->ctx, d->room, &redaction.event, d->event, &allowed));
        }
        if (allowed && *redaction_out == 0) {
            *redaction_out = number;
            TRY(release_redaction(d, log, number));
        }
    }
    return OK;
}
