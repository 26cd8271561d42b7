#include "store/state_record.h"

#include <string.h>

static struct err corrupt(void)
{
    return err_make(ERR_CORRUPT, "a state record is malformed");
}

/* Kind, count of number bytes, number without leading zeros, most significant byte first. */
struct slice state_record_key(enum state_record_kind kind, uint64_t number, char *bytes)
{
    size_t len = 1;
    while (len < 8 && number >> (8 * len)) {
        len++;
    }
    bytes[0] = (char)kind;
    bytes[1] = (char)len;
    for (size_t i = 0; i < len; i++) {
        bytes[2 + i] = (char)(number >> (8 * (len - 1 - i)) & 0xFF);
    }
    return (struct slice){bytes, len + 2};
}

bool state_record_parse_key(struct slice key, enum state_record_kind *kind_out,
                            uint64_t *number_out)
{
    bool known = key.len > 2 && key.len <= STATE_ROW_KEY_BYTES_MAX &&
                 (key.ptr[0] == STATE_RECORD_ROOT || key.ptr[0] == STATE_RECORD_NODES) &&
                 (size_t)key.ptr[1] == key.len - 2;
    if (!known) {
        return false;
    }
    *kind_out = (enum state_record_kind)key.ptr[0];
    *number_out = 0;
    for (size_t i = 2; i < key.len; i++) {
        *number_out = *number_out << 8 | (unsigned char)key.ptr[i];
    }
    return true;
}

/* Changes of one list are close in time: events are stored as their distance to the newest. */
static int64_t newest_event(const struct state_root *root)
{
    int64_t newest = INT64_MIN;
    for (uint32_t i = 0; i < root->list_count; i++) {
        int64_t event = root->list[i].event;
        newest = event != 0 && event > newest ? event : newest;
    }
    return newest == INT64_MIN ? 0 : newest;
}

void state_record_encode_root(struct buf *out, const struct state_root *root)
{
    pack_be64(out, root->hash.high);
    pack_be64(out, root->hash.low);
    pack_u64(out, root->height);
    if (root->height > 0) {
        pack_u64(out, root->top.record);
        pack_u64(out, root->top.part);
    }
    int64_t newest = newest_event(root);
    uint64_t before = 0;
    pack_u64(out, root->list_count);
    pack_i64(out, newest);
    for (uint32_t i = 0; i < root->list_count; i++) {
        const struct state_entry *entry = &root->list[i];
        uint64_t age = (uint64_t)newest - (uint64_t)entry->event;
        pack_u64(out, entry->key - before);
        pack_u64(out, entry->event == 0 ? 0 : age + 1);
        before = entry->key;
    }
}

static bool parse_list(struct unpack *in, struct state_root *root)
{
    uint64_t count = unpack_u64(in);
    int64_t newest = unpack_i64(in);
    uint64_t key = 0;
    if (count > STATE_LIST_MAX) {
        return false;
    }
    root->list_count = (uint32_t)count;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t step = unpack_u64(in);
        uint64_t age = unpack_u64(in);
        if (step == 0 || step > STATE_KEY_MAX - key) {
            return false;
        }
        key += step;
        root->list[i].key = key;
        root->list[i].event = age == 0 ? 0 : (int64_t)((uint64_t)newest - (age - 1));
    }
    return true;
}

struct err state_record_parse_root(struct slice record, struct state_root *root_out)
{
    struct unpack in = unpack_of(record);
    *root_out = (struct state_root){0};
    root_out->hash.high = unpack_be64(&in);
    root_out->hash.low = unpack_be64(&in);
    uint64_t height = unpack_u64(&in);
    if (height > STATE_HEIGHT_MAX) {
        return corrupt();
    }
    root_out->height = (uint32_t)height;
    if (height > 0) {
        root_out->top.record = unpack_u64(&in);
        root_out->top.part = unpack_u64(&in);
    }
    bool good = parse_list(&in, root_out) && !in.bad && in.rest.len == 0 &&
                (height == 0 || root_out->top.record != 0);
    return good ? OK : corrupt();
}

void state_record_encode_inner(struct buf *out, uint64_t record, const struct state_node *node)
{
    buf_add_byte(out, (char)node->used);
    for (unsigned i = 0; i < STATE_FANOUT; i++) {
        if (node->used >> i & 1) {
            pack_u64(out, record - node->children[i].record);
            pack_u64(out, node->children[i].part);
        }
    }
}

void state_record_encode_leaf(struct buf *out, const struct state_node *node)
{
    buf_add_byte(out, (char)node->used);
    for (unsigned i = 0; i < STATE_FANOUT; i++) {
        if (node->used >> i & 1) {
            pack_i64(out, node->events[i]);
        }
    }
}

static uint8_t parse_used(struct unpack *in)
{
    if (in->rest.len == 0) {
        in->bad = true;
        return 0;
    }
    uint8_t used = (uint8_t)in->rest.ptr[0];
    in->rest = slice_from(in->rest, 1);
    in->bad |= used == 0;
    return used;
}

struct err state_record_parse_inner(struct slice part, uint64_t record, struct state_node *node_out)
{
    struct unpack in = unpack_of(part);
    node_out->used = parse_used(&in);
    for (unsigned i = 0; i < STATE_FANOUT; i++) {
        node_out->children[i] = (struct state_ref){0};
        if (node_out->used >> i & 1) {
            uint64_t back = unpack_u64(&in);
            in.bad |= back >= record;
            node_out->children[i].record = record - back;
            node_out->children[i].part = unpack_u64(&in);
        }
    }
    return in.bad || in.rest.len ? corrupt() : OK;
}

struct err state_record_parse_leaf(struct slice part, struct state_node *node_out)
{
    struct unpack in = unpack_of(part);
    node_out->used = parse_used(&in);
    for (unsigned i = 0; i < STATE_FANOUT; i++) {
        node_out->events[i] = 0;
        if (node_out->used >> i & 1) {
            node_out->events[i] = unpack_i64(&in);
            in.bad |= node_out->events[i] == 0;
        }
    }
    return in.bad || in.rest.len ? corrupt() : OK;
}

struct err state_record_split(struct slice record, uint16_t *starts, size_t *count_out)
{
    size_t count = 0;
    for (size_t at = 0; at < record.len;) {
        size_t len = (unsigned char)record.ptr[at];
        if (count == STATE_PARTS_MAX || at > UINT16_MAX || len > record.len - at - 1) {
            return corrupt();
        }
        starts[count++] = (uint16_t)at;
        at += len + 1;
    }
    *count_out = count;
    return OK;
}
