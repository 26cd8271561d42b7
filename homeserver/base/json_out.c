#include "homeserver/base/json_out.h"

struct json_out json_out_to(struct buf *buf)
{
    return (struct json_out){.buf = buf};
}

static void begin_value(struct json_out *out)
{
    if (out->need_comma) {
        buf_add_byte(out->buf, ',');
    }
    out->need_comma = true;
}

static void open_with(struct json_out *out, char bracket)
{
    begin_value(out);
    buf_add_byte(out->buf, bracket);
    out->need_comma = false;
}

static void close_with(struct json_out *out, char bracket)
{
    buf_add_byte(out->buf, bracket);
    out->need_comma = true;
}

void json_out_object(struct json_out *out)
{
    open_with(out, '{');
}

void json_out_object_end(struct json_out *out)
{
    close_with(out, '}');
}

void json_out_array(struct json_out *out)
{
    open_with(out, '[');
}

void json_out_array_end(struct json_out *out)
{
    close_with(out, ']');
}

void json_out_key(struct json_out *out, struct slice key)
{
    begin_value(out);
    json_write_string(out->buf, key);
    buf_add_byte(out->buf, ':');
    out->need_comma = false;
}

void json_out_string(struct json_out *out, struct slice text)
{
    begin_value(out);
    json_write_string(out->buf, text);
}

void json_out_int(struct json_out *out, int64_t value)
{
    begin_value(out);
    buf_add_i64(out->buf, value);
}

void json_out_bool(struct json_out *out, bool value)
{
    begin_value(out);
    buf_add(out->buf, value ? LIT("true") : LIT("false"));
}

void json_out_null(struct json_out *out)
{
    begin_value(out);
    buf_add(out->buf, LIT("null"));
}

void json_out_raw(struct json_out *out, struct slice json)
{
    begin_value(out);
    buf_add(out->buf, json);
}

void json_out_value(struct json_out *out, const struct json *value)
{
    begin_value(out);
    json_write_canonical(out->buf, value);
}

void json_out_key_string(struct json_out *out, struct slice key, struct slice text)
{
    json_out_key(out, key);
    json_out_string(out, text);
}

void json_out_key_int(struct json_out *out, struct slice key, int64_t value)
{
    json_out_key(out, key);
    json_out_int(out, value);
}

void json_out_key_bool(struct json_out *out, struct slice key, bool value)
{
    json_out_key(out, key);
    json_out_bool(out, value);
}

void json_out_key_raw(struct json_out *out, struct slice key, struct slice json)
{
    json_out_key(out, key);
    json_out_raw(out, json);
}

void json_out_key_object(struct json_out *out, struct slice key)
{
    json_out_key(out, key);
    json_out_object(out);
}

void json_out_key_array(struct json_out *out, struct slice key)
{
    json_out_key(out, key);
    json_out_array(out);
}
