#include "tools/myelin-conform/vars.h"
#include "homeserver/base/now.h"
#include "tools/myelin-conform/keys.h"

#include <ctype.h>
#include <string.h>

enum { TEXT_BYTES_MAX = 16 << 20 };

static const struct json *find(const struct vars *vars, struct slice name)
{
    for (size_t i = vars->count; i-- > 0;) {
        if (slice_eq(vars->items[i].name, name)) {
            return &vars->items[i].value;
        }
    }
    return NULL;
}

/* `${uri.media}`: the media id of an mxc:// URI. */
static const struct json *media_of(struct vars *vars, struct slice name)
{
    struct slice server;
    struct slice suffix = LIT(".media");
    struct json *media = arena_alloc(vars->arena, sizeof *media);
    if (!slice_has_suffix(name, suffix)) {
        return NULL;
    }
    const struct json *uri = find(vars, slice_sub(name, 0, name.len - suffix.len));
    if (!uri || uri->type != JSON_STRING || !slice_has_prefix(uri->text, LIT("mxc://"))) {
        return NULL;
    }
    *media = json_string(slice_cut(slice_from(uri->text, 6), '/', &server));
    return media;
}

const struct json *vars_get(struct vars *vars, struct slice name)
{
    if (slice_eq(name, LIT("txn"))) {
        struct json *fresh = arena_alloc(vars->arena, sizeof *fresh);
        *fresh = json_string(arena_printf(vars->arena, "%.*s%llu", (int)vars->salt.len,
                                          vars->salt.ptr, (unsigned long long)++vars->txn_count));
        return fresh;
    }
    if (slice_eq(name, LIT("time_ms"))) {
        struct json *time = arena_alloc(vars->arena, sizeof *time);
        struct now now = now_system();
        *time = json_int(now_wall_ms(&now));
        return time;
    }
    const struct json *value = find(vars, name);
    return value ? value : media_of(vars, name);
}

void vars_set(struct vars *vars, struct slice name, struct json value)
{
    vars->items = arena_grow(vars->arena, vars->items, vars->count * sizeof(struct var),
                             (vars->count + 1) * sizeof(struct var));
    vars->items[vars->count++] = (struct var){name, value};
}

static struct err unbound(struct vars *vars, struct slice name)
{
    return err_publicf(vars->arena, ERR_SYNTAX, "the variable $%.*s has no value here",
                       (int)name.len, name.ptr);
}

static struct slice value_text(struct vars *vars, const struct json *value)
{
    return value->type == JSON_STRING ? value->text : json_canonical(vars->arena, value);
}

void vars_percent_encode(struct buf *out, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char byte = (unsigned char)text.ptr[i];
        if (isalnum(byte) || (byte && strchr("-._~", byte))) {
            buf_add_byte(out, (char)byte);
        } else {
            buf_printf(out, "%%%02X", byte);
        }
    }
}

/* Bytes of a written path that a URL cannot hold as they are: `#`, quotes, braces, non-ASCII. */
static void add_path_text(struct buf *out, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char byte = (unsigned char)text.ptr[i];
        if (byte >= 0x80 || (byte && strchr("#\"<>{}|^`", byte))) {
            buf_printf(out, "%%%02X", byte);
        } else {
            buf_add_byte(out, (char)byte);
        }
    }
}

/* A value in a path; an mxc:// URI stands for its server and media id, two path segments. */
static void add_path_value(struct buf *out, struct slice text)
{
    if (slice_has_prefix(text, LIT("mxc://"))) {
        struct slice server;
        struct slice media_id = slice_cut(slice_from(text, 6), '/', &server);
        vars_percent_encode(out, server);
        buf_add_byte(out, '/');
        text = media_id;
    }
    vars_percent_encode(out, text);
}

