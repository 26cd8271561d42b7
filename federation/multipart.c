#include "federation/multipart.h"

#include <string.h>

enum { HELD_BYTES_MAX = 1 << 16, HEADERS_MAX = 32 };

void multipart_begin(struct multipart *m, struct arena *arena, multipart_sink sink, void *sink_arg)
{
    *m = (struct multipart){.arena = arena, .sink = sink, .sink_arg = sink_arg};
    buf_init_arena(&m->held, arena, SIZE_MAX / 2);
}

static struct err broken(void)
{
    return err_make(ERR_SYNTAX, "the media answer is no multipart body with two parts");
}

/* Where `needle` begins; text.len when it does not occur. */
static size_t find_bytes(struct slice text, struct slice needle)
{
    for (size_t i = 0; i + needle.len <= text.len; i++) {
        if (slice_has_prefix(slice_from(text, i), needle)) {
            return i;
        }
    }
    return text.len;
}

static void drop_held(struct multipart *m, size_t count)
{
    m->held.len -= count;
    memmove(m->held.ptr, m->held.ptr + count, m->held.len);
}

/* Takes the next line out of what is held, without its end. False: it is not whole yet. */
static bool take_line(struct multipart *m, struct slice *line_out)
{
    struct slice held = buf_slice(&m->held);
    size_t end = slice_find(held, '\n');
    if (end == held.len) {
        return false;
    }
    struct slice line = arena_copy(m->arena, slice_sub(held, 0, end));
    if (line.len && line.ptr[line.len - 1] == '\r') {
        line.len--;
    }
    drop_held(m, end + 1);
    *line_out = line;
    return true;
}

static void read_header(struct multipart *m, struct slice line)
{
    size_t colon = slice_find(line, ':');
    struct slice name = slice_sub(line, 0, colon);
    struct slice value = colon < line.len ? slice_trim(slice_from(line, colon + 1)) : line;
    if (m->state != MULTIPART_HEADERS || colon == line.len) {
        return;
    }
    if (slice_eq_nocase(name, LIT("content-type"))) {
        m->content_type = value;
    } else if (slice_eq_nocase(name, LIT("content-disposition"))) {
        m->disposition = value;
    } else if (slice_eq_nocase(name, LIT("location"))) {
        m->location = value;
    }
}

/* Lines: the preamble and the headers. *more_out: a state was passed and there may be more. */
static struct err read_lines(struct multipart *m, bool *more_out)
{
    struct slice line;
    *more_out = false;
    if (!take_line(m, &line)) {
        return m->held.len > MULTIPART_LINE_BYTES_MAX ? broken() : OK;
    }
    *more_out = true;
    if (m->state == MULTIPART_PREAMBLE) {
        if (slice_has_prefix(line, LIT("--")) && line.len > 2) {
            m->delimiter = arena_concat(m->arena, LIT("\r\n"), slice_trim(line));
            m->state = MULTIPART_JSON_HEADERS;
        }
        return OK;
    }
    if (line.len == 0) {
        m->state = m->state == MULTIPART_JSON_HEADERS ? MULTIPART_JSON : MULTIPART_CONTENT;
        return OK;
    }
    read_header(m, line);
    return OK;
}

/* The first part up to the delimiter line behind it, which is passed over with it. */
static struct err read_json(struct multipart *m, bool *more_out)
{
    struct slice held = buf_slice(&m->held);
    size_t at = find_bytes(held, m->delimiter);
    struct slice behind = slice_from(held, at < held.len ? at + m->delimiter.len : held.len);
    size_t end = slice_find(behind, '\n');
    *more_out = false;
    if (at == held.len || end == behind.len) {
        return held.len > HELD_BYTES_MAX ? broken() : OK;
    }
    if (slice_has_prefix(behind, LIT("--"))) {
        return broken(); /* the last delimiter: there is no second part */
    }
    drop_held(m, at + m->delimiter.len + end + 1);
    m->state = MULTIPART_HEADERS;
    *more_out = true;
    return OK;
}

