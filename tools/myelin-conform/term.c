#include "tools/myelin-conform/term.h"

#include <ctype.h>
#include <string.h>

struct reader {
    struct arena *arena;
    const char *at;
    const char *end;
    size_t depth;
};

static struct err parse_or(struct reader *r, struct term *out);

static struct err fault(struct reader *r, const char *expected)
{
    size_t left = (size_t)(r->end - r->at);
    int shown = (int)(left < 30 ? left : 30);
    return err_publicf(r->arena, ERR_SYNTAX, "expected %s at `%.*s`", expected, shown, r->at);
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && isspace((unsigned char)*r->at)) {
        r->at++;
    }
}

static bool take_byte(struct reader *r, char byte)
{
    skip_space(r);
    if (r->at < r->end && *r->at == byte) {
        r->at++;
        return true;
    }
    return false;
}

static struct slice peek_word(struct reader *r)
{
    skip_space(r);
    const char *at = r->at;
    while (at < r->end && (isalnum((unsigned char)*at) || *at == '_')) {
        at++;
    }
    return (struct slice){r->at, (size_t)(at - r->at)};
}

static bool take_word(struct reader *r, struct slice word)
{
    if (!slice_eq(peek_word(r), word)) {
        return false;
    }
    r->at += word.len;
    return true;
}

static bool is_user_field(struct slice field)
{
    static const struct slice fields[] = {LIT("name"),     LIT("device"), LIT("token"),
                                          LIT("password"), LIT("id"),     LIT("key")};
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        if (slice_eq(field, fields[i])) {
            return true;
        }
    }
    return false;
}

static size_t name_len(struct slice text)
{
    size_t len = 0;
    while (len < text.len && (islower((unsigned char)text.ptr[len]) ||
                              isdigit((unsigned char)text.ptr[len]) || text.ptr[len] == '_')) {
        len++;
    }
    return len;
}

struct slice term_var_name(struct slice text, struct slice *rest_out)
{
    *rest_out = text;
    if (text.len < 2 || text.ptr[0] != '$') {
        return (struct slice){0};
    }
    if (text.ptr[1] == '{') {
        size_t end = slice_find(text, '}');
        if (end == text.len) {
            return (struct slice){0};
        }
        *rest_out = slice_from(text, end + 1);
        return slice_sub(text, 2, end - 2);
    }
    size_t len = name_len(slice_from(text, 1));
    if (len > 0 && 1 + len < text.len && text.ptr[1 + len] == '.') {
        size_t field = name_len(slice_from(text, 2 + len));
        if (is_user_field(slice_sub(text, 2 + len, field))) {
            len += 1 + field;
        }
    }
    *rest_out = slice_from(text, 1 + len);
    return slice_sub(text, 1, len);
}

static struct term *add_part(struct reader *r, struct term **list, size_t count)
{
    *list =
        arena_grow(r->arena, *list, count * sizeof(struct term), (count + 1) * sizeof(struct term));
    (*list)[count] = (struct term){0};
    return &(*list)[count];
}

/* The end of the JSON string that starts at `at`, behind its closing quote; NULL when open. */
static const char *string_end(const char *at, const char *end)
{
    for (at++; at < end; at++) {
        if (*at == '\\') {
            at++;
        } else if (*at == '"') {
            return at + 1;
        }
    }
    return NULL;
}

static struct err parse_text(struct reader *r, struct term *out)
{
    const char *close = string_end(r->at, r->end);
    if (!close) {
        return fault(r, "a closed string");
    }
    struct json value;
    TRY(json_parse(r->arena, (struct slice){r->at, (size_t)(close - r->at)}, &value));
    out->kind = TERM_TEXT;
    out->text = value.text;
    r->at = close;
    return OK;
}

static struct err parse_var(struct reader *r, struct term *out)
{
    struct slice rest;
    out->text = term_var_name((struct slice){r->at, (size_t)(r->end - r->at)}, &rest);
    if (out->text.len == 0) {
        return fault(r, "a variable name");
    }
    out->kind = TERM_VAR;
    r->at = rest.ptr;
    return OK;
}

static struct err parse_key(struct reader *r, struct term *out)
{
    skip_space(r);
    if (r->at < r->end && *r->at == '$') {
        return parse_var(r, out);
    }
    if (r->at < r->end && *r->at == '"') {
        return parse_text(r, out);
    }
    return fault(r, "a member name in quotes or a variable");
}

