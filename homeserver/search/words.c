#include "homeserver/search/words.h"

#include <string.h>

/* --- characters --- */

struct letter {
    uint32_t code;
    size_t bytes; /* 0 = no UTF-8 here */
};

static struct letter letter_at(struct slice text, size_t at)
{
    const unsigned char *p = (const unsigned char *)text.ptr + at;
    size_t left = text.len - at;
    size_t bytes = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (bytes > left || !slice_is_utf8((struct slice){(const char *)p, bytes})) {
        return (struct letter){0};
    }
    uint32_t code = bytes == 1 ? p[0] : p[0] & (0xffU >> (bytes + 1));
    for (size_t i = 1; i < bytes; i++) {
        code = code << 6 | (p[i] & 0x3fU);
    }
    return (struct letter){code, bytes};
}

/* Letters of scripts without spaces, and pictures: each is looked for by itself. */
static bool stands_alone(uint32_t code)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0x0e00, 0x0eff},   /* Thai, Lao */
        {0x0f00, 0x0fff},   /* Tibetan */
        {0x1000, 0x109f},   /* Myanmar */
        {0x1780, 0x17ff},   /* Khmer */
        {0x2600, 0x27bf},   /* symbols, dingbats */
        {0x2e80, 0x2fdf},   /* radicals */
        {0x3040, 0x30ff},   /* kana */
        {0x31f0, 0x31ff},   /* small kana */
        {0x3400, 0x9fff},   /* ideographs */
        {0xf900, 0xfaff},   /* compatibility ideographs */
        {0x1f000, 0x1faff}, /* pictures */
        {0x20000, 0x3ffff}, /* more ideographs */
    };
    for (size_t i = 0; i < COUNT_OF(ranges) && code >= ranges[i].first; i++) {
        if (code <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

/* Where the letters end that need no looking at: ASCII, without NUL. */
static size_t plain_end(struct slice text, size_t at, size_t end)
{
    while (at < end && text.ptr[at] != '\0' && (text.ptr[at] & 0x80) == 0) {
        at++;
    }
    return at;
}

struct slice search_words_spread(struct arena *arena, struct slice text)
{
    struct buf out;
    size_t end = text.len < SEARCH_TEXT_BYTES_MAX ? text.len : SEARCH_TEXT_BYTES_MAX;
    buf_init_arena(&out, arena, SIZE_MAX / 2);
    for (size_t at = 0; at < end;) {
        size_t plain = plain_end(text, at, end);
        if (plain > at) {
            buf_add(&out, slice_sub(text, at, plain - at));
            at = plain;
            continue;
        }
        struct letter letter = letter_at(text, at);
        bool alone = stands_alone(letter.code);
        if (letter.code == 0) { /* the library would end the text at a NUL */
            at += letter.bytes ? letter.bytes : 1;
            buf_add_byte(&out, ' ');
            continue;
        }
        if (alone) {
            buf_add_byte(&out, ' ');
        }
        buf_add(&out, slice_sub(text, at, letter.bytes));
        if (alone) {
            buf_add_byte(&out, ' ');
        }
        at += letter.bytes;
    }
    return buf_slice(&out);
}

struct slice search_words_of_html(struct arena *arena, struct slice html)
{
    static const struct {
        struct slice name;
        char letter;
    } entities[] = {{{"amp;", 4}, '&'}, {{"lt;", 3}, '<'}, {{"gt;", 3}, '>'}, {{"quot;", 5}, '"'}};
    struct buf out;
    bool in_tag = false;
    buf_init_arena(&out, arena, SIZE_MAX / 2);
    for (size_t i = 0; i < html.len; i++) {
        char byte = html.ptr[i];
        for (size_t j = 0; byte == '&' && j < COUNT_OF(entities); j++) {
            if (slice_has_prefix(slice_from(html, i + 1), entities[j].name)) {
                buf_add_byte(&out, in_tag ? ' ' : entities[j].letter);
                i += entities[j].name.len;
                byte = ' ';
            }
        }
        if (byte == '<' || (byte == '>' && in_tag)) {
            in_tag = byte == '<';
            if (in_tag) {
                buf_add_byte(&out, ' ');
            }
        } else if (!in_tag) {
            buf_add_byte(&out, byte);
        }
    }
    return buf_slice(&out);
}

/* --- queries --- */

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r' || byte == '\0';
}

static size_t skip(struct slice query, size_t at, bool spaces)
{
    while (at < query.len && is_space(query.ptr[at]) == spaces &&
           (spaces || query.ptr[at] != '"')) {
        at++;
    }
    return at;
}

void search_words_parse(struct slice query, struct search_terms *terms_out)
{
    size_t at = 0;
    terms_out->count = 0;
    while (terms_out->count < SEARCH_TERMS_MAX) {
        struct search_term term = {0};
        size_t end = 0;
        at = skip(query, at, true);
        if (at >= query.len) {
            return;
        }
        if (query.ptr[at] == '-' && at + 1 < query.len && !is_space(query.ptr[at + 1])) {
            term.is_excluded = true;
            at++;
        }
        term.is_phrase = query.ptr[at] == '"';
        if (term.is_phrase) {
            at++;
            end = at + slice_find(slice_from(query, at), '"');
        } else {
            end = skip(query, at, false);
        }
        term.text = slice_sub(query, at, end - at);
        at = end + (term.is_phrase ? 1 : 0);
        if (term.text.len) {
            terms_out->items[terms_out->count++] = term;
        }
    }
}

static void add_string(struct buf *out, struct slice word)
{
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] == '"') {
            buf_add_byte(out, '"');
        }
        buf_add_byte(out, word.ptr[i]);
    }
}

static void add_quoted(struct buf *out, const struct search_phrase *phrase)
{
    buf_add_byte(out, '"');
    for (size_t i = 0; i < phrase->count; i++) {
        if (i) {
            buf_add_byte(out, ' ');
        }
        add_string(out, phrase->words[i]);
    }
    buf_add_byte(out, '"');
}

/* A single word finds longer ones with this beginning too (a stand-in for the endings of words in
 * any language); itself counts twice. */
static void add_phrase(struct buf *out, const struct search_phrase *phrase)
{
    if (phrase->is_exact) {
        add_quoted(out, phrase);
        return;
    }
    buf_add_byte(out, '(');
    add_quoted(out, phrase);
    buf_add(out, LIT(" OR "));
    add_quoted(out, phrase);
    buf_add(out, LIT(" *)"));
}

static size_t add_those(struct buf *out, const struct search_phrase *phrases, size_t count,
                        bool excluded)
{
    size_t added = 0;
    for (size_t i = 0; i < count; i++) {
        if (phrases[i].is_excluded != excluded || phrases[i].count == 0) {
            continue;
        }
        if (excluded || added) {
            buf_add(out, excluded ? LIT(" NOT ") : LIT(" AND "));
        }
        add_phrase(out, &phrases[i]);
        added++;
    }
    return added;
}

struct slice search_words_expression(struct arena *arena, const struct search_phrase *phrases,
                                     size_t count)
{
    struct buf out;
    buf_init_arena(&out, arena, SIZE_MAX / 2);
    buf_add_byte(&out, '(');
    size_t wanted = add_those(&out, phrases, count, false);
    buf_add_byte(&out, ')');
    add_those(&out, phrases, count, true);
    return wanted ? buf_slice(&out) : (struct slice){0};
}
