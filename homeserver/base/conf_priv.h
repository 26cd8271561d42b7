/* Inside of the configuration: the YAML text as a tree of nodes, and settings of one kind. */
#pragma once
#include "homeserver/base/conf.h"

enum { CONF_DEPTH_MAX = 16, CONF_TEXT_BYTES_MAX = 1 << 20, CONF_JSON_BYTES_MAX = 1 << 16 };

enum conf_node_type { CONF_NODE_SCALAR, CONF_NODE_LIST, CONF_NODE_MAP };

/* Lists: `values`; maps: `keys` beside `values`. Aliases may make the tree a graph with cycles. */
struct conf_node {
    enum conf_node_type type;
    size_t line;       /* from 1 */
    struct slice text; /* of a scalar */
    bool plain;        /* scalar without quotes: may be a number, a boolean or null */
    struct conf_node **keys;
    struct conf_node **values;
    size_t count;
};

/* Reads one YAML document into the arena; NULL root for an empty one. ERR_SYNTAX with the line in
 * line_out. */
struct err conf_yaml_parse(struct arena *arena, struct slice text, struct conf_node **root_out,
                           size_t *line_out) MUST_USE;
/* Whether the node is a scalar that stands for "nothing". NULL counts. */
bool conf_node_is_null(const struct conf_node *node);
/* The value under a key of a map, or NULL. */
struct conf_node *conf_node_get(const struct conf_node *map, struct slice key);
/* Writes a node as JSON; false when it is too deep or too large. */
bool conf_node_write_json(struct buf *out, const struct conf_node *node);

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
