#include "federation/xmatrix.h"

#include <string.h>

struct parameter {
    struct slice name, value;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static struct slice skip_spaces(struct slice rest)
{
    size_t at = 0;
    while (at < rest.len && is_space(rest.ptr[at])) {
        at++;
    }
    return slice_from(rest, at);
}

/* Spec: RFC 9110, 5.6.2, tokens. */
static bool is_token_char(char c)
{
    bool alphanumeric = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return alphanumeric || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c));
}

/* Unquoted values of older servers hold colons; base64 and addresses hold these others. */
static bool is_value_char(char c)
{
    return is_token_char(c) || (c != '\0' && strchr(":/=[]", c));
}

static struct slice take_while(struct slice *rest, bool (*fits)(char c))
{
    size_t at = 0;
    while (at < rest->len && fits(rest->ptr[at])) {
        at++;
    }
    struct slice taken = slice_sub(*rest, 0, at);
    *rest = slice_from(*rest, at);
    return taken;
}

/* Behind the opening quote, up to and with the closing one. */
static bool take_quoted(struct arena *arena, struct slice *rest, struct slice *value_out)
{
    char *text = arena_alloc(arena, rest->len + 1);
    size_t len = 0;
    for (size_t i = 0; i < rest->len; i++) {
        char c = rest->ptr[i];
        if (c == '"') {
            *value_out = (struct slice){text, len};
            *rest = slice_from(*rest, i + 1);
            return true;
        }
        if (c == '\\' && ++i < rest->len) {
            c = rest->ptr[i];
        }
        text[len++] = c;
    }
    return false;
}

static bool take_parameter(struct arena *arena, struct slice *rest, struct parameter *out)
{
    out->name = take_while(rest, is_token_char);
    *rest = skip_spaces(*rest);
    if (out->name.len == 0 || rest->len == 0 || rest->ptr[0] != '=') {
        return false;
    }
    *rest = skip_spaces(slice_from(*rest, 1));
    if (rest->len && rest->ptr[0] == '"') {
        *rest = slice_from(*rest, 1);
        return take_quoted(arena, rest, &out->value);
    }
    struct slice value = take_while(rest, is_value_char);
    out->value = arena_copy(arena, value);
    return value.len > 0;
}

/* A parameter counts once; a second one of the same name makes the header ambiguous. */
static bool keep(struct xmatrix *header, const struct parameter *parameter)
{
    struct {
        struct slice name;
        struct slice *field;
    } const known[] = {
        {LIT("origin"), &header->origin},
        {LIT("destination"), &header->destination},
        {LIT("key"), &header->key},
        {LIT("sig"), &header->sig},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (slice_eq_nocase(parameter->name, known[i].name)) {
            bool first = !known[i].field->ptr;
            *known[i].field = parameter->value;
            return first;
        }
    }
    return true;
}

/* Commas with spaces around them; empty elements of a list are passed over. */
static struct slice skip_commas(struct slice rest)
{
    rest = skip_spaces(rest);
    while (rest.len && rest.ptr[0] == ',') {
        rest = skip_spaces(slice_from(rest, 1));
    }
    return rest;
}

bool xmatrix_parse(struct arena *arena, struct slice header, struct xmatrix *header_out)
{
    struct slice rest = skip_spaces(header);
    struct slice scheme = take_while(&rest, is_token_char);
    *header_out = (struct xmatrix){0};
    if (!slice_eq_nocase(scheme, LIT("X-Matrix")) || rest.len == 0 || !is_space(rest.ptr[0])) {
        return false;
    }
    for (rest = skip_commas(rest); rest.len; rest = skip_commas(rest)) {
        struct parameter parameter;
        if (!take_parameter(arena, &rest, &parameter) || !keep(header_out, &parameter)) {
            return false;
        }
        struct slice after = skip_spaces(rest);
        if (after.len && after.ptr[0] != ',') {
            return false;
        }
    }
    return header_out->origin.len && header_out->key.len && header_out->sig.len;
}
