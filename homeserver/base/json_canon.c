/* Spec: appendices, "Canonical JSON": keys sorted by code point, shortest escapes, no white space.
 */
#include "homeserver/base/json.h"
#include "homeserver/base/json_out.h"

#include <string.h>

static const char short_escapes[32] = {
    ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};

static void write_escape(struct buf *out, unsigned char c)
{
    char text[6] = {'\\', 'u', '0', '0', (char)('0' + (c >> 4)), "0123456789abcdef"[c & 15]};
    if (c == '"' || c == '\\') {
        text[1] = (char)c;
        buf_add(out, (struct slice){text, 2});
    } else if (short_escapes[c]) {
        text[1] = short_escapes[c];
        buf_add(out, (struct slice){text, 2});
    } else {
        buf_add(out, (struct slice){text, 6});
    }
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

/* Whether any of eight bytes needs an escape: a byte below 0x20, a quote or a backslash, found by
 * borrows into the top bits (bytes from 0x80 on are masked out). */
static bool has_special(const char *bytes)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t tops = ones << 7;
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    uint64_t quote = word ^ (ones * '"');
    uint64_t slash = word ^ (ones * '\\');
    uint64_t found = (word - ones * 0x20) | (quote - ones) | (slash - ones);
    return (found & ~word & tops) != 0;
}

/* Length of the part that needs no escape. */
static size_t plain_prefix(struct slice text)
{
    size_t at = 0;
    while (text.len - at >= 8 && !has_special(text.ptr + at)) {
        at += 8;
    }
    while (at < text.len && is_plain((unsigned char)text.ptr[at])) {
        at++;
    }
    return at;
}

static void write_plain(struct buf *out, struct slice text)
{
    char *to = buf_reserve(out, text.len + 2);
    if (!to) {
        return;
    }
    to[0] = '"';
    if (text.len) {
        memcpy(to + 1, text.ptr, text.len);
    }
    to[text.len + 1] = '"';
    buf_filled(out, text.len + 2);
}

void json_write_string(struct buf *out, struct slice text)
{
    struct slice rest = text;
    size_t plain = plain_prefix(rest);
    if (plain == text.len) {
        write_plain(out, text);
        return;
    }
    buf_add_byte(out, '"');
    while (rest.len) {
        buf_add(out, slice_sub(rest, 0, plain));
        if (plain < rest.len) {
            write_escape(out, (unsigned char)rest.ptr[plain]);
            plain++;
        }
        rest = slice_from(rest, plain);
        plain = plain_prefix(rest);
    }
    buf_add_byte(out, '"');
}