static bool take_ellipsis(struct reader *r)
{
    skip_space(r);
    if (r->end - r->at < 3 || memcmp(r->at, "...", 3) != 0) {
        return false;
    }
    r->at += 3;
    return true;
}

static struct err parse_object(struct reader *r, struct term *out)
{
    while (!take_byte(r, '}')) {
        if (take_ellipsis(r)) {
            take_byte(r, ',');
            continue;
        }
        TRY(parse_key(r, add_part(r, &out->keys, out->count)));
        if (!take_byte(r, ':')) {
            return fault(r, "`:`");
        }
        TRY(parse_or(r, add_part(r, &out->parts, out->count)));
        out->count++;
        if (!take_byte(r, ',')) {
            if (!take_byte(r, '}')) {
                return fault(r, "`,` or `}`");
            }
            break;
        }
    }
    return OK;
}

static struct err parse_items(struct reader *r, struct term *out)
{
    while (!take_byte(r, ']')) {
        struct term *part = add_part(r, &out->parts, out->count);
        if (take_ellipsis(r)) {
            part->kind = TERM_ELLIPSIS;
        } else {
            TRY(parse_or(r, part));
        }
        out->count++;
        if (!take_byte(r, ',')) {
            if (!take_byte(r, ']')) {
                return fault(r, "`,` or `]`");
            }
            break;
        }
    }
    return OK;
}

static struct err parse_list_word(struct reader *r, struct term *out, enum term_kind kind)
{
    out->kind = kind;
    if (!take_byte(r, '[')) {
        return fault(r, "`[`");
    }
    return parse_items(r, out);
}

static struct err parse_number(struct reader *r, struct term *out)
{
    const char *at = r->at;
    while (at < r->end && (isalnum((unsigned char)*at) || strchr("+-.", *at))) {
        at++;
    }
    out->kind = TERM_LITERAL;
    struct err err =
        json_parse(r->arena, (struct slice){r->at, (size_t)(at - r->at)}, &out->literal);
    if (err.code != 0) {
        return fault(r, "a value");
    }
    r->at = at;
    return OK;
}

static struct err parse_compare(struct reader *r, struct term *out)
{
    size_t len = r->end - r->at > 1 && r->at[1] == '=' ? 2 : 1;
    out->kind = TERM_COMPARE;
    out->text = (struct slice){r->at, len};
    r->at += len;
    skip_space(r);
    out->count = 1;
    struct term *part = add_part(r, &out->parts, 0);
    if (r->at < r->end && *r->at == '$') {
        return parse_var(r, part);
    }
    return parse_number(r, part);
}

static struct err parse_like(struct reader *r, struct term *out)
{
    skip_space(r);
    if (r->at >= r->end || *r->at != '"') {
        return fault(r, "a glob in quotes");
    }
    TRY(parse_text(r, out));
    out->kind = TERM_LIKE;
    return OK;
}

static struct err parse_repeat(struct reader *r, struct term *out)
{
    TRY(parse_like(r, out));
    out->kind = TERM_REPEAT;
    uint64_t count = 0;
    struct slice word = peek_word(r);
    if (!slice_parse_u64(word, &count) || count > 1000000) {
        return fault(r, "a number of times");
    }
    r->at += word.len;
    out->count = (size_t)count;
    return OK;
}

static struct err parse_unary(struct reader *r, struct term *out);

/* signed {...} as "@user:x" key "ed25519:ID" with $key */
static struct err parse_signed(struct reader *r, struct term *out)
{
    static const struct slice words[] = {LIT("as"), LIT("key"), LIT("with")};
    out->kind = TERM_SIGNED;
    TRY(parse_unary(r, add_part(r, &out->parts, 0)));
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (!take_word(r, words[i])) {
            return fault(r, "`signed {...} as USER key KEYID with $key`");
        }
        TRY(parse_unary(r, add_part(r, &out->parts, i + 1)));
    }
    out->count = 4;
    return OK;
}

struct word_row {
    struct slice word;
    enum term_kind kind;
    enum json_type type;
};

static const struct word_row words_alone[] = {
    {LIT("any"), TERM_ANY, JSON_NULL},           {LIT("absent"), TERM_ABSENT, JSON_NULL},
    {LIT("nonempty"), TERM_NONEMPTY, JSON_NULL}, {LIT("string"), TERM_TYPE, JSON_STRING},
    {LIT("int"), TERM_TYPE, JSON_INT},           {LIT("number"), TERM_TYPE, JSON_NUMBER},
    {LIT("bool"), TERM_TYPE, JSON_BOOL},         {LIT("array"), TERM_TYPE, JSON_ARRAY},
    {LIT("object"), TERM_TYPE, JSON_OBJECT},
};

