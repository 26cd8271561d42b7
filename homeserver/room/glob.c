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

/* Lower case for the scripts that have it in one-to-one pairs: Latin, Greek, Cyrillic, Armenian. */
static uint32_t fold(uint32_t c)
{
    if (c < 0x80) {
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    }
    if ((c >= 0xC0 && c <= 0xDE && c != 0xD7) || (c >= 0x391 && c <= 0x3A9 && c != 0x3A2) ||
        (c >= 0x410 && c <= 0x42F)) {
        return c + 32;
    }
    if (c >= 0x400 && c <= 0x40F) {
        return c + 80;
    }
    if (c >= 0x531 && c <= 0x556) {
        return c + 48;
    }
    bool odd_upper = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17E);
    bool even_upper = (c >= 0x100 && c <= 0x137 && c != 0x130 && c != 0x131) ||
                      (c >= 0x14A && c <= 0x177) || (c >= 0x460 && c <= 0x481) ||
                      (c >= 0x48A && c <= 0x4BF) || (c >= 0x4D0 && c <= 0x52F) ||
                      (c >= 0x1E00 && c <= 0x1E95) || (c >= 0x1EA0 && c <= 0x1EFF);
    if (odd_upper) {
        return c & 1 ? c + 1 : c;
    }
    return even_upper && !(c & 1) ? c + 1 : c;
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

bool glob_matches_word(struct slice pattern, struct slice text, enum glob_syntax syntax)
{
    struct match m = {
        .pattern = pattern, .text = text, .syntax = syntax, .ending = ENDS_AT_BOUNDARY};
    for (size_t at = 0; at <= text.len;) {
        if (is_boundary(text, at)) {
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
