/* Variables of one scene, and terms evaluated with them. */
#pragma once
#include "tools/myelin-conform/term.h"

struct var {
    struct slice name;
    struct json value;
};

struct vars {
    struct arena *arena;
    struct var *items;
    size_t count;
    uint64_t txn_count;
    struct slice salt; /* random text of this scene; begins every `$txn` */
};

/* NULL when unbound. `txn` is new at every call. */
const struct json *vars_get(struct vars *vars, struct slice name);
void vars_set(struct vars *vars, struct slice name, struct json value);
/* The text with every `$name` replaced; `$$` stands for `$`. ERR_SYNTAX names an unbound variable.
 */
struct err vars_expand(struct vars *vars, struct slice text, struct slice *text_out) MUST_USE;
/* The same for a request path: each value is percent-encoded. */
struct err vars_expand_path(struct vars *vars, struct slice text, struct slice *path_out) MUST_USE;
void vars_percent_encode(struct buf *out, struct slice text);
/* The value of a term that is no pattern. */
struct err vars_value(struct vars *vars, const struct term *term, struct json *value_out) MUST_USE;
