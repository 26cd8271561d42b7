/* Writing JSON straight into a buffer. The writer places commas; the caller balances brackets.
 * Keys are written in the order given (use json_write_canonical where order matters). */
#pragma once
#include "homeserver/base/json.h"

struct json_out {
    struct buf *buf;
    bool need_comma;
};

struct json_out json_out_to(struct buf *buf);
void json_out_object(struct json_out *out); /* { */
void json_out_object_end(struct json_out *out);
void json_out_array(struct json_out *out); /* [ */
void json_out_array_end(struct json_out *out);
/* Names the next value. */
void json_out_key(struct json_out *out, struct slice key);
void json_out_string(struct json_out *out, struct slice text);
void json_out_int(struct json_out *out, int64_t value);
void json_out_bool(struct json_out *out, bool value);
void json_out_null(struct json_out *out);
/* Bytes that already are one JSON value. */
void json_out_raw(struct json_out *out, struct slice json);
void json_out_value(struct json_out *out, const struct json *value); /* canonical */
/* Key and value in one call. */
void json_out_key_string(struct json_out *out, struct slice key, struct slice text);
void json_out_key_int(struct json_out *out, struct slice key, int64_t value);
void json_out_key_bool(struct json_out *out, struct slice key, bool value);
void json_out_key_raw(struct json_out *out, struct slice key, struct slice json);
void json_out_key_object(struct json_out *out, struct slice key);
void json_out_key_array(struct json_out *out, struct slice key);

/* A quoted, escaped JSON string. */
void json_write_string(struct buf *out, struct slice text);
