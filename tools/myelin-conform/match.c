#include "tools/myelin-conform/match.h"

enum { SHOWN_BYTES_MAX = 300 };

static bool fail(struct match *m, const struct term *pattern, const struct json *value,
                 const char *because)
{
    if (m->quiet > 0 || (m->fault.len > 0 && m->depth < m->fault_depth)) {
        return false;
    }
    struct arena *arena = m->vars->arena;
    struct buf buf;
    buf_init_arena(&buf, arena, 64 << 10);
    buf_add(&buf, LIT("at "));
    for (size_t i = 0; i < m->depth; i++) {
        buf_add_byte(&buf, '/');
        buf_add(&buf, m->path[i]);
    }
    struct slice got = value ? json_canonical(arena, value) : LIT("nothing");
    const struct json *bound = pattern->kind == TERM_VAR ? vars_get(m->vars, pattern->text) : NULL;
    buf_printf(&buf, ": %s `%.*s`", because, (int)slice_sub(pattern->source, 0, 200).len,
               pattern->source.ptr);
    if (bound) {
        buf_add(&buf, LIT(" which is "));
        buf_add(&buf, slice_sub(json_canonical(arena, bound), 0, SHOWN_BYTES_MAX));
    }
    buf_add(&buf, LIT(", got "));
    buf_add(&buf, slice_sub(got, 0, SHOWN_BYTES_MAX));
    m->fault = buf_slice(&buf);
    m->fault_depth = m->depth;
    return false;
}

/* Tries without leaving a message; captures of a failure are taken back. */
static bool try_value(struct match *m, const struct term *pattern, const struct json *value)
{
    size_t count = m->vars->count;
    m->quiet++;
    bool matched = match_value(m, pattern, value);
    m->quiet--;
    if (!matched) {
        m->vars->count = count;
    }
    return matched;
}

static void enter(struct match *m, struct slice step)
{
    if (m->depth < COUNT_OF(m->path)) {
        m->path[m->depth] = step;
    }
    m->depth += m->depth < COUNT_OF(m->path);
}

static void leave(struct match *m)
{
    m->depth -= m->depth > 0;
}

bool match_glob(struct slice glob, struct slice text)
{
    size_t star = glob.len; /* position behind the last star seen; glob.len: none */
    size_t retry = 0;
    size_t g = 0;
    size_t t = 0;
    bool has_star = false;
    while (t < text.len) {
        if (g < glob.len && glob.ptr[g] == '*') {
            has_star = true;
            star = ++g;
            retry = t;
        } else if (g < glob.len && glob.ptr[g] == text.ptr[t]) {
            g++;
            t++;
        } else if (has_star) {
            g = star;
            t = ++retry;
        } else {
            return false;
        }
    }
    while (g < glob.len && glob.ptr[g] == '*') {
        g++;
    }
    return g == glob.len;
}

static bool match_var(struct match *m, const struct term *pattern, const struct json *value)
{
    if (!value) {
        return fail(m, pattern, value, "expected");
    }
    const struct json *bound = vars_get(m->vars, pattern->text);
    if (!bound) {
        vars_set(m->vars, pattern->text, *value);
        return true;
    }
    return json_eq(bound, value) || fail(m, pattern, value, "expected");
}

static bool match_object(struct match *m, const struct term *pattern, const struct json *value)
{
    if (!value || value->type != JSON_OBJECT) {
        return fail(m, pattern, value, "expected");
    }
    size_t found = 0;
    for (size_t i = 0; i < pattern->count; i++) {
        struct json key;
        struct err err = vars_value(m->vars, &pattern->keys[i], &key);
        if (err.code != 0 || key.type != JSON_STRING) {
            return fail(m, &pattern->keys[i], NULL, "no text for the member name");
        }
        const struct json *member = json_get(value, key.text);
        found += member != NULL;
        enter(m, key.text);
        if (!match_value(m, &pattern->parts[i], member)) {
            return false; /* the path stays for the caller's message; depth is reset at the top */
        }
        leave(m);
    }
    if (pattern->kind == TERM_EXACTLY && found != value->count) {
        return fail(m, pattern, value, "expected nothing beside");
    }
    return true;
}

