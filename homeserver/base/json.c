#include "homeserver/base/json.h"

#include <stdlib.h>
#include <string.h>

struct parser {
    struct arena *arena;
    const char *start;
    const char *at;
    const char *end;
    const char *fault; /* what was expected at `at`; NULL while all is well */
};

/* An object or array being filled. Children grow in a scratch stack and move to the arena at the
 * closing bracket, so that each array is allocated once. */
struct frame {
    bool is_object;
    const char *open;
    size_t first; /* index of its first child in the scratch stack */
};

struct limits {
    size_t depth, values;
};
static const struct limits usual = {JSON_DEPTH_MAX, JSON_VALUES_MAX};
static const struct limits deep = {JSON_DEEP_MAX, JSON_VALUES_MAX};
static const struct limits list = {JSON_DEEP_MAX, JSON_LIST_VALUES_MAX};

struct builder {
    struct json_member *stack; /* key is unused for array items */
    size_t count;
    size_t cap;
    size_t depth, values;
    const struct limits *limits;
    struct frame frames[JSON_DEEP_MAX]; /* set as far as `depth` */
};

static bool fail(struct parser *p, const char *fault)
{
    if (!p->fault) {
        p->fault = fault;
    }
    return false;
}

static void skip_space(struct parser *p)
{
    while (p->at < p->end &&
           (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r')) {
        p->at++;
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex4(struct parser *p, uint32_t *unit_out)
{
    uint32_t unit = 0;
    if (p->end - p->at < 4) {
        return fail(p, "four hex digits");
    }
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*p->at++);
        if (digit < 0) {
            return fail(p, "four hex digits");
        }
        unit = unit << 4 | (uint32_t)digit;
    }
    *unit_out = unit;
    return true;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xC0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *to++ = (char)(0xE0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3F));
        *to++ = (char)(0x80 | (c & 0x3F));
    } else {
        *to++ = (char)(0xF0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3F));
        *to++ = (char)(0x80 | (c >> 6 & 0x3F));
        *to++ = (char)(0x80 | (c & 0x3F));
    }
    return to;
}

static bool read_code_point(struct parser *p, uint32_t *point_out)
{
    uint32_t high = 0;
    uint32_t low = 0;
    if (!read_hex4(p, &high)) {
        return false;
    }
    if (high < 0xD800 || high > 0xDFFF) {
        *point_out = high;
        return true;
    }
    if (high > 0xDBFF || p->end - p->at < 2 || p->at[0] != '\\' || p->at[1] != 'u') {
        return fail(p, "a paired surrogate");
    }
    p->at += 2;
    if (!read_hex4(p, &low)) {
        return false;
    }
    if (low < 0xDC00 || low > 0xDFFF) {
        return fail(p, "a paired surrogate");
    }
    *point_out = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    return true;
}

/* One escape; p->at stands behind the backslash. */
static bool read_escape(struct parser *p, char **to)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    if (p->at == p->end) {
        return fail(p, "an escape");
    }
    char c = *p->at++;
    if (c == 'u') {
        uint32_t point = 0;
        if (!read_code_point(p, &point)) {
            return false;
        }
        *to = put_utf8(*to, point);
        return true;
    }
    const char *name = c ? strchr(names, c) : NULL;
    if (!name) {
        return fail(p, "a known escape");
    }
    *(*to)++ = values[name - names];
    return true;
}

static bool read_string_escaped(struct parser *p, const char *from, size_t raw_len,
                                struct slice *text_out)
{
    char *text = arena_alloc(p->arena, raw_len + 1); /* decoding never grows the text */
    char *to = text;
    p->at = from;
    while (*p->at != '"') {
        if (*p->at == '\\') {
            p->at++;
            if (!read_escape(p, &to)) {
                return false;
            }
        } else {
            *to++ = *p->at++;
        }
    }
    p->at++;
    *text_out = (struct slice){text, (size_t)(to - text)};
    return true;
}

/* A string; p->at stands behind the opening quote. */
static bool read_string(struct parser *p, struct slice *text_out)
{
    const char *from = p->at;
    bool escaped = false;
    unsigned char high = 0;
    const char *at = from;
    for (; at < p->end && *at != '"'; at++) {
        unsigned char c = (unsigned char)*at;
        if (c < 0x20) {
            p->at = at;
            return fail(p, "no control character in a string");
        }
        high |= c;
        if (c == '\\' && at + 1 < p->end) {
            escaped = true;
            at++;
        }
    }
    if (at == p->end) {
        p->at = p->end;
        return fail(p, "a closing quote");
    }
    struct slice raw = {from, (size_t)(at - from)};
    if (high >= 0x80 && !slice_is_utf8(raw)) {
        return fail(p, "valid UTF-8");
    }
    if (escaped) {
        return read_string_escaped(p, from, raw.len, text_out);
    }
    p->at = at + 1;
    *text_out = raw;
    return true;
}

