/* A user's rooms as sliding sync sees them: in order of activity, with what the filters of lists
 * ask. A list is built once from the store, then follows the marks of the user's session: what did
 * not change is copied. It does not change itself, so that many jobs may read one while the next is
 * made; the newest of each user is kept, bounded. One mutex, a leaf.
 * Spec: MSC4186, "Lists" and "SlidingRoomFilter". */
#pragma once
#include "homeserver/sync/priv.h"
#include "homeserver/sync/sliding_facts.h"
#include "homeserver/sync/sliding_request.h"

enum { SLIDING_ENTRIES_MAX = 400000 }; /* of the lists of all users */

enum sliding_entry_flag {
    SLIDING_LISTED = 1, /* lists count it; what the user has left is there for who was told of it */
    SLIDING_DM = 2,
    SLIDING_ENCRYPTED = 4,
    SLIDING_TAGGED = 8, /* it may have tags */
};

struct sliding_entry {
    uint64_t room;
    uint64_t order;       /* by this, descending: newest event, or the user's own membership */
    uint64_t changed_pos; /* newest change of any kind */
    uint64_t member_pos;  /* of the user's own membership */
    uint64_t type;        /* sync_sliding_type_hash, when kinds were asked for */
    uint8_t membership;   /* enum membership */
    uint8_t flags;
};

struct sliding_rooms {
    struct sliding_entry *items; /* newest activity first */
    size_t count;
    uint64_t version; /* another one: something but the order changed */
    uint64_t upto;    /* as of this position */
};

/* What lists cost more for. */
enum sliding_want { SLIDING_WANT_KINDS = 1, SLIDING_WANT_TAGS = 2 };
unsigned sync_sliding_wants(const struct sliding_request *request);

struct sliding_lists;

struct sliding_lists *sync_sliding_lists_new(struct sync *sync, struct sliding_facts *facts);
void sync_sliding_lists_free(struct sliding_lists **lists);
/* As of now; held until the job ends. */
struct err sync_sliding_rooms(struct sliding_lists *lists, struct sync_job *job, unsigned wants,
                              struct sliding_rooms *rooms_out) MUST_USE;