static struct err parse_word(struct reader *r, struct term *out)
{
    struct slice word = peek_word(r);
    for (size_t i = 0; i < COUNT_OF(words_alone); i++) {
        if (slice_eq(word, words_alone[i].word)) {
            out->kind = words_alone[i].kind;
            out->type = words_alone[i].type;
            r->at += word.len;
            return OK;
        }
    }
    if (take_word(r, LIT("has"))) {
        return parse_list_word(r, out, TERM_HAS);
    }
    if (take_word(r, LIT("only"))) {
        return parse_list_word(r, out, TERM_ONLY);
    }
    if (take_word(r, LIT("without"))) {
        return parse_list_word(r, out, TERM_WITHOUT);
    }
    if (take_word(r, LIT("like"))) {
        return parse_like(r, out);
    }
    if (take_word(r, LIT("repeat"))) {
        return parse_repeat(r, out);
    }
    if (take_word(r, LIT("signed"))) {
        return parse_signed(r, out);
    }
    if (take_word(r, LIT("length"))) {
        out->kind = TERM_LENGTH;
        out->count = 1;
        return parse_unary(r, add_part(r, &out->parts, 0));
    }
    return parse_number(r, out);
}

static struct err parse_primary(struct reader *r, struct term *out)
{
    skip_space(r);
    if (r->at >= r->end) {
        return fault(r, "a value");
    }
    if (take_byte(r, '(')) {
        TRY(parse_or(r, out));
        return take_byte(r, ')') ? OK : fault(r, "`)`");
    }
    if (take_byte(r, '{')) {
        out->kind = TERM_OBJECT;
        return parse_object(r, out);
    }
    if (take_word(r, LIT("exactly"))) {
        out->kind = TERM_EXACTLY;
        return take_byte(r, '{') ? parse_object(r, out) : fault(r, "`{`");
    }
    if (take_byte(r, '[')) {
        out->kind = TERM_ARRAY;
        return parse_items(r, out);
    }
    if (*r->at == '"') {
        return parse_text(r, out);
    }
    if (*r->at == '$') {
        return parse_var(r, out);
    }
    if (*r->at == '<' || *r->at == '>') {
        return parse_compare(r, out);
    }
    return parse_word(r, out);
}

static struct err parse_unary(struct reader *r, struct term *out)
{
    skip_space(r);
    const char *start = r->at;
    if (++r->depth > TERM_DEPTH_MAX) {
        return fault(r, "less nesting");
    }
    struct err err;
    if (take_word(r, LIT("not"))) {
        out->kind = TERM_NOT;
        out->count = 1;
        err = parse_unary(r, add_part(r, &out->parts, 0));
    } else {
        err = parse_primary(r, out);
    }
    r->depth--;
    out->source = (struct slice){start, (size_t)(r->at - start)};
    return err;
}

/* One operand, or several joined by the word: a node of `kind` over them. */
static struct err parse_joined(struct reader *r, struct term *out, enum term_kind kind)
{
    struct slice word = kind == TERM_AND ? LIT("and") : LIT("or");
    skip_space(r);
    const char *start = r->at;
    struct term first = {0};
    TRY(kind == TERM_AND ? parse_unary(r, &first) : parse_joined(r, &first, TERM_AND));
    if (!slice_eq(peek_word(r), word)) {
        *out = first;
        return OK;
    }
    *out = (struct term){.kind = kind, .count = 1};
    *add_part(r, &out->parts, 0) = first;
    while (take_word(r, word)) {
        struct term *part = add_part(r, &out->parts, out->count++);
        TRY(kind == TERM_AND ? parse_unary(r, part) : parse_joined(r, part, TERM_AND));
    }
    out->source = (struct slice){start, (size_t)(r->at - start)};
    return OK;
}

static struct err parse_or(struct reader *r, struct term *out)
{
    return parse_joined(r, out, TERM_OR);
}

struct err term_parse(struct arena *arena, struct slice text, struct term *term_out,
                      struct slice *rest_out)
{
    struct reader r = {.arena = arena, .at = text.ptr, .end = text.ptr + text.len};
    *term_out = (struct term){0};
    TRY(parse_or(&r, term_out));
    skip_space(&r);
    *rest_out = (struct slice){r.at, (size_t)(r.end - r.at)};
    return OK;
}
