/* State records: what parses as a root comes back from its encoded form; nodes never run over. */
#include "store/state_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint16_t starts[STATE_PARTS_MAX];
    struct slice record = {(const char *)data, size};
    struct state_root root;
    struct state_root again;
    struct state_node node;
    size_t count = 0;
    struct buf out;
    buf_init(&out, STATE_PART_BYTES_MAX);
    if (state_record_parse_root(record, &root).code == 0) {
        state_record_encode_root(&out, &root);
        struct err err = state_record_parse_root(buf_slice(&out), &again);
        ASSERT(err.code == 0);
        ASSERT(again.list_count == root.list_count);
    }
    if (state_record_split(record, starts, &count).code == 0) {
        for (size_t i = 0; i < count; i++) {
            struct slice part = slice_sub(record, starts[i] + 1U, data[starts[i]]);
            (void)state_record_parse_leaf(part, &node).code;
            (void)state_record_parse_inner(part, 1000, &node).code;
        }
    }
    buf_deinit(&out);
    return 0;
}
