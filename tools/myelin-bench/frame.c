#include "tools/myelin-bench/frame.h"

#include <string.h>

static uint64_t big_endian(const char *bytes, size_t count)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        value = value << 8 | (unsigned char)bytes[i];
    }
    return value;
}

bool frame_read(struct slice bytes, struct frame *frame_out)
{
    if (bytes.len < 2) {
        return false;
    }
    unsigned char first = (unsigned char)bytes.ptr[0];
    uint64_t length = (unsigned char)bytes.ptr[1] & 0x7f;
    size_t head = 2;
    if (length >= 126) {
        size_t wide = length == 126 ? 2 : 8;
        if (bytes.len < head + wide) {
            return false;
        }
        length = big_endian(bytes.ptr + head, wide);
        head += wide;
    }
    if (bytes.len - head < length) {
        return false;
    }
    *frame_out = (struct frame){
        .opcode = (enum frame_opcode)(first & 0x0f),
        .final = (first & 0x80) != 0,
        .payload = slice_sub(bytes, head, (size_t)length),
        .size = head + (size_t)length,
    };
    return true;
}

void frame_write(struct buf *out, enum frame_opcode opcode, struct slice payload)
{
    char head[14];
    size_t size = 2;
    head[0] = (char)(0x80 | (unsigned)opcode);
    if (payload.len < 126) {
        head[1] = (char)(0x80 | payload.len);
    } else {
        size_t wide = payload.len < 65536 ? 2 : 8;
        head[1] = (char)(0x80 | (wide == 2 ? 126 : 127));
        for (size_t i = 0; i < wide; i++) {
            head[size++] = (char)(payload.len >> (8 * (wide - 1 - i)));
        }
    }
    memset(head + size, 0, 4);
    buf_add(out, (struct slice){head, size + 4});
    buf_add(out, payload);
}