static size_t skip_digits(struct parser *p)
{
    const char *from = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') {
        p->at++;
    }
    return (size_t)(p->at - from);
}

/* Many parsers refuse numbers of thousands of digits, and with them the whole text: one such number
 * in a room would keep those clients from ever syncing again. */
enum { NUMBER_BYTES_MAX = 1024 };

/* Fraction and exponent; false when malformed. `plain` becomes false when there is either. */
static bool read_number_tail(struct parser *p, bool *plain)
{
    if (p->at < p->end && *p->at == '.') {
        *plain = false;
        p->at++;
        if (skip_digits(p) == 0) {
            return fail(p, "a digit");
        }
    }
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        *plain = false;
        p->at++;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-')) {
            p->at++;
        }
        if (skip_digits(p) == 0) {
            return fail(p, "a digit");
        }
    }
    return true;
}

static bool read_number(struct parser *p, struct json *value_out)
{
    const char *from = p->at;
    bool plain = true;
    if (*p->at == '-') {
        p->at++;
    }
    const char *digits = p->at;
    size_t count = skip_digits(p);
    if (count == 0 || (count > 1 && *digits == '0')) {
        return fail(p, "a number without leading zeros");
    }
    if (!read_number_tail(p, &plain)) {
        return false;
    }
    struct slice text = {from, (size_t)(p->at - from)};
    if (text.len > NUMBER_BYTES_MAX) {
        return fail(p, "a number that is not endless");
    }
    int64_t integer = 0;
    bool canonical = plain && slice_parse_i64(text, &integer) && integer <= JSON_INT_MAX &&
                     integer >= -JSON_INT_MAX && !(integer == 0 && *from == '-');
    if (canonical) {
        *value_out = (struct json){.type = JSON_INT, .integer = integer};
    } else {
        *value_out = (struct json){.type = JSON_NUMBER, .text = text};
    }
    return true;
}

static bool read_word(struct parser *p, struct json *value_out)
{
    struct slice rest = {p->at, (size_t)(p->end - p->at)};
    if (slice_has_prefix(rest, LIT("true"))) {
        *value_out = json_bool(true);
        p->at += 4;
    } else if (slice_has_prefix(rest, LIT("false"))) {
        *value_out = json_bool(false);
        p->at += 5;
    } else if (slice_has_prefix(rest, LIT("null"))) {
        *value_out = (struct json){.type = JSON_NULL};
        p->at += 4;
    } else {
        return fail(p, "a value");
    }
    return true;
}

static bool read_scalar(struct parser *p, struct json *value_out)
{
    char c = *p->at;
    if (c == '"') {
        p->at++;
        *value_out = (struct json){.type = JSON_STRING};
        return read_string(p, &value_out->text);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return read_number(p, value_out);
    }
    return read_word(p, value_out);
}

static int compare_members(const void *a, const void *b)
{
    const struct json_member *left = a;
    const struct json_member *right = b;
    return slice_cmp(left->key, right->key);
}

/* Sorts the members by key; false when a key stands twice. */
static bool sort_members(struct json_member *members, size_t count)
{
    bool sorted = true;
    for (size_t i = 1; i < count && sorted; i++) {
        sorted = slice_cmp(members[i - 1].key, members[i].key) < 0;
    }
    if (sorted) {
        return true;
    }
    qsort(members, count, sizeof *members, compare_members);
    for (size_t i = 1; i < count; i++) {
        if (slice_eq(members[i - 1].key, members[i].key)) {
            return false;
        }
    }
    return true;
}

static bool close_frame(struct parser *p, struct builder *b, struct json *value_out)
{
    struct frame *frame = &b->frames[--b->depth];
    size_t count = b->count - frame->first;
    const struct json_member *children = b->stack + frame->first;
    struct json value = {.count = (uint32_t)count};
    value.raw = (struct slice){frame->open, (size_t)(p->at - frame->open)};
    if (frame->is_object) {
        value.type = JSON_OBJECT;
        value.members = arena_array(p->arena, count, sizeof *value.members);
        if (count) {
            memcpy(value.members, children, count * sizeof *children);
        }
        if (!sort_members(value.members, count)) {
            return fail(p, "no duplicate key");
        }
    } else {
        value.type = JSON_ARRAY;
        value.items = arena_array(p->arena, count, sizeof *value.items);
        for (size_t i = 0; i < count; i++) {
            value.items[i] = children[i].value;
        }
    }
    b->count = frame->first;
    *value_out = value;
    return true;
}

