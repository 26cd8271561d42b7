#include "homeserver/search/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct arena *arena;

static int open_arena(void **state)
{
    (void)state;
    arena = arena_new();
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

static void assert_text(struct slice text, const char *expected)
{
    assert_int_equal(text.len, strlen(expected));
    assert_memory_equal(text.ptr, expected, text.len);
}

static void letters_without_spaces_stand_alone(void **state)
{
    (void)state;
    assert_text(search_words_spread(arena, LIT("plain text")), "plain text");
    assert_text(search_words_spread(arena, LIT("a\xe4\xbd\xa0\xe5\xa5\xbd")),
                "a \xe4\xbd\xa0  \xe5\xa5\xbd ");
    assert_text(search_words_spread(arena, LIT("hi\xf0\x9f\x8e\x89")), "hi \xf0\x9f\x8e\x89 ");
    assert_text(search_words_spread(arena, LIT("a\0b")), "a b");
    assert_text(search_words_spread(arena, LIT("a\xff"
                                               "b")),
                "a b");
}

static void a_text_is_cut(void **state)
{
    (void)state;
    char *text = arena_alloc(arena, SEARCH_TEXT_BYTES_MAX + 100);
    memset(text, 'x', SEARCH_TEXT_BYTES_MAX + 100);
    struct slice all = {text, SEARCH_TEXT_BYTES_MAX + 100};
    assert_int_equal(search_words_spread(arena, all).len, SEARCH_TEXT_BYTES_MAX);
}

static void markup_is_taken_off(void **state)
{
    (void)state;
    assert_text(search_words_of_html(arena, LIT("<b>bold</b> &amp; <i>so")), " bold  &   so");
    assert_text(search_words_of_html(arena, LIT("1 &lt; 2 > 0")), "1 <  2 > 0");
}

static void queries_are_cut_at_spaces_and_quotes(void **state)
{
    static const struct {
        const char *query;
        size_t count;
        const char *texts[3];
        const char *kinds; /* w word, p phrase, x excluded word, q excluded phrase */
    } cases[] = {
        {"", 0, {0}, ""},
        {"  one  two ", 2, {"one", "two"}, "ww"},
        {"\"one two\" three", 2, {"one two", "three"}, "pw"},
        {"one -two -\"three four\"", 3, {"one", "two", "three four"}, "wxq"},
        {"\"not closed", 1, {"not closed"}, "p"},
        {"a\"b\"c", 3, {"a", "b", "c"}, "wpw"},
        {"- -", 2, {"-", "-"}, "ww"},
        {"\"\" \"", 0, {0}, ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct search_terms terms;
        search_words_parse(slice_of(cases[i].query), &terms);
        assert_int_equal(terms.count, cases[i].count);
        for (size_t j = 0; j < terms.count; j++) {
            char kind = terms.items[j].is_phrase ? 'p' : 'w';
            kind = (char)(kind + (terms.items[j].is_excluded ? 1 : 0));
            assert_text(terms.items[j].text, cases[i].texts[j]);
            assert_int_equal(kind, cases[i].kinds[j]);
        }
    }
}

static void expressions_quote_what_they_are_given(void **state)
{
    struct slice words[] = {LIT("one"), LIT("t\"wo")};
    struct search_phrase phrases[] = {
        {.words = words, .count = 1},
        {.words = words, .count = 2, .is_exact = true},
        {.words = words + 1, .count = 1, .is_excluded = true, .is_exact = true}};
    (void)state;
    assert_text(search_words_expression(arena, phrases, 3),
                "((\"one\" OR \"one\" *) AND \"one t\"\"wo\") NOT \"t\"\"wo\"");
    assert_int_equal(search_words_expression(arena, phrases + 2, 1).len, 0);
    assert_int_equal(search_words_expression(arena, phrases, 0).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_without_spaces_stand_alone),
        cmocka_unit_test(a_text_is_cut),
        cmocka_unit_test(markup_is_taken_off),
        cmocka_unit_test(queries_are_cut_at_spaces_and_quotes),
        cmocka_unit_test(expressions_quote_what_they_are_given),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
