#include "homeserver/appservice/registrations.h"

#include "crypto/token.h"
#include "homeserver/base/conf_yaml.h"
#include "homeserver/base/mem.h"

enum { NAMESPACES_MAX = 1000, PROTOCOLS_MAX = 100 };

struct reader {
    struct arena *arena;
    struct slice file, server_name;
    struct buf *problems;
    size_t problem_count;
};

static void report(struct reader *reader, size_t line, const char *path, const char *text)
{
    reader->problem_count++;
    buf_printf(reader->problems, "%.*s:%zu: ", (int)reader->file.len, reader->file.ptr, line);
    if (path) {
        buf_printf(reader->problems, "%s: ", path);
    }
    buf_printf(reader->problems, "%s\n", text);
}

/* --- values --- */

static struct slice read_text(struct reader *reader, const struct conf_node *map, const char *key)
{
    const struct conf_node *node = conf_node_get(map, slice_of(key));
    if (!node) {
        report(reader, map->line, key, "this is required");
    } else if (node->type != CONF_NODE_SCALAR || node->text.len == 0 || conf_node_is_null(node)) {
        report(reader, node->line, key, "expected a text");
    } else if (node->text.len > STORE_ID_BYTES_MAX || !slice_is_utf8(node->text)) {
        report(reader, node->line, key, "expected a text of at most 255 bytes of UTF-8");
    } else {
        return node->text;
    }
    return (struct slice){0};
}

static bool is_visible(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] <= ' ' || text.ptr[i] > '~') {
            return false;
        }
    }
    return true;
}

static struct slice read_token(struct reader *reader, const struct conf_node *map, const char *key)
{
    struct slice token = read_text(reader, map, key);
    if (!is_visible(token)) {
        report(reader, conf_node_get(map, slice_of(key))->line, key,
               "a token is made of visible ASCII characters");
    }
    return token;
}

static bool read_bool(struct reader *reader, const struct conf_node *map, const char *key,
                      bool fallback)
{
    const struct conf_node *node = conf_node_get(map, slice_of(key));
    if (conf_node_is_null(node)) {
        return fallback;
    }
    bool is_true = node->type == CONF_NODE_SCALAR && slice_eq_nocase(node->text, LIT("true"));
    bool is_false = node->type == CONF_NODE_SCALAR && slice_eq_nocase(node->text, LIT("false"));
    if (!node->plain || (!is_true && !is_false)) {
        report(reader, node->line, key, "expected true or false");
        return fallback;
    }
    return is_true;
}

/* Absent and null mean no traffic; so does an empty text, which bridges write for it. */
static struct slice read_url(struct reader *reader, const struct conf_node *map)
{
    const struct conf_node *node = conf_node_get(map, LIT("url"));
    if (!node) {
        report(reader, map->line, "url", "this is required; write null when nothing shall be sent");
        return (struct slice){0};
    }
    if (conf_node_is_null(node) || (node->type == CONF_NODE_SCALAR && node->text.len == 0)) {
        return (struct slice){0};
    }
    struct slice url = node->text;
    if (node->type != CONF_NODE_SCALAR || !is_visible(url) ||
        !(slice_has_prefix(url, LIT("http://")) || slice_has_prefix(url, LIT("https://")))) {
        report(reader, node->line, "url", "expected a URL that begins with http:// or https://");
        return (struct slice){0};
    }
    while (url.ptr[url.len - 1] == '/') {
        url.len--;
    }
    return url;
}

/* --- namespaces --- */

static void read_namespace(struct reader *reader, const struct conf_node *node, const char *path,
                           struct appservice_namespace *out)
{
    const struct conf_node *regex =
        node->type == CONF_NODE_MAP ? conf_node_get(node, LIT("regex")) : NULL;
    if (!regex || regex->type != CONF_NODE_SCALAR || conf_node_is_null(regex)) {
        report(reader, node->line, path, "expected a map with a text `regex`");
        return;
    }
    if (!conf_node_get(node, LIT("exclusive"))) {
        report(reader, node->line, path, "say whether it is `exclusive`");
    }
    out->is_exclusive = read_bool(reader, node, "exclusive", false);
    struct err err = pattern_new(reader->arena, regex->text, &out->pattern);
    if (err.code != 0) {
        report(reader, regex->line, path, err.text);
    }
}

static void read_namespaces(struct reader *reader, const struct conf_node *map, const char *path,
                            struct appservice_namespaces *out)
{
    const struct conf_node *list = conf_node_get(map, slice_of(path));
    if (conf_node_is_null(list)) {
        return;
    }
    if (list->type != CONF_NODE_LIST || list->count > NAMESPACES_MAX) {
        report(reader, list->line, path, "expected a list of at most 1000 namespaces");
        return;
    }
    out->items = arena_array(reader->arena, list->count, sizeof *out->items);
    for (size_t i = 0; i < list->count; i++) {
        read_namespace(reader, list->values[i], path, &out->items[out->count]);
        out->count += out->items[out->count].pattern != NULL;
    }
}

static void read_all_namespaces(struct reader *reader, const struct conf_node *root,
                                struct appservice *service)
{
    const struct conf_node *map = conf_node_get(root, LIT("namespaces"));
    if (!map || (map->type != CONF_NODE_MAP && !conf_node_is_null(map))) {
        report(reader, map ? map->line : root->line, "namespaces",
               "expected a map of users, aliases and rooms");
    } else if (map->type == CONF_NODE_MAP) {
        read_namespaces(reader, map, "users", &service->users);
        read_namespaces(reader, map, "aliases", &service->aliases);
        read_namespaces(reader, map, "rooms", &service->rooms);
    }
}