static void push_child(struct parser *p, struct builder *b, struct slice key)
{
    if (b->count == b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 32;
        b->stack =
            arena_grow(p->arena, b->stack, b->cap * sizeof *b->stack, cap * sizeof *b->stack);
        b->cap = cap;
    }
    b->stack[b->count++] = (struct json_member){.key = key};
}

static bool open_frame(struct parser *p, struct builder *b)
{
    if (b->depth == b->limits->depth) {
        return fail(p, "fewer levels");
    }
    b->frames[b->depth++] =
        (struct frame){.is_object = *p->at == '{', .open = p->at, .first = b->count};
    p->at++;
    return true;
}

static bool read_key(struct parser *p, struct builder *b)
{
    struct slice key;
    skip_space(p);
    if (p->at == p->end || *p->at != '"') {
        return fail(p, "a key");
    }
    p->at++;
    if (!read_string(p, &key)) {
        return false;
    }
    skip_space(p);
    if (p->at == p->end || *p->at != ':') {
        return fail(p, "':'");
    }
    p->at++;
    push_child(p, b, key);
    return true;
}

/* Makes room for the next child of the open frame. */
static bool begin_child(struct parser *p, struct builder *b)
{
    if (b->frames[b->depth - 1].is_object) {
        return read_key(p, b);
    }
    push_child(p, b, (struct slice){0});
    return true;
}

/* What stands behind a finished child: ',' and the next one, or the closing bracket. Closed frames
 * become values of the frame around them. `done_out` is set when the outermost value is complete.
 */
static bool after_value(struct parser *p, struct builder *b, struct json value, struct json *root,
                        bool *done_out)
{
    while (b->depth) {
        b->stack[b->count - 1].value = value;
        skip_space(p);
        bool is_object = b->frames[b->depth - 1].is_object;
        if (p->at < p->end && *p->at == ',') {
            p->at++;
            return begin_child(p, b);
        }
        if (p->at == p->end || *p->at != (is_object ? '}' : ']')) {
            return fail(p, is_object ? "',' or '}'" : "',' or ']'");
        }
        p->at++;
        if (!close_frame(p, b, &value)) {
            return false;
        }
    }
    *root = value;
    *done_out = true;
    return true;
}

/* One step: a scalar, an empty container, or the start of one. */
static bool read_step(struct parser *p, struct builder *b, struct json *root, bool *done_out)
{
    struct json value;
    if (b->values++ == b->limits->values) {
        return fail(p, "fewer values");
    }
    skip_space(p);
    if (p->at == p->end) {
        return fail(p, "a value");
    }
    if (*p->at != '{' && *p->at != '[') {
        const char *from = p->at;
        if (!read_scalar(p, &value)) {
            return false;
        }
        value.raw = (struct slice){from, (size_t)(p->at - from)};
        return after_value(p, b, value, root, done_out);
    }
    char closing = *p->at == '{' ? '}' : ']';
    if (!open_frame(p, b)) {
        return false;
    }
    skip_space(p);
    if (p->at < p->end && *p->at == closing) {
        p->at++;
        return close_frame(p, b, &value) && after_value(p, b, value, root, done_out);
    }
    return begin_child(p, b);
}

static struct err parse(struct arena *arena, struct slice text, const struct limits *limits,
                        struct json *value_out)
{
    struct parser p = {arena, text.ptr, text.ptr, text.ptr + text.len, NULL};
    struct builder b;
    b.stack = NULL;
    b.count = 0;
    b.cap = 0;
    b.depth = 0;
    b.values = 0;
    b.limits = limits;
    bool done = false;
    while (!done) {
        if (!read_step(&p, &b, value_out, &done)) {
            break;
        }
    }
    skip_space(&p);
    if (done && p.at != p.end) {
        fail(&p, "nothing after the value");
    }
    if (p.fault) {
        return err_publicf(arena, ERR_SYNTAX, "invalid JSON at byte %zu: expected %s",
                           (size_t)(p.at - p.start), p.fault);
    }
    return OK;
}

struct err json_parse(struct arena *arena, struct slice text, struct json *value_out)
{
    return parse(arena, text, &usual, value_out);
}

struct err json_parse_deep(struct arena *arena, struct slice text, struct json *value_out)
{
    return parse(arena, text, &deep, value_out);
}

