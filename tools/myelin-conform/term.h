/* Values and patterns of the play language. One grammar serves both: a request body is a term that
 * is evaluated, an expectation is a term that is matched. It is JSON, plus variables (`$name`),
 * interpolation in strings ("@x:$server") and words such as `string`, `absent`, `has [...]`.
 * README.md in this folder describes the language. */
#pragma once
#include "homeserver/base/json.h"

enum { TERM_DEPTH_MAX = 48 };

enum term_kind {
    TERM_LITERAL,  /* null, true, false, a number */
    TERM_TEXT,     /* a string; `text` is decoded, `$` still stands in it */
    TERM_VAR,      /* $name */
    TERM_OBJECT,   /* `keys` and `parts`; other members are allowed */
    TERM_EXACTLY,  /* the same, no other member is allowed */
    TERM_ARRAY,    /* `parts` in order; TERM_ELLIPSIS stands for any run of items */
    TERM_ELLIPSIS, /* ... */
    TERM_ANY,      /* present, whatever it is */
    TERM_TYPE,     /* of the type `type` */
    TERM_NONEMPTY, /* a string, array or object with something in it */
    TERM_ABSENT,   /* not there */
    TERM_NOT,
    TERM_AND,
    TERM_OR,
    TERM_HAS,     /* an array in which each part is matched by some item */
    TERM_ONLY,    /* each part by one item, and no item is left */
    TERM_WITHOUT, /* an array in which no item matches any part; absent is fine */
    TERM_LIKE,    /* a string that matches a glob with `*` */
    TERM_COMPARE, /* a number; `text` is the operator */
    TERM_LENGTH,  /* the number of items, members or bytes matches the part */
    TERM_REPEAT,  /* `text` repeated `count` times (value only) */
    TERM_SIGNED,  /* parts: object, user, key id, key variable (value only) */
};

struct term {
    enum term_kind kind;
    enum json_type type;
    struct slice source; /* as written, for messages */
    struct slice text;
    struct json literal;
    struct term *parts;
    struct term *keys; /* TERM_TEXT or TERM_VAR, one for each part of an object */
    size_t count;
};

/* Parses one term at the start of `text`; `rest_out` is what follows it. The tree lives in `arena`
 * and borrows from `text`. ERR_SYNTAX with a text that says what was expected where. */
struct err term_parse(struct arena *arena, struct slice text, struct term *term_out,
                      struct slice *rest_out) MUST_USE;
/* The name behind a `$` (with braces: `${alice/phone.token}`) at the start of `text`; empty when
 * there is none. */
struct slice term_var_name(struct slice text, struct slice *rest_out);