static void read_protocols(struct reader *reader, const struct conf_node *root,
                           struct appservice *service)
{
    const struct conf_node *list = conf_node_get(root, LIT("protocols"));
    if (conf_node_is_null(list)) {
        return;
    }
    if (list->type != CONF_NODE_LIST || list->count > PROTOCOLS_MAX) {
        report(reader, list->line, "protocols", "expected a list of at most 100 names");
        return;
    }
    service->protocols = arena_array(reader->arena, list->count, sizeof *service->protocols);
    for (size_t i = 0; i < list->count; i++) {
        if (list->values[i]->type != CONF_NODE_SCALAR || list->values[i]->text.len == 0) {
            report(reader, list->values[i]->line, "protocols", "expected a text");
        } else {
            service->protocols[service->protocol_count++] = list->values[i]->text;
        }
    }
}

/* The names in use before and beside the specification's. */
static void read_wishes(struct reader *reader, const struct conf_node *root,
                        struct appservice *service)
{
    bool old = read_bool(reader, root, "de.sorunome.msc2409.push_ephemeral", false);
    bool older = read_bool(reader, root, "push_ephemeral", false);
    bool stable = read_bool(reader, root, "receive_ephemeral", false);
    bool draft = read_bool(reader, root, "org.matrix.msc3202", false);
    service->wants_ephemeral = old || older || stable;
    service->wants_encryption = draft || read_bool(reader, root, "msc3202", false);
    service->wants_to_device = service->wants_ephemeral || service->wants_encryption;
    service->is_rate_limited = read_bool(reader, root, "rate_limited", true);
}

static void read_service(struct reader *reader, const struct conf_node *root,
                         struct appservice *service)
{
    service->id = read_text(reader, root, "id");
    service->url = read_url(reader, root);
    service->hs_token = read_token(reader, root, "hs_token");
    service->as_token_hash = token_hash(read_token(reader, root, "as_token"));
    struct slice localpart = read_text(reader, root, "sender_localpart");
    if (localpart.len > 0) {
        service->sender =
            ids_make_user(reader->arena, localpart, ids_trust_server(reader->server_name)).s;
        if (!ids_is_user(service->sender)) {
            report(reader, conf_node_get(root, LIT("sender_localpart"))->line, "sender_localpart",
                   "this is no user name: write what stands between @ and the colon");
        }
    }
    read_all_namespaces(reader, root, service);
    read_protocols(reader, root, service);
    read_wishes(reader, root, service);
}

struct err as_registration_parse(struct arena *arena, const struct as_registration_text *from,
                                 struct appservice *service_out, struct buf *problems)
{
    struct reader reader = {
        .arena = arena, .file = from->file, .server_name = from->server_name, .problems = problems};
    struct conf_node *root = NULL;
    size_t line = 0;
    *service_out = (struct appservice){0};
    struct err err = conf_yaml_parse(arena, from->text, &root, &line);
    if (err.code != 0) {
        report(&reader, line, NULL, err.text);
        return err;
    }
    if (!root || root->type != CONF_NODE_MAP) {
        report(&reader, 1, NULL, "expected a registration: id, url, as_token, hs_token ...");
    } else {
        read_service(&reader, root, service_out);
    }
    return reader.problem_count == 0 ? OK : err_public(ERR_SYNTAX, "a registration has problems");
}

/* --- all of them --- */

static const char *shared_with(const struct appservice *a, const struct appservice *b)
{
    if (slice_eq(a->id, b->id)) {
        return "id";
    }
    if (slice_eq(sha256_slice(&a->as_token_hash), sha256_slice(&b->as_token_hash))) {
        return "as_token";
    }
    return slice_eq(a->sender, b->sender) ? "sender_localpart" : NULL;
}

static struct err load_one(struct appservice_table *table, const struct conf *conf,
                           struct slice path, struct buf *problems)
{
    struct as_registration_text from = {.file = path, .server_name = conf->server_name};
    struct appservice *service = &table->items[table->count];
    struct err err = conf_yaml_read(table->arena, path, &from.text);
    if (err.code != 0) {
        buf_printf(problems, "%.*s: %s\n", (int)path.len, path.ptr, err.text);
        return err;
    }
    err = as_registration_parse(table->arena, &from, service, problems);
    table->count++; /* its patterns are to be given back */
    for (size_t i = 0; i + 1 < table->count && err.code == 0; i++) {
        const char *what = shared_with(&table->items[i], service);
        if (what) {
            buf_printf(problems, "%.*s:1: another registration has the same %s\n", (int)path.len,
                       path.ptr, what);
            err = err_public(ERR_SYNTAX, "two registrations are not told apart");
        }
    }
    return err;
}

struct err as_registrations_load(const struct conf *conf, struct buf *problems,
                                 struct appservice_table **table_out)
{
    const struct conf_texts *files = &conf->app_service_config_files;
    struct appservice_table *table = mem_alloc(sizeof *table);
    struct err err = OK;
    *table_out = NULL;
    table->arena = arena_new();
    if (files->count > APPSERVICES_MAX) {
        hs_appservice_table_free(&table);
        return err_public(ERR_LIMIT, "there are more than 64 application services");
    }
    table->items = arena_array(table->arena, files->count, sizeof *table->items);
    for (size_t i = 0; i < files->count; i++) {
        struct err problem = load_one(table, conf, files->items[i], problems);
        err = err.code ? err : problem;
    }
    if (err.code != 0) { /* its text may lie in the table */
        hs_appservice_table_free(&table);
        return err_public(err.code, "a registration of an application service has problems");
    }
    *table_out = table;
    return OK;
}
