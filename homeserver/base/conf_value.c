#include "homeserver/base/conf_priv.h"

struct suffix {
    struct slice text;
    int64_t factor;
};

static const struct suffix byte_suffixes[] = {
    {{"", 0}, 1},
    {{"K", 1}, 1024},
    {{"M", 1}, 1024 * 1024},
    {{"G", 1}, 1024 * 1024 * 1024},
};
static const struct suffix time_suffixes[] = {
    {{"ms", 2}, 1},      {{"s", 1}, 1000},     {{"m", 1}, 60000},
    {{"h", 1}, 3600000}, {{"d", 1}, 86400000}, {{"w", 1}, 604800000},
};

/* A number with one of the suffixes; a bare 0 needs none. */
static bool parse_suffixed(struct slice text, const struct suffix *suffixes, size_t count,
                           int64_t *value_out)
{
    size_t digits = 0;
    while (digits < text.len && text.ptr[digits] >= '0' && text.ptr[digits] <= '9') {
        digits++;
    }
    int64_t number = 0;
    if (!slice_parse_i64(slice_sub(text, 0, digits), &number)) {
        return false;
    }
    struct slice rest = slice_from(text, digits);
    if (number == 0 && rest.len == 0) {
        *value_out = 0;
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(rest, suffixes[i].text)) {
            return !__builtin_mul_overflow(number, suffixes[i].factor, value_out);
        }
    }
    return false;
}

static const char *problem(struct arena *arena, const char *what, const struct conf_row *row)
{
    struct buf range;
    buf_init_arena(&range, arena, 512);
    conf_value_range(&range, row);
    return arena_printf(arena, "%s (%.*s)", what, (int)range.len, range.ptr).ptr;
}

static const char *set_number(struct arena *arena, const struct conf_row *row,
                              const struct conf_node *node, int64_t *value)
{
    bool ok = false;
    if (node->type == CONF_NODE_SCALAR && node->plain) {
        if (row->kind == CONF_KIND_INT) {
            ok = slice_parse_i64(node->text, value);
        } else if (row->kind == CONF_KIND_BYTES) {
            ok = parse_suffixed(node->text, byte_suffixes, COUNT_OF(byte_suffixes), value);
        } else {
            ok = parse_suffixed(node->text, time_suffixes, COUNT_OF(time_suffixes), value);
        }
    }
    if (!ok) {
        return problem(arena, "expected a number", row);
    }
    return *value < row->min || *value > row->max ? problem(arena, "the value is out of range", row)
                                                  : NULL;
}

static const char *set_choice(struct arena *arena, const struct conf_row *row,
                              const struct conf_node *node, int64_t *value)
{
    struct slice rest = row->unit;
    for (int64_t i = 0; rest.ptr; i++) {
        struct slice choice;
        rest = slice_cut(rest, '|', &choice);
        if (node->type == CONF_NODE_SCALAR && slice_eq(choice, node->text)) {
            *value = i;
            return NULL;
        }
    }
    return problem(arena, "expected one of the choices", row);
}

static const char *set_bool(struct arena *arena, const struct conf_row *row,
                            const struct conf_node *node, bool *value)
{
    bool is_true = slice_eq(node->text, LIT("true"));
    bool is_false = slice_eq(node->text, LIT("false"));
    if (node->type != CONF_NODE_SCALAR || !node->plain || (!is_true && !is_false)) {
        return problem(arena, "expected true or false", row);
    }
    *value = is_true;
    return NULL;
}

static struct slice place_path(struct arena *arena, struct slice folder, struct slice path)
{
    if (folder.len == 0 || path.len == 0 || path.ptr[0] == '/') {
        return path;
    }
    return arena_printf(arena, "%.*s/%.*s", (int)folder.len, folder.ptr, (int)path.len, path.ptr);
}

static const char *set_text(struct arena *arena, const struct conf_row *row,
                            const struct conf_node *node, struct slice folder, struct slice *value)
{
    if (node->type != CONF_NODE_SCALAR) {
        return problem(arena, "expected a text", row);
    }
    if ((int64_t)node->text.len < row->min || (int64_t)node->text.len > row->max) {
        return problem(arena, "the length of the text is out of range", row);
    }
    *value = row->kind == CONF_KIND_PATH ? place_path(arena, folder, node->text) : node->text;
    return NULL;
}

static const char *set_texts(struct arena *arena, const struct conf_row *row,
                             const struct conf_node *node, struct slice folder,
                             struct conf_texts *value)
{
    if (node->type != CONF_NODE_LIST) {
        return problem(arena, "expected a list", row);
    }
    if ((int64_t)node->count < row->min || (int64_t)node->count > row->max) {
        return problem(arena, "the number of items is out of range", row);
    }
    value->items = arena_array(arena, node->count + 1, sizeof *value->items);
    for (size_t i = 0; i < node->count; i++) {
        if (node->values[i]->type != CONF_NODE_SCALAR || node->values[i]->text.len == 0) {
            return problem(arena, "expected a list of texts", row);
        }
        struct slice text = node->values[i]->text;
        value->items[i] = row->kind == CONF_KIND_PATHS ? place_path(arena, folder, text) : text;
    }
    value->count = node->count;
    return NULL;
}