/* Content up to the delimiter; what may be its beginning is held back. */
static struct err read_content(struct multipart *m)
{
    struct slice held = buf_slice(&m->held);
    size_t at = find_bytes(held, m->delimiter);
    if (at < held.len) {
        m->state = MULTIPART_END;
        struct err err = at ? m->sink(m->sink_arg, slice_sub(held, 0, at)) : OK;
        m->held.len = 0;
        return err;
    }
    size_t keep = m->delimiter.len - 1;
    size_t ready = held.len > keep ? held.len - keep : 0;
    if (ready) {
        TRY(m->sink(m->sink_arg, slice_sub(held, 0, ready)));
        drop_held(m, ready);
    }
    return OK;
}

static struct err step(struct multipart *m, bool *more_out)
{
    *more_out = false;
    switch (m->state) {
    case MULTIPART_PREAMBLE:
    case MULTIPART_JSON_HEADERS:
    case MULTIPART_HEADERS:
        return read_lines(m, more_out);
    case MULTIPART_JSON:
        return read_json(m, more_out);
    case MULTIPART_CONTENT:
        return read_content(m);
    case MULTIPART_END:
        m->held.len = 0;
        return OK;
    }
    return OK;
}

struct err multipart_read(void *multipart, struct slice bytes)
{
    struct multipart *m = multipart;
    bool more = true;
    buf_add(&m->held, bytes);
    while (more) {
        TRY(step(m, &more));
    }
    return OK;
}

bool multipart_is_whole(const struct multipart *m)
{
    return m->state == MULTIPART_END || (m->state == MULTIPART_CONTENT && m->location.len > 0);
}

/* --- Content-Disposition --- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char low = (char)(c | 32);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

static struct slice percent_decode(struct arena *arena, struct slice text)
{
    char *out = arena_alloc(arena, text.len + 1);
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        int high = i + 2 < text.len ? hex_value(text.ptr[i + 1]) : -1;
        int low = i + 2 < text.len ? hex_value(text.ptr[i + 2]) : -1;
        if (text.ptr[i] == '%' && high >= 0 && low >= 0) {
            out[len++] = (char)(high * 16 + low);
            i += 2;
        } else {
            out[len++] = text.ptr[i];
        }
    }
    return (struct slice){out, len};
}

/* A quoted string or a token from the start of `text`. */
static struct slice read_value(struct arena *arena, struct slice text)
{
    char *out = arena_alloc(arena, text.len + 1);
    size_t len = 0;
    if (!text.len || text.ptr[0] != '"') {
        struct slice token = slice_sub(text, 0, slice_find(text, ';'));
        return slice_trim(token);
    }
    for (size_t i = 1; i < text.len && text.ptr[i] != '"'; i++) {
        if (text.ptr[i] == '\\' && i + 1 < text.len) {
            i++;
        }
        out[len++] = text.ptr[i];
    }
    return (struct slice){out, len};
}

/* The value of a parameter by name, or empty. Parameters are told apart by ';' outside quotes. */
static struct slice find_parameter(struct arena *arena, struct slice header, struct slice name)
{
    bool quoted = false;
    for (size_t i = 0; i < header.len; i++) {
        quoted = header.ptr[i] == '"' ? !quoted : quoted;
        if (header.ptr[i] != ';' || quoted) {
            continue;
        }
        struct slice rest = slice_trim(slice_from(header, i + 1));
        struct slice key = slice_sub(rest, 0, slice_find(rest, '='));
        if (key.len < rest.len && slice_eq_nocase(slice_trim(key), name)) {
            return read_value(arena, slice_trim(slice_from(rest, key.len + 1)));
        }
    }
    return (struct slice){0};
}

struct slice multipart_file_name(struct arena *arena, struct slice disposition)
{
    struct slice extended = find_parameter(arena, disposition, LIT("filename*"));
    size_t quote = slice_find(extended, '\'');
    if (quote < extended.len && slice_eq_nocase(slice_sub(extended, 0, quote), LIT("utf-8"))) {
        struct slice rest = slice_from(extended, quote + 1);
        size_t second = slice_find(rest, '\'');
        if (second < rest.len) {
            return percent_decode(arena, slice_from(rest, second + 1));
        }
    }
    return find_parameter(arena, disposition, LIT("filename"));
}
