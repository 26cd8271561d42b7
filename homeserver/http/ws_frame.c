#include "homeserver/http/ws_frame.h"

#include <string.h>

enum {
    FIN = 0x80,
    RESERVED = 0x70,
    MASKED = 0x80,
    LEN_16 = 126,
    LEN_64 = 127,
    MASK_BYTES = 4,
    CODE_PROTOCOL = 1002,
    CODE_TYPE = 1003,
    CODE_NONE = 1005,
    CODE_DATA = 1007,
    CODE_SIZE = 1009,
};

void http_ws_reader_init(struct http_ws_reader *reader, size_t message_max)
{
    *reader = (struct http_ws_reader){.message_max = message_max};
    buf_init(&reader->message, message_max);
}

void http_ws_reader_deinit(struct http_ws_reader *reader)
{
    buf_deinit(&reader->message);
}

bool http_ws_reader_is_idle(const struct http_ws_reader *reader)
{
    return reader->head_len == 0 && !reader->in_payload && !reader->in_message;
}

static size_t length_bytes(const struct http_ws_reader *reader)
{
    unsigned len = reader->head[1] & 0x7F;
    return len == LEN_16 ? 2 : len == LEN_64 ? 8 : 0;
}

static enum http_ws_opcode opcode_of(const struct http_ws_reader *reader)
{
    return (enum http_ws_opcode)(reader->head[0] & 0x0F);
}

static bool is_control(const struct http_ws_reader *reader)
{
    return (reader->head[0] & 0x08) != 0;
}

/* The code of the first rule that the header breaks; 0 when it is fine. */
static uint16_t check_head(const struct http_ws_reader *reader)
{
    bool fin = (reader->head[0] & FIN) != 0;
    /* 5.2: reserved bits are 0 without an extension; 5.1: clients mask */
    if ((reader->head[0] & RESERVED) || !(reader->head[1] & MASKED)) {
        return CODE_PROTOCOL;
    }
    switch (opcode_of(reader)) {
    case HTTP_WS_CONTINUATION: /* 5.4: continues a message that was begun */
        return reader->in_message ? 0 : CODE_PROTOCOL;
    case HTTP_WS_TEXT: /* 5.4: messages are not interleaved */
        return reader->in_message ? CODE_PROTOCOL : 0;
    case HTTP_WS_BINARY:
        return CODE_TYPE;
    case HTTP_WS_CLOSE:
    case HTTP_WS_PING:
    case HTTP_WS_PONG: /* 5.5: not fragmented, at most 125 bytes */
        return fin && (reader->head[1] & 0x7F) < LEN_16 ? 0 : CODE_PROTOCOL;
    }
    return CODE_PROTOCOL;
}

static uint16_t begin_payload(struct http_ws_reader *reader)
{
    size_t len_bytes = length_bytes(reader);
    uint64_t len = len_bytes ? 0 : reader->head[1] & 0x7F;
    for (size_t i = 0; i < len_bytes; i++) {
        len = len << 8 | reader->head[2 + i];
    }
    /* 5.2: the highest bit is 0, the shortest form is used */
    if (len >> 63 || (len_bytes == 2 && len < LEN_16) || (len_bytes == 8 && len < 1 << 16)) {
        return CODE_PROTOCOL;
    }
    if (!is_control(reader) && len > reader->message_max - reader->message.len) {
        return CODE_SIZE;
    }
    reader->left = len;
    reader->masked_count = 0;
    reader->control_len = 0;
    reader->in_payload = true;
    reader->in_message |= !is_control(reader);
    return 0;
}

/* Takes header bytes; returns a close code, or 0. */
static uint16_t read_head(struct http_ws_reader *reader, struct slice *bytes)
{
    while (bytes->len && !reader->in_payload) {
        reader->head[reader->head_len++] = (unsigned char)bytes->ptr[0];
        *bytes = slice_from(*bytes, 1);
        if (reader->head_len == 2) {
            uint16_t code = check_head(reader);
            if (code) {
                return code;
            }
        }
        if (reader->head_len >= 2 && reader->head_len == 2 + length_bytes(reader) + MASK_BYTES) {
            return begin_payload(reader);
        }
    }
    return 0;
}

static void read_payload(struct http_ws_reader *reader, struct slice *bytes)
{
    const unsigned char *mask = reader->head + reader->head_len - MASK_BYTES;
    size_t len = bytes->len < reader->left ? bytes->len : (size_t)reader->left;
    if (!len) {
        return;
    }
    char *to = is_control(reader) ? reader->control + reader->control_len
                                  : buf_reserve(&reader->message, len);
    for (size_t i = 0; i < len; i++) {
        to[i] = (char)((unsigned char)bytes->ptr[i] ^ mask[(reader->masked_count + i) & 3]);
    }
    reader->masked_count += (uint32_t)len;
    reader->left -= len;
    *bytes = slice_from(*bytes, len);
    if (is_control(reader)) {
        reader->control_len = (uint8_t)(reader->control_len + len);
    } else {
        buf_filled(&reader->message, len);
    }
}

