/* Walks the outermost levels of a large JSON text without making a tree of it: members of an
 * object, items of an array, each as its raw bytes. Only the shape is checked; whoever parses a
 * piece checks that piece. Pure. */
#pragma once
#include "homeserver/base/err.h"

struct json_split {
    struct slice text;
    size_t at;
    char close; /* '}' or ']' */
    bool first;
    bool broken; /* the text ended early or was no JSON */
};

/* Begins inside the object or array that `text` is; `broken` is set when it is something else. */
struct json_split json_split_object(struct slice text);
struct json_split json_split_array(struct slice text);
/* The next member: its key (raw bytes between the quotes, so escapes stay) and value. False at the
 * end or when the text is broken. */
bool json_split_member(struct json_split *split, struct slice *key_out, struct slice *value_out);
bool json_split_item(struct json_split *split, struct slice *value_out);
/* The value that a text begins with; empty when there is none. */
struct slice json_split_value(struct slice text);
