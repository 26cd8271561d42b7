/* Strict JSON (RFC 8259) into an arena tree, and the Matrix canonical form.
 * Refused: invalid UTF-8, lone surrogates, control characters in strings, duplicate keys, depth
 * over JSON_DEPTH_MAX, anything after the value. Members of an object are kept sorted by key in
 * code point order, so a canonical writer just walks. Spec: appendices, "Canonical JSON". */
#pragma once
#include "homeserver/base/buf.h"

enum {
    JSON_DEPTH_MAX = 100,
    JSON_DEEP_MAX = 1000,
    /* Of one text. A value takes two bytes there and up to 200 here: without a bound the size of a
     * text would say nothing of the memory that reading it takes. */
    JSON_VALUES_MAX = 1 << 20,
    JSON_LIST_VALUES_MAX = 1 << 22, /* of a text that json_parse_list reads */
};
#define JSON_INT_MAX INT64_C(9007199254740991) /* 2^53 - 1 */

enum json_type {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,    /* canonical integer: -(2^53)+1 .. 2^53-1, no fraction, no exponent, no -0 */
    JSON_NUMBER, /* any other number; `text` is its spelling, byte-faithful */
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};

struct json_member;

struct json {
    enum json_type type;
    uint32_t count;   /* items or members */
    struct slice raw; /* this value's bytes in the parsed text; empty when built in memory */
    union {
        bool boolean;
        int64_t integer;
        struct slice text; /* JSON_STRING: decoded UTF-8 (may hold NUL); JSON_NUMBER: spelling */
        struct json *items;
        struct json_member *members;
    };
};

struct json_member {
    struct slice key; /* decoded */
    struct json value;
};

/* Parses one value; the tree borrows from `text` and lives in `arena`.
 * ERR_SYNTAX with a public text that names the byte offset. */
struct err json_parse(struct arena *arena, struct slice text, struct json *value_out) MUST_USE;
/* The same to JSON_DEEP_MAX levels, for texts that hold things of many makers: one that nests too
 * deeply must not take the others with it. What is kept or handed on has to be looked at first:
 * json_parse would not read it again. */
struct err json_parse_deep(struct arena *arena, struct slice text, struct json *value_out) MUST_USE;
/* The same for the longest texts there are: states of rooms. */
struct err json_parse_list(struct arena *arena, struct slice text, struct json *value_out) MUST_USE;
/* Levels of arrays and objects; 0 for what is neither. */
size_t json_depth(const struct json *value);

/* Lookups return NULL when the key is absent or the value is not of the type. NULL object is fine.
 */
const struct json *json_get(const struct json *object, struct slice key);
const struct json *json_get_object(const struct json *object, struct slice key);
const struct json *json_get_array(const struct json *object, struct slice key);
/* Decoded text; `.ptr == NULL` when absent or not a string. */
struct slice json_get_string(const struct json *object, struct slice key);
bool json_get_int(const struct json *object, struct slice key, int64_t *value_out);
/* The boolean, or `fallback` when absent or of another type. */
bool json_get_bool(const struct json *object, struct slice key, bool fallback);
bool json_is_string(const struct json *value, struct slice text);
/* Whether two trees are equal (numbers by canonical spelling). */
bool json_eq(const struct json *a, const struct json *b);

/* Canonical bytes: sorted keys, shortest escapes, no white space. Numbers that are not JSON_INT are
 * written in their own spelling (room versions before 6 allow them). */
void json_write_canonical(struct buf *out, const struct json *value);
struct slice json_canonical(struct arena *arena, const struct json *value);
/* ERR_SYNTAX when a number in the tree is outside canonical JSON. */
struct err json_check_canonical(const struct json *value) MUST_USE;

/* Building trees in an arena, for values that are changed before they are written. */
struct json json_string(struct slice text);
struct json json_int(int64_t value);
struct json json_bool(bool value);
struct json json_object(void);
/* An object with the members of `object` except those named, sharing their values. */
struct json json_without(struct arena *arena, const struct json *object, const struct slice *keys,
                         size_t key_count);
/* Sets or replaces a member in place (the member array is copied when it must grow). */
void json_set(struct arena *arena, struct json *object, struct slice key, struct json value);
void json_remove(struct json *object, struct slice key);
void json_push(struct arena *arena, struct json *array, struct json value);
struct json json_array(void);
