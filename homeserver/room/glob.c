#include "homeserver/room/glob.h"

/* One character of valid UTF-8; *at moves behind it. */
static uint32_t next_point(struct slice s, size_t *at)
{
    unsigned char lead = (unsigned char)s.ptr[(*at)++];
    size_t more = lead < 0xC0 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    uint32_t point = more == 0 ? lead : (uint32_t)(lead & (0x3F >> more));
    while (more-- && *at < s.len) {
        point = point << 6 | ((unsigned char)s.ptr[(*at)++] & 0x3F);
    }
    return point;
}

/* Capital letters and how to get from one to its small letter. */
struct capitals {
    uint32_t first;
    uint32_t last;
    uint32_t step; /* 1: all are capitals; 2: every other one is, from `first` on */
    uint32_t distance;
};

/* The scripts that have case in one-to-one pairs: Latin, Greek, Cyrillic, Armenian. Ascending. */
static const struct capitals capitals[] = {
    {0x41, 0x5A, 1, 32},    {0xC0, 0xD6, 1, 32},    {0xD8, 0xDE, 1, 32},   {0x100, 0x12E, 2, 1},
    {0x132, 0x136, 2, 1},   {0x139, 0x147, 2, 1},   {0x14A, 0x176, 2, 1},  {0x179, 0x17D, 2, 1},
    {0x391, 0x3A1, 1, 32},  {0x3A3, 0x3A9, 1, 32},  {0x400, 0x40F, 1, 80}, {0x410, 0x42F, 1, 32},
    {0x460, 0x480, 2, 1},   {0x48A, 0x4BE, 2, 1},   {0x4D0, 0x52E, 2, 1},  {0x531, 0x556, 1, 48},
    {0x1E00, 0x1E94, 2, 1}, {0x1EA0, 0x1EFE, 2, 1},
};

static uint32_t fold(uint32_t c)
{
    for (size_t i = 0; i < COUNT_OF(capitals) && c >= capitals[i].first; i++) {
        const struct capitals *row = &capitals[i];
        if (c <= row->last && (c - row->first) % row->step == 0) {
            return c + row->distance;
        }
    }
    return c;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_boundary(struct slice text, size_t at)
{
    return at == 0 || at == text.len || !is_word(text.ptr[at - 1]) || !is_word(text.ptr[at]);
}

enum ending {
    ENDS_AT_END,
    ENDS_AT_BOUNDARY,
};

struct match {
    struct slice pattern;
    struct slice text;
    enum glob_syntax syntax;
    enum ending ending;
    bool passed_star;
};

static bool may_end(const struct match *m, size_t at)
{
    return m->ending == ENDS_AT_END ? at == m->text.len : is_boundary(m->text, at);
}

/* Matches from `t` on. Parts between stars match at their first place, which leaves the most text
 * for what follows; only the last star has to be tried again. */
static bool matches_from(struct match *m, size_t t)
{
    size_t p = 0;
    size_t star_p = SIZE_MAX;
    size_t star_t = 0;
    m->passed_star = false;
    for (;;) {
        if (p == m->pattern.len && may_end(m, t)) {
            return true;
        }
        if (p < m->pattern.len && m->pattern.ptr[p] == '*' && m->syntax == GLOB_WILDCARDS) {
            star_p = ++p;
            star_t = t;
            m->passed_star = true;
            continue;
        }
        if (p < m->pattern.len && t < m->text.len) {
            bool any = m->pattern.ptr[p] == '?' && m->syntax == GLOB_WILDCARDS;
            uint32_t want = fold(next_point(m->pattern, &p));
            uint32_t have = fold(next_point(m->text, &t));
            if (any || want == have) {
                continue;
            }
        }
        if (star_p == SIZE_MAX || star_t == m->text.len) {
            return false;
        }
        next_point(m->text, &star_t);
        p = star_p;
        t = star_t;
    }
}

bool glob_matches(struct slice pattern, struct slice text)
{
    struct match m = {.pattern = pattern, .text = text, .ending = ENDS_AT_END};
    return matches_from(&m, 0);
}

/* Whether no match can begin with this byte: most places of a text are passed over by it. Letters
 * outside ASCII, wildcards and places at the end are left to the full comparison. */
static bool cannot_begin(const struct match *m, size_t at)
{
    unsigned char want = m->pattern.len ? (unsigned char)m->pattern.ptr[0] : '*';
    unsigned char have = at < m->text.len ? (unsigned char)m->text.ptr[at] : 0x80;
    bool wildcard = m->syntax == GLOB_WILDCARDS && (want == '*' || want == '?');
    return want < 0x80 && have < 0x80 && !wildcard && fold(want) != fold(have);
}

bool glob_matches_word(struct slice pattern, struct slice text, enum glob_syntax syntax)
{
    struct match m = {
        .pattern = pattern, .text = text, .syntax = syntax, .ending = ENDS_AT_BOUNDARY};
    for (size_t at = 0; at <= text.len;) {
        if (is_boundary(text, at) && !cannot_begin(&m, at)) {
            if (matches_from(&m, at)) {
                return true;
            }
            /* What follows the first star is not found behind here: nor from a later start. */
            if (m.passed_star) {
                return false;
            }
        }
        if (at == text.len) {
            break;
        }
        next_point(text, &at);
    }
    return false;
}
