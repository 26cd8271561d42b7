#include "homeserver/base/conf_priv.h"

enum { OPEN_MAPS_MAX = 64, SUGGEST_DISTANCE_MAX = 4, NAME_BYTES_MAX = 64 };

static const struct conf_row rows[] = {
#define SECTION(path, doc)
#define CONF(kind, field, path, fallback, min, max, unit, doc)                                     \
    {CONF_KIND_##kind,                                                                             \
     offsetof(struct conf, field),                                                                 \
     {(path), sizeof(path) - 1},                                                                   \
     {(fallback), sizeof(fallback) - 1},                                                           \
     (min),                                                                                        \
     (max),                                                                                        \
     {(unit), sizeof(unit) - 1},                                                                   \
     {(doc), sizeof(doc) - 1}},
#include "homeserver/base/conf.def"
#undef CONF
#undef SECTION
};

/* Where a section's comment goes in the example. */
struct section {
    struct slice path;
    struct slice doc;
};
static const struct section sections[] = {
#define SECTION(path, doc) {{(path), sizeof(path) - 1}, {(doc), sizeof(doc) - 1}},
#define CONF(kind, field, path, fallback, min, max, unit, doc)
#include "homeserver/base/conf.def"
#undef CONF
#undef SECTION
};

static const char problems_text[] = "the configuration has problems";

struct reader {
    struct arena *arena;
    struct slice file, folder;
    struct conf *conf;
    struct buf *problems;
    size_t lines[COUNT_OF(rows)]; /* where a row was set; 0 = not */
    size_t problem_count;
};

/* A map that is still to be read, and the path in front of its keys ("tls."). */
struct open_map {
    const struct conf_node *map;
    struct slice prefix;
};

static void report(struct reader *reader, size_t line, struct slice path, const char *text)
{
    reader->problem_count++;
    buf_add(reader->problems, reader->file);
    if (line > 0) {
        buf_printf(reader->problems, ":%zu", line);
    }
    buf_add(reader->problems, LIT(": "));
    if (path.len > 0) {
        buf_printf(reader->problems, "%.*s: ", (int)path.len, path.ptr);
    }
    buf_printf(reader->problems, "%s\n", text);
}

static size_t min_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein distance; names are cut to NAME_BYTES_MAX. */
static size_t name_distance(struct slice a, struct slice b)
{
    size_t row[NAME_BYTES_MAX + 1];
    size_t b_len = min_of(b.len, NAME_BYTES_MAX);
    for (size_t j = 0; j <= b_len; j++) {
        row[j] = j;
    }
    for (size_t i = 0; i < min_of(a.len, NAME_BYTES_MAX); i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_len; j++) {
            size_t replace = diagonal + (a.ptr[i] != b.ptr[j]);
            diagonal = row[j + 1];
            row[j + 1] = min_of(replace, min_of(row[j], row[j + 1]) + 1);
        }
    }
    return row[b_len];
}

static void report_unknown(struct reader *reader, size_t line, struct slice path)
{
    size_t best = SUGGEST_DISTANCE_MAX;
    struct slice guess = {0};
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t distance = name_distance(path, rows[i].path);
        if (distance < best) {
            best = distance;
            guess = rows[i].path;
        }
    }
    const char *text = "there is no such setting";
    if (guess.ptr) {
        text = arena_printf(reader->arena, "there is no such setting; did you mean %s?", guess.ptr)
                   .ptr;
    }
    report(reader, line, path, text);
}

static bool is_section(struct slice path)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (slice_has_prefix(rows[i].path, path) && rows[i].path.len > path.len &&
            rows[i].path.ptr[path.len] == '.') {
            return true;
        }
    }
    return false;
}

static void read_row(struct reader *reader, size_t index, const struct conf_node *key,
                     const struct conf_node *value)
{
    if (reader->lines[index] != 0) {
        report(reader, key->line, rows[index].path, "this setting stands twice; keep one");
        return;
    }
    reader->lines[index] = key->line;
    if (conf_node_is_null(value)) {
        return;
    }
    const char *text =
        conf_value_set(reader->arena, &rows[index], value, reader->folder, reader->conf);
    if (text) {
        report(reader, value->line, rows[index].path, text);
    }
}

