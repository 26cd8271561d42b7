/* What sliding sync asks of rooms again and again, kept in memory: when something last happened in
 * them, their type, whether they are encrypted, their newest event that counts as activity. Filled
 * from the store when first asked for and kept up by the stream of changes; bounded, forgetting
 * costs reading again. One mutex, a leaf. Spec: MSC4186, "Activity ordering" and "RoomResult". */
#pragma once
#include "homeserver/service/rooms.h"

enum { SLIDING_FACTS_MAX = 200000 };

struct sliding_facts;

struct sliding_facts *sync_sliding_facts_new(struct hs *hs);
/* The positions have stopped. */
void sync_sliding_facts_free(struct sliding_facts **facts);

struct sliding_activity {
    uint64_t active_pos;  /* of the newest event */
    uint64_t changed_pos; /* of the newest change of any kind */
};
struct err sync_sliding_activity(struct sliding_facts *facts, struct ctx *ctx, uint64_t room,
                                 struct sliding_activity *activity_out) MUST_USE;

struct sliding_kind {
    uint64_t type; /* sync_sliding_type_hash; 0 = the room has none */
    bool is_encrypted;
};
uint64_t sync_sliding_type_hash(struct slice type);
/* As the room's newest state says. */
struct err sync_sliding_kind(struct sliding_facts *facts, struct ctx *ctx, uint64_t room,
                             struct sliding_kind *kind_out) MUST_USE;
/* Position of the newest event that brings a room to the front of a client's list. */
struct err sync_sliding_bump(struct sliding_facts *facts, struct ctx *ctx, struct room *room,
                             uint64_t *pos_out) MUST_USE;