static struct err expand(struct vars *vars, struct slice text, bool is_path, struct slice *out)
{
    struct buf buf;
    buf_init_arena(&buf, vars->arena, TEXT_BYTES_MAX);
    while (text.len > 0) {
        size_t dollar = slice_find(text, '$');
        if (is_path) {
            add_path_text(&buf, slice_sub(text, 0, dollar));
        } else {
            buf_add(&buf, slice_sub(text, 0, dollar));
        }
        text = slice_from(text, dollar);
        if (text.len == 0) {
            break;
        }
        if (text.len > 1 && text.ptr[1] == '$') {
            buf_add_byte(&buf, '$');
            text = slice_from(text, 2);
            continue;
        }
        struct slice name = term_var_name(text, &text);
        const struct json *value = name.len > 0 ? vars_get(vars, name) : NULL;
        if (!value) {
            return unbound(vars, name);
        }
        if (is_path) {
            add_path_value(&buf, value_text(vars, value));
        } else {
            buf_add(&buf, value_text(vars, value));
        }
    }
    *out = buf_slice(&buf);
    return buf_check(&buf);
}

struct err vars_expand(struct vars *vars, struct slice text, struct slice *text_out)
{
    if (slice_find(text, '$') == text.len) {
        *text_out = text;
        return OK;
    }
    return expand(vars, text, false, text_out);
}

struct err vars_expand_path(struct vars *vars, struct slice text, struct slice *path_out)
{
    return expand(vars, text, true, path_out);
}

static struct err value_of_object(struct vars *vars, const struct term *term, struct json *out)
{
    *out = json_object();
    for (size_t i = 0; i < term->count; i++) {
        struct json key;
        struct json value;
        TRY(vars_value(vars, &term->keys[i], &key));
        TRY(vars_value(vars, &term->parts[i], &value));
        json_set(vars->arena, out, value_text(vars, &key), value);
    }
    return OK;
}

static struct err value_of_array(struct vars *vars, const struct term *term, struct json *out)
{
    *out = json_array();
    for (size_t i = 0; i < term->count; i++) {
        struct json value;
        TRY(vars_value(vars, &term->parts[i], &value));
        json_push(vars->arena, out, value);
    }
    return OK;
}

static struct err value_of_signed(struct vars *vars, const struct term *term, struct json *out)
{
    struct json user;
    struct json key_id;
    TRY(vars_value(vars, &term->parts[0], out));
    TRY(vars_value(vars, &term->parts[1], &user));
    TRY(vars_value(vars, &term->parts[2], &key_id));
    if (term->parts[3].kind != TERM_VAR || out->type != JSON_OBJECT) {
        return err_public(ERR_SYNTAX, "signed wants an object and, after `with`, a key variable");
    }
    struct slice secret_name = arena_concat(vars->arena, term->parts[3].text, LIT(".secret"));
    const struct json *secret = vars_get(vars, secret_name);
    if (!secret) {
        return unbound(vars, secret_name);
    }
    return keys_sign(
        vars->arena, out,
        &(struct keys_signer){.user_id = user.text, .key_id = key_id.text, .secret = secret->text});
}

static struct err value_of_repeat(struct vars *vars, const struct term *term, struct json *out)
{
    struct buf buf;
    buf_init_arena(&buf, vars->arena, TEXT_BYTES_MAX);
    for (size_t i = 0; i < term->count; i++) {
        buf_add(&buf, term->text);
    }
    *out = json_string(buf_slice(&buf));
    return buf_check(&buf);
}

struct err vars_value(struct vars *vars, const struct term *term, struct json *value_out)
{
    if (term->kind == TERM_LITERAL) {
        *value_out = term->literal;
        return OK;
    }
    if (term->kind == TERM_TEXT) {
        struct slice text;
        TRY(vars_expand(vars, term->text, &text));
        *value_out = json_string(text);
        return OK;
    }
    if (term->kind == TERM_VAR) {
        const struct json *value = vars_get(vars, term->text);
        if (!value) {
            return unbound(vars, term->text);
        }
        *value_out = *value;
        return OK;
    }
    if (term->kind == TERM_OBJECT || term->kind == TERM_EXACTLY) {
        return value_of_object(vars, term, value_out);
    }
    if (term->kind == TERM_ARRAY) {
        return value_of_array(vars, term, value_out);
    }
    if (term->kind == TERM_REPEAT) {
        return value_of_repeat(vars, term, value_out);
    }
    if (term->kind == TERM_SIGNED) {
        return value_of_signed(vars, term, value_out);
    }
    return err_publicf(vars->arena, ERR_SYNTAX, "`%.*s` is a pattern, not a value",
                       (int)term->source.len, term->source.ptr);
}
