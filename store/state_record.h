/* The stored form of a state tree. Private to store/.
 *
 * Keys are numbers given out in ascending order, so the tree is a plain radix tree over them: level
 * 0 are leaves of 8 events, a node of level l picks its child by bits 3l .. 3l+2 of the key.
 *
 * Object (ROOM_STATE, room) holds two kinds of rows:
 *   'r' number -> root: set hash, height, top node, and at most STATE_LIST_MAX changes against it
 *   'n' number -> nodes: parts, each a length byte and a node. What one fold adds is packed into as
 *                 few of these records as fit STATE_RECORD_BYTES. A node is named by its record and
 *                 its place in it; children stand in the same or an earlier record. */
#pragma once
#include "store/state.h"

enum {
    STATE_FANOUT_BITS = 3,
    STATE_FANOUT = 1 << STATE_FANOUT_BITS,
    STATE_HEIGHT_MAX = 20,
    STATE_LIST_MAX = 31,
    STATE_RECORD_BYTES = 4000, /* a nodes record is closed when it has reached this size */
    STATE_PARTS_MAX = STATE_RECORD_BYTES / 2 + 1,
    STATE_PART_BYTES_MAX = 1024, /* of a node or a root */
    STATE_ROW_KEY_BYTES_MAX = 10,
};
#define STATE_KEY_MAX ((UINT64_C(1) << (STATE_FANOUT_BITS * STATE_HEIGHT_MAX)) - 1)

struct state_ref {
    uint64_t record; /* 0 = no node */
    uint64_t part;
};

struct state_node {
    uint8_t used; /* one bit per slot */
    union {
        struct state_ref children[STATE_FANOUT]; /* level > 0 */
        int64_t events[STATE_FANOUT];            /* level 0 */
    };
};

/* Sum over all entries of a hash of (key, event), modulo 2^128. */
struct state_hash {
    uint64_t low, high;
};

struct state_root {
    struct state_hash hash;
    struct state_ref top; /* .record 0: empty tree, height 0 */
    uint32_t height;
    uint32_t list_count;
    struct state_entry list[STATE_LIST_MAX]; /* against the tree, ascending; event 0 = removed */
};

enum state_record_kind { STATE_RECORD_ROOT = 'r', STATE_RECORD_NODES = 'n' };

/* Row key of a record; sorts like the number. `bytes` has STATE_ROW_KEY_BYTES_MAX. */
struct slice state_record_key(enum state_record_kind kind, uint64_t number, char *bytes);
bool state_record_parse_key(struct slice key, enum state_record_kind *kind_out,
                            uint64_t *number_out);

void state_record_encode_root(struct buf *out, const struct state_root *root);
struct err state_record_parse_root(struct slice record, struct state_root *root_out) MUST_USE;

/* `record` is the number of the record that the node stands in. */
void state_record_encode_inner(struct buf *out, uint64_t record, const struct state_node *node);
void state_record_encode_leaf(struct buf *out, const struct state_node *node);
struct err state_record_parse_inner(struct slice part, uint64_t record,
                                    struct state_node *node_out) MUST_USE;
struct err state_record_parse_leaf(struct slice part, struct state_node *node_out) MUST_USE;
/* Finds the parts of a nodes record: part i is bytes starts[i] + 1 .. of the length at starts[i].
 * `starts` has STATE_PARTS_MAX places. */
struct err state_record_split(struct slice record, uint16_t *starts, size_t *count_out) MUST_USE;