/* Items `from` on against parts `part` on. An ellipsis takes the shortest run that works. */
static bool match_run(struct match *m, const struct term *pattern, size_t part,
                      const struct json *value, size_t from)
{
    while (part < pattern->count && pattern->parts[part].kind != TERM_ELLIPSIS) {
        if (from >= value->count || !try_value(m, &pattern->parts[part], &value->items[from])) {
            return false;
        }
        part++;
        from++;
    }
    if (part == pattern->count) {
        return from == value->count;
    }
    size_t count = m->vars->count;
    for (size_t skip = from; skip <= value->count; skip++) {
        if (match_run(m, pattern, part + 1, value, skip)) {
            return true;
        }
        m->vars->count = count;
    }
    return false;
}

static bool match_array(struct match *m, const struct term *pattern, const struct json *value)
{
    if (!value || value->type != JSON_ARRAY) {
        return fail(m, pattern, value, "expected");
    }
    size_t count = m->vars->count;
    if (match_run(m, pattern, 0, value, 0)) {
        return true;
    }
    m->vars->count = count;
    return fail(m, pattern, value, "expected the items");
}

static bool match_has(struct match *m, const struct term *pattern, const struct json *value)
{
    if (!value || value->type != JSON_ARRAY) {
        return fail(m, pattern, value, "expected");
    }
    if (pattern->kind == TERM_ONLY && value->count != pattern->count) {
        return fail(m, pattern, value, "expected, of the same length,");
    }
    bool *used = arena_array(m->vars->arena, value->count + 1, sizeof(bool));
    for (size_t p = 0; p < pattern->count; p++) {
        size_t i = 0;
        while (i < value->count && ((pattern->kind == TERM_ONLY && used[i]) ||
                                    !try_value(m, &pattern->parts[p], &value->items[i]))) {
            i++;
        }
        if (i == value->count) {
            return fail(m, &pattern->parts[p], value, "no item is");
        }
        used[i] = true;
    }
    return true;
}

static bool match_without(struct match *m, const struct term *pattern, const struct json *value)
{
    if (!value) {
        return true;
    }
    if (value->type != JSON_ARRAY) {
        return fail(m, pattern, value, "expected an array");
    }
    for (size_t i = 0; i < value->count; i++) {
        for (size_t p = 0; p < pattern->count; p++) {
            size_t count = m->vars->count;
            bool matched = try_value(m, &pattern->parts[p], &value->items[i]);
            m->vars->count = count;
            if (matched) {
                return fail(m, &pattern->parts[p], &value->items[i], "expected no item like");
            }
        }
    }
    return true;
}

static bool match_or(struct match *m, const struct term *pattern, const struct json *value)
{
    for (size_t i = 0; i < pattern->count; i++) {
        if (try_value(m, &pattern->parts[i], value)) {
            return true;
        }
    }
    return fail(m, pattern, value, "expected");
}

static bool match_and(struct match *m, const struct term *pattern, const struct json *value)
{
    for (size_t i = 0; i < pattern->count; i++) {
        if (!match_value(m, &pattern->parts[i], value)) {
            return false;
        }
    }
    return true;
}

static bool match_compare(struct match *m, const struct term *pattern, const struct json *value)
{
    struct json bound;
    struct err err = vars_value(m->vars, &pattern->parts[0], &bound);
    if (err.code != 0 || bound.type != JSON_INT || !value || value->type != JSON_INT) {
        return fail(m, pattern, value, "expected");
    }
    int64_t left = value->integer;
    int64_t right = bound.integer;
    bool equal_is_fine = pattern->text.len == 2;
    bool matched = pattern->text.ptr[0] == '<' ? left < right : left > right;
    return matched || (equal_is_fine && left == right) || fail(m, pattern, value, "expected");
}

