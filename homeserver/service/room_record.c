#include "homeserver/service/room_priv.h"

enum { RECORD_VERSION = 1, FORWARD_VERSION = 2 };

uint64_t room_record_root(const struct room_record *record)
{
    return record->flags & EVENT_LATER ? record->later_root : record->room_root;
}

void room_forward_encode(struct buf *out, int64_t number)
{
    pack_u64(out, FORWARD_VERSION);
    pack_i64(out, number);
}

bool room_forward_decode(struct slice row, int64_t *number_out)
{
    struct unpack in = unpack_of(row);
    if (unpack_u64(&in) != FORWARD_VERSION) {
        return false;
    }
    *number_out = unpack_i64(&in);
    return !in.bad;
}

/* What only events of forked or joined rooms have. */
static void encode_rare(struct buf *out, const struct room_record *record)
{
    if (record->flags & EVENT_FORKED) {
        pack_u64(out, record->room_root);
    }
    if (record->flags & EVENT_LATER) {
        pack_u64(out, record->later_pos);
        pack_u64(out, record->later_root);
    }
    if (record->flags & EVENT_ADOPTED) {
        pack_i64(out, record->adopted_from);
    }
}

static void decode_rare(struct unpack *in, struct room_record *record)
{
    record->room_root = record->state_after;
    if (record->flags & EVENT_FORKED) {
        record->room_root = unpack_u64(in);
    }
    if (record->flags & EVENT_LATER) {
        record->later_pos = unpack_u64(in);
        record->later_root = unpack_u64(in);
    }
    if (record->flags & EVENT_ADOPTED) {
        record->adopted_from = unpack_i64(in);
    }
}

void room_record_encode(struct buf *out, const struct room_record *record)
{
    pack_u64(out, RECORD_VERSION);
    pack_u64(out, record->flags);
    pack_u64(out, record->pos);
    pack_u64(out, record->state_before);
    if (record->flags & EVENT_STATE) {
        pack_u64(out, record->state_after);
        pack_i64(out, record->replaces);
    }
    pack_i64(out, record->redacted_by);
    pack_u64(out, record->sender);
    pack_u64(out, record->joined_count);
    pack_u64(out, record->invited_count);
    pack_u64(out, record->next_key);
    encode_rare(out, record);
    pack_u64(out, record->extremity_count);
    for (size_t i = 0; i < record->extremity_count; i++) {
        pack_i64(out, record->extremities[i]);
    }
    pack_bytes(out, record->device_id);
    pack_bytes(out, record->txn_id);
    pack_bytes(out, record->event_id);
    buf_add(out, record->json);
}

static void decode_extremities(struct arena *arena, struct unpack *in, struct room_record *record)
{
    uint64_t count = unpack_u64(in);
    if (count > ROOM_EXTREMITIES_MAX) {
        in->bad = true;
        return;
    }
    int64_t *numbers = arena_array(arena, (size_t)count, sizeof *numbers);
    for (uint64_t i = 0; i < count; i++) {
        numbers[i] = unpack_i64(in);
    }
    record->extremities = numbers;
    record->extremity_count = (size_t)count;
}

struct err room_record_decode(struct arena *arena, struct slice bytes,
                              struct room_record *record_out)
{
    struct unpack in = unpack_of(bytes);
    struct room_record record = {0};
    if (unpack_u64(&in) != RECORD_VERSION) {
        return err_make(ERR_CORRUPT, "event record of an unknown version");
    }
    record.flags = (uint32_t)unpack_u64(&in);
    record.pos = unpack_u64(&in);
    record.state_before = unpack_u64(&in);
    record.state_after = record.state_before;
    if (record.flags & EVENT_STATE) {
        record.state_after = unpack_u64(&in);
        record.replaces = unpack_i64(&in);
    }
    record.redacted_by = unpack_i64(&in);
    record.sender = unpack_u64(&in);
    record.joined_count = (uint32_t)unpack_u64(&in);
    record.invited_count = (uint32_t)unpack_u64(&in);
    record.next_key = unpack_u64(&in);
    decode_rare(&in, &record);
    decode_extremities(arena, &in, &record);
    record.device_id = unpack_bytes(&in);
    record.txn_id = unpack_bytes(&in);
    record.event_id = unpack_bytes(&in);
    record.json = in.rest;
    TRY(unpack_check(&in));
    *record_out = record;
    return OK;
}

void member_row_encode(struct buf *out, const struct room_member *member)
{
    pack_u64(out, (uint64_t)member->membership);
    pack_i64(out, member->number);
    pack_bytes(out, member->user_id);
    pack_u64(out, (member->display_name.ptr ? 1u : 0u) | (member->avatar_url.ptr ? 2u : 0u));
    pack_bytes(out, member->display_name);
    pack_bytes(out, member->avatar_url);
}

struct err member_row_decode(struct slice row, struct room_member *member_out)
{
    struct unpack in = unpack_of(row);
    struct room_member member = {.membership = (enum membership)unpack_u64(&in)};
    member.number = unpack_i64(&in);
    member.user_id = unpack_bytes(&in);
    uint64_t present = unpack_u64(&in);
    member.display_name = unpack_bytes(&in);
    member.avatar_url = unpack_bytes(&in);
    if (!(present & 1)) {
        member.display_name = (struct slice){0};
    }
    if (!(present & 2)) {
        member.avatar_url = (struct slice){0};
    }
    TRY(unpack_check(&in));
    member.user = member_out->user;
    *member_out = member;
    return OK;
}

void user_room_encode(struct buf *out, const struct user_room *entry)
{
    pack_u64(out, (uint64_t)entry->membership);
    pack_u64(out, (uint64_t)entry->previous);
    pack_u64(out, entry->forgotten ? 1 : 0);
    pack_i64(out, entry->number);
    pack_u64(out, entry->pos);
    pack_u64(out, entry->joined_pos);
    pack_i64(out, entry->joined_number);
    pack_i64(out, entry->left_number);
    pack_bytes(out, entry->invite_state);
}

struct err user_room_decode(struct slice row, struct user_room *entry_out)
{
    struct unpack in = unpack_of(row);
    struct user_room entry = {.room = entry_out->room};
    entry.membership = (enum membership)unpack_u64(&in);
    entry.previous = (enum membership)unpack_u64(&in);
    entry.forgotten = unpack_u64(&in) != 0;
    entry.number = unpack_i64(&in);
    entry.pos = unpack_u64(&in);
    entry.joined_pos = unpack_u64(&in);
    entry.joined_number = unpack_i64(&in);
    entry.left_number = unpack_i64(&in);
    entry.invite_state = unpack_bytes(&in);
    TRY(unpack_check(&in));
    *entry_out = entry;
    return OK;
}
