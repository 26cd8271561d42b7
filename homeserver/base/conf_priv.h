/* Inside of the configuration: settings of one kind. */
#pragma once
#include "homeserver/base/conf.h"
#include "homeserver/base/conf_yaml.h"

enum { CONF_JSON_BYTES_MAX = 1 << 16 };

enum conf_kind {
    CONF_KIND_TEXT,
    CONF_KIND_PATH,
    CONF_KIND_BOOL,
    CONF_KIND_INT,
    CONF_KIND_BYTES,
    CONF_KIND_TIME,
    CONF_KIND_CHOICE,
    CONF_KIND_TEXTS,
    CONF_KIND_PATHS,
    CONF_KIND_JSON,
    CONF_KIND_LISTEN,
};

struct conf_row {
    enum conf_kind kind;
    size_t offset; /* in struct conf */
    struct slice path;
    struct slice fallback;
    int64_t min, max;
    struct slice unit;
    struct slice doc;
};

/* Sets the member of `row` in conf from a node. A problem is a text without place, in the arena;
 * NULL when all is well. `folder` is put before relative paths. */
const char *conf_value_set(struct arena *arena, const struct conf_row *row,
                           const struct conf_node *node, struct slice folder, struct conf *conf);
/* Appends the range of a row for people: "1 .. 65535 port". */
void conf_value_range(struct buf *out, const struct conf_row *row);