static bool match_text(struct match *m, const struct term *pattern, const struct json *value)
{
    struct slice text;
    struct err err = vars_expand(m->vars, pattern->text, &text);
    if (err.code != 0 || !value || value->type != JSON_STRING) {
        return fail(m, pattern, value, "expected");
    }
    bool matched =
        pattern->kind == TERM_LIKE ? match_glob(text, value->text) : slice_eq(text, value->text);
    return matched || fail(m, pattern, value, "expected");
}

static size_t length_of(const struct json *value)
{
    bool is_list = value->type == JSON_ARRAY || value->type == JSON_OBJECT;
    if (is_list) {
        return value->count;
    }
    return value->type == JSON_STRING ? value->text.len : 0;
}

static bool match_type(struct match *m, const struct term *pattern, const struct json *value)
{
    bool matched = value && value->type == pattern->type;
    if (pattern->type == JSON_NUMBER) {
        matched = value && (value->type == JSON_INT || value->type == JSON_NUMBER);
    }
    return matched || fail(m, pattern, value, "expected");
}

static bool match_length(struct match *m, const struct term *pattern, const struct json *value)
{
    struct json length = json_int(value ? (int64_t)length_of(value) : 0);
    bool matched = value && try_value(m, &pattern->parts[0], &length);
    return matched || fail(m, pattern, value, "expected");
}

static bool match_not(struct match *m, const struct term *pattern, const struct json *value)
{
    size_t count = m->vars->count;
    bool matched = try_value(m, &pattern->parts[0], value);
    m->vars->count = count;
    return !matched || fail(m, pattern, value, "expected");
}

static bool match_presence(struct match *m, const struct term *pattern, const struct json *value)
{
    bool matched = value != NULL;
    if (pattern->kind == TERM_ABSENT) {
        matched = value == NULL;
    } else if (pattern->kind == TERM_NONEMPTY) {
        matched = value && length_of(value) > 0;
    }
    return matched || fail(m, pattern, value, "expected");
}

static bool match_equal(struct match *m, const struct term *pattern, const struct json *value)
{
    struct json wanted;
    struct err err = vars_value(m->vars, pattern, &wanted);
    return (err.code == 0 && value && json_eq(&wanted, value)) ||
           fail(m, pattern, value, "expected");
}

bool match_value(struct match *match, const struct term *pattern, const struct json *value)
{
    size_t depth = match->depth;
    bool matched = false;
    switch (pattern->kind) {
    case TERM_TEXT:
    case TERM_LIKE:
        matched = match_text(match, pattern, value);
        break;
    case TERM_VAR:
        matched = match_var(match, pattern, value);
        break;
    case TERM_OBJECT:
    case TERM_EXACTLY:
        matched = match_object(match, pattern, value);
        break;
    case TERM_ARRAY:
        matched = match_array(match, pattern, value);
        break;
    case TERM_HAS:
    case TERM_ONLY:
        matched = match_has(match, pattern, value);
        break;
    case TERM_WITHOUT:
        matched = match_without(match, pattern, value);
        break;
    case TERM_AND:
        matched = match_and(match, pattern, value);
        break;
    case TERM_OR:
        matched = match_or(match, pattern, value);
        break;
    case TERM_TYPE:
        matched = match_type(match, pattern, value);
        break;
    case TERM_COMPARE:
        matched = match_compare(match, pattern, value);
        break;
    case TERM_ANY:
    case TERM_NONEMPTY:
    case TERM_ABSENT:
        matched = match_presence(match, pattern, value);
        break;
    case TERM_NOT:
        matched = match_not(match, pattern, value);
        break;
    case TERM_LENGTH:
        matched = match_length(match, pattern, value);
        break;
    case TERM_ELLIPSIS:
    case TERM_LITERAL:
    case TERM_REPEAT:
    case TERM_SIGNED:
        matched = match_equal(match, pattern, value);
        break;
    }
    match->depth = depth;
    return matched;
}
