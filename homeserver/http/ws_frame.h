/* WebSocket frames, read byte stream by byte stream and written whole. No sockets here.
 * Spec: RFC 6455, 5 and 7.4. */
#pragma once
#include "homeserver/base/buf.h"

enum http_ws_opcode {
    HTTP_WS_CONTINUATION = 0,
    HTTP_WS_TEXT = 1,
    HTTP_WS_BINARY = 2,
    HTTP_WS_CLOSE = 8,
    HTTP_WS_PING = 9,
    HTTP_WS_PONG = 10,
};

enum http_ws_event {
    HTTP_WS_GOT_NOTHING, /* more bytes are needed */
    HTTP_WS_GOT_TEXT,
    HTTP_WS_GOT_PING,
    HTTP_WS_GOT_PONG,
    HTTP_WS_GOT_CLOSE,
    HTTP_WS_GOT_ERROR, /* close with the code */
};

enum { HTTP_WS_CONTROL_BYTES_MAX = 125 };

/* Between messages it holds no memory outside itself. */
struct http_ws_reader {
    struct buf message; /* heap; of the message being collected */
    size_t message_max;
    uint64_t left; /* payload bytes of the frame that have not come */
    uint32_t masked_count;
    unsigned char head[14];
    uint8_t head_len;
    uint8_t control_len;
    bool in_payload, in_message;
    char control[HTTP_WS_CONTROL_BYTES_MAX];
};

void http_ws_reader_init(struct http_ws_reader *reader, size_t message_max);
void http_ws_reader_deinit(struct http_ws_reader *reader);
/* Whether it stands between messages, with nothing to remember. */
bool http_ws_reader_is_idle(const struct http_ws_reader *reader);
/* Consumes bytes up to the next event. The payload is valid until the next call. For CLOSE and
 * ERROR, code_out is the code to answer with. After an error nothing more may be read. */
enum http_ws_event http_ws_reader_next(struct http_ws_reader *reader, struct slice *bytes,
                                       struct slice *payload_out, uint16_t *code_out);

/* Appends one unfragmented, unmasked frame, as servers send it. */
void http_ws_frame_write(struct buf *out, enum http_ws_opcode opcode, struct slice payload);
void http_ws_frame_write_close(struct buf *out, uint16_t code, struct slice reason);