/* Reads one key; a section's map comes back in open_out. */
static bool read_key(struct reader *reader, struct open_map *at, size_t i,
                     struct open_map *open_out)
{
    const struct conf_node *key = at->map->keys[i];
    const struct conf_node *value = at->map->values[i];
    struct slice path = arena_concat(reader->arena, at->prefix,
                                     key->type == CONF_NODE_SCALAR ? key->text : LIT("?"));
    for (size_t row = 0; row < COUNT_OF(rows); row++) {
        if (slice_eq(rows[row].path, path)) {
            read_row(reader, row, key, value);
            return false;
        }
    }
    if (!is_section(path)) {
        report_unknown(reader, key->line, path);
        return false;
    }
    if (conf_node_is_null(value)) {
        return false;
    }
    if (value->type != CONF_NODE_MAP) {
        report(reader, value->line, path, "this is a section: expected keys and values");
        return false;
    }
    *open_out = (struct open_map){value, arena_concat(reader->arena, path, LIT("."))};
    return true;
}

/* Maps are read in the order in which they were met. */
struct open_maps {
    struct open_map items[OPEN_MAPS_MAX];
    size_t count;
};

static void read_map(struct reader *reader, struct open_maps *open, size_t at)
{
    for (size_t i = 0; i < open->items[at].map->count; i++) {
        struct open_map section;
        if (!read_key(reader, &open->items[at], i, &section)) {
            continue;
        }
        if (open->count == OPEN_MAPS_MAX) {
            report(reader, section.map->line, section.prefix, "too many sections");
            return;
        }
        open->items[open->count++] = section;
    }
}

static void read_tree(struct reader *reader, const struct conf_node *root)
{
    struct open_maps open = {.items = {{.map = root}}, .count = 1};
    for (size_t at = 0; at < open.count; at++) {
        read_map(reader, &open, at);
    }
}

/* Sets every row to its default. The defaults are text of the same form as the file's values. */
static void set_defaults(struct arena *arena, struct slice folder, struct conf *conf)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct conf_node *root = NULL;
        size_t line = 0;
        if (rows[i].fallback.len == 0) {
            continue;
        }
        struct err err = conf_yaml_parse(arena, rows[i].fallback, &root, &line);
        ASSERT(err.code == 0);
        ASSERT(conf_value_set(arena, &rows[i], root, folder, conf) == NULL);
    }
}

static size_t line_of(const struct reader *reader, struct slice path)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (slice_eq(rows[i].path, path)) {
            return reader->lines[i] ? reader->lines[i] : 1;
        }
    }
    return 1;
}

static void check(struct reader *reader, bool fine, struct slice path, const char *text)
{
    if (!fine) {
        report(reader, line_of(reader, path), path, text);
    }
}

static bool is_server_name(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '-' || c == ':' || c == '[' || c == ']';
        if (!fine) {
            return false;
        }
    }
    return true;
}

static bool listeners_differ(const struct conf *conf)
{
    for (size_t i = 0; i < conf->listen.count; i++) {
        const struct conf_listener *one = &conf->listen.items[i];
        for (size_t j = 0; j < i; j++) {
            const struct conf_listener *other = &conf->listen.items[j];
            if (one->port != 0 && one->port == other->port && slice_eq(one->host, other->host)) {
                return false;
            }
        }
        if (one->port != 0 && one->port == conf->admin_port &&
            slice_eq(one->host, conf->admin_host)) {
            return false;
        }
    }
    return true;
}

/* Settings that do not go together. */
static void check_combinations(struct reader *reader)
{
    const struct conf *conf = reader->conf;
    check(reader, conf->server_name.len > 0, LIT("server_name"),
          "this setting is required: a host name, as in example.org or example.org:8448");
    check(reader, is_server_name(conf->server_name), LIT("server_name"),
          "this is no server name: expected a host name, as in example.org or example.org:8448");
    check(reader,
          conf->public_baseurl.len == 0 ||
              slice_has_prefix(conf->public_baseurl, LIT("https://")) ||
              slice_has_prefix(conf->public_baseurl, LIT("http://")),
          LIT("public_baseurl"), "the URL must begin with https:// or http://");
    check(reader, listeners_differ(conf), LIT("listen"),
          "two listeners have the same address and port; admin counts too");
    check(reader, (conf->tls_certificate.len == 0) == (conf->tls_key.len == 0),
          LIT("tls.certificate"), "set tls.certificate and tls.key together or none of them");
    check(reader, !conf->registration_require_token || conf->registration_open,
          LIT("registration.require_token"), "this needs registration.open: true");
    check(reader, conf->memory_store_cache + conf->memory_state_cache <= conf->memory_budget,
          LIT("memory.budget"), "the caches are larger than the whole budget; raise it");
    check(reader, !conf->server_notices_enabled || conf->server_notices_user.len > 0,
          LIT("server_notices.user"), "server notices need a user who sends them");
    check(reader, conf->admin_port == 0 || conf->admin_host.len > 0, LIT("admin.host"),
          "the admin listener needs an address");
}