struct err json_parse_list(struct arena *arena, struct slice text, struct json *value_out)
{
    return parse(arena, text, &list, value_out);
}

const struct json *json_get(const struct json *object, struct slice key)
{
    if (!object || object->type != JSON_OBJECT) {
        return NULL;
    }
    size_t low = 0;
    size_t high = object->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = slice_cmp(object->members[middle].key, key);
        if (order == 0) {
            return &object->members[middle].value;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static const struct json *get_typed(const struct json *object, struct slice key,
                                    enum json_type type)
{
    const struct json *value = json_get(object, key);
    return value && value->type == type ? value : NULL;
}

const struct json *json_get_object(const struct json *object, struct slice key)
{
    return get_typed(object, key, JSON_OBJECT);
}

const struct json *json_get_array(const struct json *object, struct slice key)
{
    return get_typed(object, key, JSON_ARRAY);
}

struct slice json_get_string(const struct json *object, struct slice key)
{
    const struct json *value = get_typed(object, key, JSON_STRING);
    return value ? value->text : (struct slice){0};
}

bool json_get_int(const struct json *object, struct slice key, int64_t *value_out)
{
    const struct json *value = get_typed(object, key, JSON_INT);
    if (value) {
        *value_out = value->integer;
    }
    return value != NULL;
}

bool json_get_bool(const struct json *object, struct slice key, bool fallback)
{
    const struct json *value = get_typed(object, key, JSON_BOOL);
    return value ? value->boolean : fallback;
}

bool json_is_string(const struct json *value, struct slice text)
{
    return value && value->type == JSON_STRING && slice_eq(value->text, text);
}

struct json json_string(struct slice text)
{
    return (struct json){.type = JSON_STRING, .text = text};
}

struct json json_int(int64_t value)
{
    return (struct json){.type = JSON_INT, .integer = value};
}

struct json json_bool(bool value)
{
    return (struct json){.type = JSON_BOOL, .boolean = value};
}

struct json json_object(void)
{
    return (struct json){.type = JSON_OBJECT};
}

struct json json_array(void)
{
    return (struct json){.type = JSON_ARRAY};
}

static bool is_named(struct slice key, const struct slice *keys, size_t key_count)
{
    for (size_t i = 0; i < key_count; i++) {
        if (slice_eq(key, keys[i])) {
            return true;
        }
    }
    return false;
}

struct json json_without(struct arena *arena, const struct json *object, const struct slice *keys,
                         size_t key_count)
{
    struct json copy = json_object();
    copy.members = arena_array(arena, object->count, sizeof *copy.members);
    for (uint32_t i = 0; i < object->count; i++) {
        if (!is_named(object->members[i].key, keys, key_count)) {
            copy.members[copy.count++] = object->members[i];
        }
    }
    return copy;
}

void json_set(struct arena *arena, struct json *object, struct slice key, struct json value)
{
    uint32_t at = 0;
    object->raw = (struct slice){0};
    while (at < object->count && slice_cmp(object->members[at].key, key) < 0) {
        at++;
    }
    if (at < object->count && slice_eq(object->members[at].key, key)) {
        object->members[at].value = value;
        return;
    }
    struct json_member *grown = arena_array(arena, object->count + 1, sizeof *grown);
    if (object->count) {
        memcpy(grown, object->members, at * sizeof *grown);
        memcpy(grown + at + 1, object->members + at, (object->count - at) * sizeof *grown);
    }
    grown[at] = (struct json_member){key, value};
    object->members = grown;
    object->count++;
}

void json_remove(struct json *object, struct slice key)
{
    const struct json *found = json_get(object, key);
    if (!found) {
        return;
    }
    object->raw = (struct slice){0};
    uint32_t at = 0;
    while (&object->members[at].value != found) {
        at++;
    }
    object->count--;
    memmove(object->members + at, object->members + at + 1,
            (object->count - at) * sizeof *object->members);
}

void json_push(struct arena *arena, struct json *array, struct json value)
{
    /* Capacity is the next power of two, so that repeated pushes stay linear; a parsed array has no
     * room beyond its items. */
    bool is_parsed = array->raw.ptr != NULL;
    array->raw = (struct slice){0};
    if (is_parsed || (array->count & (array->count - 1)) == 0) {
        size_t cap = 1;
        while (cap <= array->count) {
            cap *= 2;
        }
        struct json *grown = arena_array(arena, cap, sizeof *grown);
        if (array->count) {
            memcpy(grown, array->items, array->count * sizeof *grown);
        }
        array->items = grown;
    }
    array->items[array->count++] = value;
}
