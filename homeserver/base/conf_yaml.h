/* A YAML text as a tree of nodes that know their lines: the configuration, registrations of
 * application services. JSON is YAML too. */
#pragma once
#include "homeserver/base/buf.h"

enum { CONF_DEPTH_MAX = 16, CONF_TEXT_BYTES_MAX = 1 << 20 };

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
/* The text of a file, at most CONF_TEXT_BYTES_MAX + 1 bytes of it. ERR_IO. */
struct err conf_yaml_read(struct arena *arena, struct slice path, struct slice *text_out) MUST_USE;
/* Whether the node is a scalar that stands for "nothing". NULL counts. */
bool conf_node_is_null(const struct conf_node *node);
/* The value under a key of a map, or NULL. */
struct conf_node *conf_node_get(const struct conf_node *map, struct slice key);
/* Writes a node as JSON; false when it is too deep or too large. */
bool conf_node_write_json(struct buf *out, const struct conf_node *node);
