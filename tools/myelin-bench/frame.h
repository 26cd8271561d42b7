/* WebSocket frames as a client writes and reads them (RFC 6455), without extensions. */
#pragma once
#include "homeserver/base/buf.h"

enum frame_opcode {
    FRAME_CONTINUATION = 0,
    FRAME_TEXT = 1,
    FRAME_BINARY = 2,
    FRAME_CLOSE = 8,
    FRAME_PING = 9,
    FRAME_PONG = 10,
};

struct frame {
    enum frame_opcode opcode;
    bool final;
    struct slice payload; /* borrows from the bytes read */
    size_t size;          /* of the whole frame */
};

/* Reads a server's (unmasked) frame from the start of `bytes`; false when more bytes are needed. */
bool frame_read(struct slice bytes, struct frame *frame_out);
/* Writes a final frame, masked with zeros: the mask guards proxies, and there is none here. */
void frame_write(struct buf *out, enum frame_opcode opcode, struct slice payload);