/* 7.4: codes that may stand in a frame. */
static bool is_close_code(unsigned code)
{
    return (code >= 1000 && code <= 1011 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static enum http_ws_event end_close(struct slice payload, uint16_t *code_out)
{
    if (payload.len == 0) {
        *code_out = CODE_NONE;
        return HTTP_WS_GOT_CLOSE;
    }
    unsigned code = payload.len < 2 ? 0
                                    : (unsigned)(unsigned char)payload.ptr[0] << 8 |
                                          (unsigned char)payload.ptr[1];
    *code_out = (uint16_t)code;
    if (!is_close_code(code)) {
        *code_out = CODE_PROTOCOL;
        return HTTP_WS_GOT_ERROR;
    }
    if (!slice_is_utf8(slice_from(payload, 2))) {
        *code_out = CODE_DATA;
        return HTTP_WS_GOT_ERROR;
    }
    return HTTP_WS_GOT_CLOSE;
}

static enum http_ws_event end_frame(struct http_ws_reader *reader, struct slice *payload_out,
                                    uint16_t *code_out)
{
    bool fin = (reader->head[0] & FIN) != 0;
    reader->in_payload = false;
    reader->head_len = 0;
    *payload_out = (struct slice){reader->control, reader->control_len};
    switch (opcode_of(reader)) {
    case HTTP_WS_PING:
        return HTTP_WS_GOT_PING;
    case HTTP_WS_PONG:
        return HTTP_WS_GOT_PONG;
    case HTTP_WS_CLOSE:
        return end_close(*payload_out, code_out);
    case HTTP_WS_CONTINUATION:
    case HTTP_WS_TEXT:
    case HTTP_WS_BINARY:
        break;
    }
    if (!fin) {
        return HTTP_WS_GOT_NOTHING;
    }
    reader->in_message = false;
    *payload_out = buf_slice(&reader->message);
    if (!slice_is_utf8(*payload_out)) {
        *code_out = CODE_DATA;
        return HTTP_WS_GOT_ERROR;
    }
    return HTTP_WS_GOT_TEXT;
}

enum http_ws_event http_ws_reader_next(struct http_ws_reader *reader, struct slice *bytes,
                                       struct slice *payload_out, uint16_t *code_out)
{
    *payload_out = (struct slice){0};
    if (!reader->in_message && reader->message.ptr) { /* the last message has been seen */
        buf_deinit(&reader->message);
        buf_init(&reader->message, reader->message_max);
    }
    for (;;) {
        *code_out = reader->in_payload ? 0 : read_head(reader, bytes);
        if (*code_out) {
            return HTTP_WS_GOT_ERROR;
        }
        if (!reader->in_payload) {
            return HTTP_WS_GOT_NOTHING;
        }
        read_payload(reader, bytes);
        if (reader->left) {
            return HTTP_WS_GOT_NOTHING;
        }
        enum http_ws_event event = end_frame(reader, payload_out, code_out);
        if (event != HTTP_WS_GOT_NOTHING) {
            return event;
        }
    }
}

void http_ws_frame_write(struct buf *out, enum http_ws_opcode opcode, struct slice payload)
{
    char head[10] = {(char)(FIN | (int)opcode)};
    size_t len_bytes = payload.len < LEN_16 ? 0 : payload.len < 1 << 16 ? 2 : 8;
    head[1] = (char)(len_bytes == 0 ? (int)payload.len : len_bytes == 2 ? LEN_16 : LEN_64);
    for (size_t i = 0; i < len_bytes; i++) {
        head[2 + i] = (char)(payload.len >> (8 * (len_bytes - 1 - i)) & 0xFF);
    }
    buf_add(out, (struct slice){head, 2 + len_bytes});
    buf_add(out, payload);
}

void http_ws_frame_write_close(struct buf *out, uint16_t code, struct slice reason)
{
    char payload[HTTP_WS_CONTROL_BYTES_MAX] = {(char)(code >> 8), (char)(code & 0xFF)};
    struct slice cut = slice_sub(reason, 0, sizeof payload - 2);
    while (cut.len && !slice_is_utf8(cut)) { /* never cut a character in two */
        cut.len--;
    }
    if (code == CODE_NONE) { /* stands for an empty close frame */
        http_ws_frame_write(out, HTTP_WS_CLOSE, (struct slice){0});
        return;
    }
    if (cut.len) {
        memcpy(payload + 2, cut.ptr, cut.len);
    }
    http_ws_frame_write(out, HTTP_WS_CLOSE, (struct slice){payload, 2 + cut.len});
}