static void write_scalar(struct buf *out, const struct json *value)
{
    switch (value->type) {
    case JSON_NULL:
        buf_add(out, LIT("null"));
        break;
    case JSON_BOOL:
        buf_add(out, value->boolean ? LIT("true") : LIT("false"));
        break;
    case JSON_INT:
        buf_add_i64(out, value->integer);
        break;
    case JSON_NUMBER:
        buf_add(out, value->text);
        break;
    case JSON_STRING:
        json_write_string(out, value->text);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
}

struct step {
    const struct json *value;
    uint32_t next;
};

/* The next child of the container on top of the stack, its comma and key written; NULL at the end
 * (the closing bracket is written then). */
static const struct json *next_child(struct buf *out, struct step *top)
{
    bool is_object = top->value->type == JSON_OBJECT;
    if (top->next == top->value->count) {
        buf_add_byte(out, is_object ? '}' : ']');
        return NULL;
    }
    if (top->next) {
        buf_add_byte(out, ',');
    }
    uint32_t at = top->next++;
    if (!is_object) {
        return &top->value->items[at];
    }
    json_write_string(out, top->value->members[at].key);
    buf_add_byte(out, ':');
    return &top->value->members[at].value;
}

void json_write_canonical(struct buf *out, const struct json *value)
{
    struct step stack[JSON_DEEP_MAX + 8];
    size_t depth = 0;
    while (value || depth) {
        if (value && (value->type == JSON_OBJECT || value->type == JSON_ARRAY)) {
            ASSERT(depth < COUNT_OF(stack));
            buf_add_byte(out, value->type == JSON_OBJECT ? '{' : '[');
            stack[depth++] = (struct step){value, 0};
        } else if (value) {
            write_scalar(out, value);
        }
        value = NULL;
        while (depth && !value) {
            value = next_child(out, &stack[depth - 1]);
            depth -= value ? 0 : 1;
        }
    }
}

struct slice json_canonical(struct arena *arena, const struct json *value)
{
    struct buf out;
    buf_init_arena(&out, arena, SIZE_MAX / 2);
    json_write_canonical(&out, value);
    return buf_slice(&out);
}

size_t json_depth(const struct json *value)
{
    struct step stack[JSON_DEEP_MAX + 8];
    size_t depth = 0;
    size_t deepest = 0;
    while (value) {
        if (value->type == JSON_OBJECT || value->type == JSON_ARRAY) {
            ASSERT(depth < COUNT_OF(stack));
            stack[depth++] = (struct step){value, 0};
            deepest = depth > deepest ? depth : deepest;
        }
        value = NULL;
        while (depth && !value) {
            struct step *top = &stack[depth - 1];
            if (top->next == top->value->count) {
                depth--;
                continue;
            }
            uint32_t at = top->next++;
            value = top->value->type == JSON_OBJECT ? &top->value->members[at].value
                                                    : &top->value->items[at];
        }
    }
    return deepest;
}

struct err json_check_canonical(const struct json *value)
{
    struct step stack[JSON_DEEP_MAX + 8];
    size_t depth = 0;
    while (value) {
        if (value->type == JSON_NUMBER) {
            return err_public(ERR_SYNTAX, "numbers must be integers within ±(2^53-1)");
        }
        if (value->type == JSON_OBJECT || value->type == JSON_ARRAY) {
            ASSERT(depth < COUNT_OF(stack));
            stack[depth++] = (struct step){value, 0};
        }
        value = NULL;
        while (depth && !value) {
            struct step *top = &stack[depth - 1];
            if (top->next == top->value->count) {
                depth--;
            } else if (top->value->type == JSON_OBJECT) {
                value = &top->value->members[top->next++].value;
            } else {
                value = &top->value->items[top->next++];
            }
        }
    }
    return OK;
}

static bool scalars_eq(const struct json *a, const struct json *b)
{
    switch (a->type) {
    case JSON_NULL:
        return true;
    case JSON_BOOL:
        return a->boolean == b->boolean;
    case JSON_INT:
        return a->integer == b->integer;
    case JSON_NUMBER:
    case JSON_STRING:
        return slice_eq(a->text, b->text);
    case JSON_ARRAY:
    case JSON_OBJECT:
        return a->count == b->count;
    }
    return false;
}

struct pair {
    const struct json *a;
    const struct json *b;
    uint32_t next;
};

/* Moves to the next pair of children; false when the keys differ. a_out is NULL at the end. */
static bool next_pair(struct pair *top, const struct json **a_out, const struct json **b_out)
{
    *a_out = NULL;
    if (top->next == top->a->count) {
        return true;
    }
    uint32_t at = top->next++;
    if (top->a->type == JSON_OBJECT) {
        *a_out = &top->a->members[at].value;
        *b_out = &top->b->members[at].value;
        return slice_eq(top->a->members[at].key, top->b->members[at].key);
    }
    *a_out = &top->a->items[at];
    *b_out = &top->b->items[at];
    return true;
}

bool json_eq(const struct json *a, const struct json *b)
{
    struct pair stack[JSON_DEEP_MAX + 8];
    size_t depth = 0;
    while (a) {
        if (a->type != b->type || !scalars_eq(a, b)) {
            return false;
        }
        if (a->type == JSON_OBJECT || a->type == JSON_ARRAY) {
            ASSERT(depth < COUNT_OF(stack));
            stack[depth++] = (struct pair){a, b, 0};
        }
        a = NULL;
        while (depth && !a) {
            if (!next_pair(&stack[depth - 1], &a, &b)) {
                return false;
            }
            depth -= a ? 0 : 1;
        }
    }
    return true;
}