static const char *set_listener(struct arena *arena, const struct conf_row *row,
                                const struct conf_node *node, struct conf_listener *value)
{
    struct conf_row port_row = {.kind = CONF_KIND_INT, .max = 65535, .unit = LIT("port")};
    if (node->type != CONF_NODE_MAP) {
        return problem(arena, "expected items of the form {host, port, tls}", row);
    }
    for (size_t i = 0; i < node->count; i++) {
        struct slice key = node->keys[i]->text;
        const struct conf_node *item = node->values[i];
        const char *text = NULL;
        int64_t port = 0;
        if (slice_eq(key, LIT("host"))) {
            text = item->type == CONF_NODE_SCALAR && item->text.len > 0
                       ? NULL
                       : problem(arena, "host must be an address", row);
            value->host = item->text;
        } else if (slice_eq(key, LIT("port"))) {
            text = set_number(arena, &port_row, item, &port);
            value->port = (uint16_t)port;
        } else if (slice_eq(key, LIT("tls"))) {
            text = set_bool(arena, row, item, &value->tls);
        } else {
            text = problem(arena, "a listener has no such member", row);
        }
        if (text) {
            return text;
        }
    }
    return conf_node_get(node, LIT("host")) && conf_node_get(node, LIT("port"))
               ? NULL
               : problem(arena, "a listener needs host and port", row);
}

static const char *set_listen(struct arena *arena, const struct conf_row *row,
                              const struct conf_node *node, struct conf_listeners *value)
{
    if (node->type != CONF_NODE_LIST || (int64_t)node->count < row->min ||
        (int64_t)node->count > row->max) {
        return problem(arena, "expected a list of listeners", row);
    }
    value->items = arena_array(arena, node->count, sizeof *value->items);
    for (size_t i = 0; i < node->count; i++) {
        const char *text = set_listener(arena, row, node->values[i], &value->items[i]);
        if (text) {
            return text;
        }
    }
    value->count = node->count;
    return NULL;
}

static const char *set_json(struct arena *arena, const struct conf_row *row,
                            const struct conf_node *node, struct slice *value)
{
    struct buf json;
    buf_init_arena(&json, arena, CONF_JSON_BYTES_MAX);
    if (node->type != CONF_NODE_MAP) {
        return problem(arena, "expected keys and values", row);
    }
    if (!conf_node_write_json(&json, node)) {
        return problem(arena, "the value is too large or too deep", row);
    }
    *value = buf_slice(&json);
    return NULL;
}

const char *conf_value_set(struct arena *arena, const struct conf_row *row,
                           const struct conf_node *node, struct slice folder, struct conf *conf)
{
    void *member = (char *)conf + row->offset;
    switch (row->kind) {
    case CONF_KIND_TEXT:
    case CONF_KIND_PATH:
        return set_text(arena, row, node, folder, member);
    case CONF_KIND_BOOL:
        return set_bool(arena, row, node, member);
    case CONF_KIND_INT:
    case CONF_KIND_BYTES:
    case CONF_KIND_TIME:
        return set_number(arena, row, node, member);
    case CONF_KIND_CHOICE:
        return set_choice(arena, row, node, member);
    case CONF_KIND_TEXTS:
    case CONF_KIND_PATHS:
        return set_texts(arena, row, node, folder, member);
    case CONF_KIND_JSON:
        return set_json(arena, row, node, member);
    case CONF_KIND_LISTEN:
        return set_listen(arena, row, node, member);
    }
    return NULL;
}

static void add_suffixed(struct buf *out, int64_t value, const struct suffix *suffixes,
                         size_t count)
{
    size_t best = 0;
    for (size_t i = 0; i < count; i++) {
        if (value != 0 && value % suffixes[i].factor == 0) {
            best = i;
        }
    }
    buf_add_i64(out, value / suffixes[best].factor);
    if (value != 0) {
        buf_add(out, suffixes[best].text);
    }
}

void conf_value_range(struct buf *out, const struct conf_row *row)
{
    switch (row->kind) {
    case CONF_KIND_BOOL:
        buf_add(out, LIT("true or false"));
        return;
    case CONF_KIND_CHOICE:
        buf_add(out, row->unit);
        return;
    case CONF_KIND_BYTES:
        add_suffixed(out, row->min, byte_suffixes, COUNT_OF(byte_suffixes));
        buf_add(out, LIT(" .. "));
        add_suffixed(out, row->max, byte_suffixes, COUNT_OF(byte_suffixes));
        buf_add(out, LIT(", bytes, or with K, M or G"));
        return;
    case CONF_KIND_TIME:
        add_suffixed(out, row->min, time_suffixes, COUNT_OF(time_suffixes));
        buf_add(out, LIT(" .. "));
        add_suffixed(out, row->max, time_suffixes, COUNT_OF(time_suffixes));
        buf_add(out, LIT(", with ms, s, m, h, d or w"));
        return;
    case CONF_KIND_INT:
        buf_printf(out, "%lld .. %lld ", (long long)row->min, (long long)row->max);
        break;
    case CONF_KIND_TEXT:
    case CONF_KIND_PATH:
        buf_printf(out, "at %s %lld bytes, ", row->min > 0 ? "least 1 and at most" : "most",
                   (long long)row->max);
        break;
    case CONF_KIND_TEXTS:
    case CONF_KIND_PATHS:
    case CONF_KIND_LISTEN:
        buf_printf(out, "%lld .. %lld items, ", (long long)row->min, (long long)row->max);
        break;
    case CONF_KIND_JSON:
        break;
    }
    buf_add(out, row->unit);
}
