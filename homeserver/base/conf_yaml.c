#include "homeserver/base/conf_yaml.h"

#include "homeserver/base/json_out.h"
#include "homeserver/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

static struct err load(struct arena *arena, struct slice text, yaml_document_t *document,
                       size_t *line_out)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        return err_make(ERR_INTERNAL, "the YAML parser does not start");
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.ptr, text.len);
    struct err err = OK;
    if (!yaml_parser_load(&parser, document)) {
        *line_out = parser.problem_mark.line + 1;
        err = err_publicf(arena, ERR_SYNTAX, "this is not YAML: %s",
                          parser.problem ? parser.problem : "unknown problem");
    }
    yaml_parser_delete(&parser);
    return err;
}

static struct conf_node **children(struct arena *arena, size_t count)
{
    return arena_array(arena, count ? count : 1, sizeof(struct conf_node *));
}

/* Node n of the document becomes nodes[n - 1]; children are found by number, so the order of nodes
 * and the depth of the text do not matter. */
static void convert(struct arena *arena, const yaml_node_t *from, struct conf_node *nodes,
                    struct conf_node *to)
{
    to->line = from->start_mark.line + 1;
    switch (from->type) {
    case YAML_SCALAR_NODE:
        to->type = CONF_NODE_SCALAR;
        to->plain = from->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        to->text = arena_copy(
            arena, (struct slice){(const char *)from->data.scalar.value, from->data.scalar.length});
        break;
    case YAML_SEQUENCE_NODE:
        to->type = CONF_NODE_LIST;
        to->count = (size_t)(from->data.sequence.items.top - from->data.sequence.items.start);
        to->values = children(arena, to->count);
        for (size_t i = 0; i < to->count; i++) {
            to->values[i] = &nodes[from->data.sequence.items.start[i] - 1];
        }
        break;
    case YAML_MAPPING_NODE:
        to->type = CONF_NODE_MAP;
        to->count = (size_t)(from->data.mapping.pairs.top - from->data.mapping.pairs.start);
        to->keys = children(arena, to->count);
        to->values = children(arena, to->count);
        for (size_t i = 0; i < to->count; i++) {
            to->keys[i] = &nodes[from->data.mapping.pairs.start[i].key - 1];
            to->values[i] = &nodes[from->data.mapping.pairs.start[i].value - 1];
        }
        break;
    case YAML_NO_NODE:
        break;
    }
}

struct err conf_yaml_parse(struct arena *arena, struct slice text, struct conf_node **root_out,
                           size_t *line_out)
{
    yaml_document_t document;
    *root_out = NULL;
    *line_out = 1;
    if (text.len > CONF_TEXT_BYTES_MAX) {
        return err_public(ERR_SYNTAX, "the file is larger than 1 MiB");
    }
    TRY(load(arena, text, &document, line_out));
    size_t count = (size_t)(document.nodes.top - document.nodes.start);
    struct conf_node *nodes = arena_array(arena, count ? count : 1, sizeof *nodes);
    for (size_t i = 0; i < count; i++) {
        convert(arena, &document.nodes.start[i], nodes, &nodes[i]);
    }
    *root_out = count ? nodes : NULL;
    yaml_document_delete(&document);
    return OK;
}

struct err conf_yaml_read(struct arena *arena, struct slice path, struct slice *text_out)
{
    FILE *file = fopen(arena_cstr(arena, path), "rb");
    if (!file) {
        return err_publicf(arena, ERR_IO, "the file cannot be opened: %s", strerror(errno));
    }
    char *bytes = mem_alloc_raw(CONF_TEXT_BYTES_MAX + 1);
    size_t size = fread(bytes, 1, CONF_TEXT_BYTES_MAX + 1, file);
    bool failed = ferror(file) != 0;
    int why = errno;
    fclose(file);
    *text_out = arena_copy(arena, (struct slice){bytes, size});
    mem_free(bytes);
    return failed ? err_publicf(arena, ERR_IO, "the file cannot be read: %s", strerror(why)) : OK;
}

bool conf_node_is_null(const struct conf_node *node)
{
    if (!node) {
        return true;
    }
    return node->type == CONF_NODE_SCALAR && node->plain &&
           (node->text.len == 0 || slice_eq(node->text, LIT("~")) ||
            slice_eq(node->text, LIT("null")));
}

struct conf_node *conf_node_get(const struct conf_node *map, struct slice key)
{
    for (size_t i = 0; i < map->count && map->type == CONF_NODE_MAP; i++) {
        if (map->keys[i]->type == CONF_NODE_SCALAR && slice_eq(map->keys[i]->text, key)) {
            return map->values[i];
        }
    }
    return NULL;
}

static void write_scalar(struct buf *out, const struct conf_node *node)
{
    int64_t number = 0;
    if (conf_node_is_null(node)) {
        buf_add(out, LIT("null"));
    } else if (node->plain && slice_parse_i64(node->text, &number)) {
        buf_add_i64(out, number);
    } else if (node->plain &&
               (slice_eq(node->text, LIT("true")) || slice_eq(node->text, LIT("false")))) {
        buf_add(out, node->text);
    } else {
        json_write_string(out, node->text);
    }
}

struct open_node {
    const struct conf_node *node;
    size_t next;
};

/* Writes what stands before child `next`: a comma, and the key in a map. */
static void write_child_head(struct buf *out, const struct open_node *open)
{
    if (open->next > 0) {
        buf_add_byte(out, ',');
    }
    if (open->node->type == CONF_NODE_MAP) {
        json_write_string(out, open->node->keys[open->next]->text);
        buf_add_byte(out, ':');
    }
}

bool conf_node_write_json(struct buf *out, const struct conf_node *node)
{
    struct open_node stack[CONF_DEPTH_MAX];
    size_t depth = 0;
    for (const struct conf_node *next = node;;) {
        if (next && next->type == CONF_NODE_SCALAR) {
            write_scalar(out, next);
        } else if (next) {
            if (depth == CONF_DEPTH_MAX) {
                return false;
            }
            buf_add_byte(out, next->type == CONF_NODE_MAP ? '{' : '[');
            stack[depth++] = (struct open_node){.node = next};
        }
        if (depth == 0 || out->overflow) {
            return !out->overflow;
        }
        struct open_node *top = &stack[depth - 1];
        if (top->next == top->node->count) {
            buf_add_byte(out, top->node->type == CONF_NODE_MAP ? '}' : ']');
            depth--;
            next = NULL;
            continue;
        }
        write_child_head(out, top);
        next = top->node->values[top->next++];
    }
}