static struct err read_text(struct reader *reader, struct slice text)
{
    struct conf_node *root = NULL;
    size_t line = 0;
    *reader->conf = (struct conf){0};
    set_defaults(reader->arena, reader->folder, reader->conf);
    struct err err = conf_yaml_parse(reader->arena, text, &root, &line);
    if (err.code != 0) {
        report(reader, line, (struct slice){0}, err.text);
        return err_public(err.code, problems_text);
    }
    if (root && root->type != CONF_NODE_MAP) {
        report(reader, root->line, (struct slice){0}, "expected settings as keys and values");
    } else {
        if (root) {
            read_tree(reader, root);
        }
        check_combinations(reader);
    }
    return reader->problem_count == 0 ? OK : err_public(ERR_SYNTAX, problems_text);
}

struct err conf_parse(struct arena *arena, struct slice text, struct slice file,
                      struct conf *conf_out, struct buf *problems)
{
    struct reader reader = {.arena = arena, .file = file, .conf = conf_out, .problems = problems};
    return read_text(&reader, text);
}

struct err conf_load(struct arena *arena, struct slice path, struct conf *conf_out,
                     struct buf *problems)
{
    struct slice text;
    struct reader reader = {.arena = arena, .file = path, .conf = conf_out, .problems = problems};
    struct err err = conf_yaml_read(arena, path, &text);
    if (err.code != 0) {
        report(&reader, 0, (struct slice){0}, err.text);
        return err_public(err.code, problems_text);
    }
    size_t slash = slice_find_last(path, '/');
    reader.folder = slash < path.len ? slice_sub(path, 0, slash ? slash : 1) : LIT(".");
    return read_text(&reader, text);
}

void conf_defaults(struct arena *arena, struct slice server_name, struct conf *conf_out)
{
    *conf_out = (struct conf){0};
    set_defaults(arena, (struct slice){0}, conf_out);
    conf_out->server_name = server_name;
}

static void write_section(struct buf *out, struct slice path, int indent)
{
    size_t dot = slice_find_last(path, '.');
    struct slice name = dot < path.len ? slice_from(path, dot + 1) : path;
    if (indent == 0) {
        buf_add_byte(out, '\n');
    }
    for (size_t i = 0; i < COUNT_OF(sections); i++) {
        if (slice_eq(sections[i].path, path)) {
            buf_printf(out, "# %s\n", sections[i].doc.ptr);
        }
    }
    buf_printf(out, "%*s%.*s:\n", indent, "", (int)name.len, name.ptr);
}

/* The example opens each section of a path that the row before had not open. */
static void write_sections(struct buf *out, struct slice path, struct slice before)
{
    int indent = 0;
    for (size_t i = 0; i < path.len; i++) {
        if (path.ptr[i] != '.') {
            continue;
        }
        if (!slice_has_prefix(before, slice_sub(path, 0, i + 1))) {
            write_section(out, slice_sub(path, 0, i), indent);
        }
        indent += 4;
    }
}

void conf_write_example(struct buf *out, struct slice server_name)
{
    struct slice before = {0};
    buf_add(out, LIT("# Settings of the Myelin homeserver. Every setting stands here with its "
                     "default; what is deleted\n# keeps its default. The range stands in "
                     "brackets.\n"));
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct conf_row *row = &rows[i];
        size_t depth = 0;
        for (size_t k = 0; k < row->path.len; k++) {
            depth += row->path.ptr[k] == '.';
        }
        int indent = (int)depth * 4;
        write_sections(out, row->path, before);
        buf_printf(out, "%*s# %s [", indent, "", row->doc.ptr);
        conf_value_range(out, row);
        size_t dot = slice_find_last(row->path, '.');
        struct slice name = depth ? slice_from(row->path, dot + 1) : row->path;
        struct slice value = i == 0 ? server_name : row->fallback;
        buf_printf(out, "]\n%*s%.*s:%s%.*s\n", indent, "", (int)name.len, name.ptr,
                   value.len ? " " : "", (int)value.len, value.ptr);
        before = row->path;
    }
}
