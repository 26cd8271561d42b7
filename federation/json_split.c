#include "federation/json_split.h"

static void skip_space(struct json_split *split)
{
    while (split->at < split->text.len) {
        char c = split->text.ptr[split->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
            return;
        }
        split->at++;
    }
}

/* The next byte after white space, or NUL at the end. */
static char peek(struct json_split *split)
{
    skip_space(split);
    return split->at < split->text.len ? split->text.ptr[split->at] : '\0';
}

static struct json_split begin(struct slice text, char open, char close)
{
    struct json_split split = {.text = text, .close = close, .first = true};
    split.broken = peek(&split) != open;
    split.at++;
    return split;
}

struct json_split json_split_object(struct slice text)
{
    return begin(text, '{', '}');
}

struct json_split json_split_array(struct slice text)
{
    return begin(text, '[', ']');
}

/* From an opening quote to behind the closing one. */
static bool skip_string(struct json_split *split)
{
    for (size_t i = split->at + 1; i < split->text.len; i++) {
        char c = split->text.ptr[i];
        if (c == '\\') {
            i++;
        } else if (c == '"') {
            split->at = i + 1;
            return true;
        }
    }
    return false;
}

/* A number or a word. */
static bool skip_plain(struct json_split *split)
{
    size_t from = split->at;
    while (split->at < split->text.len) {
        char c = split->text.ptr[split->at];
        if (c == ',' || c == '}' || c == ']' || c == ' ' || c == '\n' || c == '\r' || c == '\t') {
            break;
        }
        split->at++;
    }
    return split->at > from;
}

static bool skip_nested(struct json_split *split)
{
    size_t depth = 0;
    while (split->at < split->text.len) {
        char c = split->text.ptr[split->at];
        if (c == '"') {
            if (!skip_string(split)) {
                return false;
            }
            continue;
        }
        split->at++;
        if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && --depth == 0) {
            return true;
        }
    }
    return false;
}

static bool take_value(struct json_split *split, struct slice *value_out)
{
    bool whole = false;
    char c = peek(split);
    size_t from = split->at;
    if (c == '"') {
        whole = skip_string(split);
    } else if (c == '{' || c == '[') {
        whole = skip_nested(split);
    } else {
        whole = skip_plain(split);
    }
    split->broken = !whole;
    *value_out = slice_sub(split->text, from, split->at - from);
    return whole;
}

/* Passes the comma before the next piece; false at the closing bracket. */
static bool advance(struct json_split *split)
{
    if (split->broken || peek(split) == split->close) {
        return false;
    }
    if (!split->first) {
        split->broken = peek(split) != ',';
        split->at++;
    }
    split->first = false;
    return !split->broken;
}

bool json_split_item(struct json_split *split, struct slice *value_out)
{
    return advance(split) && take_value(split, value_out);
}

struct slice json_split_value(struct slice text)
{
    struct json_split split = {.text = text};
    struct slice value = {0};
    return take_value(&split, &value) ? value : (struct slice){0};
}

bool json_split_member(struct json_split *split, struct slice *key_out, struct slice *value_out)
{
    if (!advance(split)) {
        return false;
    }
    size_t from = 0;
    split->broken = peek(split) != '"';
    from = split->at;
    if (split->broken || !skip_string(split)) {
        split->broken = true;
        return false;
    }
    *key_out = slice_sub(split->text, from + 1, split->at - from - 2);
    split->broken = peek(split) != ':';
    split->at++;
    return !split->broken && take_value(split, value_out);
}
