#include "homeserver/media/media.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

struct range_case {
    const char *header;
    int64_t bytes;
    enum media_range range;
    int64_t offset, part_bytes;
};

static const struct range_case range_cases[] = {
    {"", 10, MEDIA_RANGE_WHOLE, 0, 10},
    {"bytes=0-3", 10, MEDIA_RANGE_PART, 0, 4},
    {"BYTES=2-", 10, MEDIA_RANGE_PART, 2, 8},
    {"bytes=8-100", 10, MEDIA_RANGE_PART, 8, 2},
    {"bytes=-3", 10, MEDIA_RANGE_PART, 7, 3},
    {"bytes=-30", 10, MEDIA_RANGE_PART, 0, 10},
    {"bytes=-0", 10, MEDIA_RANGE_OUTSIDE, 10, 0},
    {"bytes=10-", 10, MEDIA_RANGE_OUTSIDE, 0, 10},
    {"bytes=0-0", 0, MEDIA_RANGE_OUTSIDE, 0, 0},
    {"bytes=5-2", 10, MEDIA_RANGE_WHOLE, 0, 10},
    {"bytes=0-1,4-5", 10, MEDIA_RANGE_WHOLE, 0, 10},
    {"lines=0-1", 10, MEDIA_RANGE_WHOLE, 0, 10},
    {"bytes=-", 10, MEDIA_RANGE_WHOLE, 0, 10},
    {"bytes=99999999999999999999-", 10, MEDIA_RANGE_WHOLE, 0, 10},
    {"bytes=1-9223372036854775807", 10, MEDIA_RANGE_PART, 1, 9},
};

static void a_range_is_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(range_cases); i++) {
        const struct range_case *c = &range_cases[i];
        struct media_part part;
        print_message("%s\n", c->header);
        assert_int_equal(media_range_parse(slice_of(c->header), c->bytes, &part), c->range);
        if (c->range != MEDIA_RANGE_OUTSIDE) {
            assert_int_equal(part.offset, c->offset);
            assert_int_equal(part.bytes, c->part_bytes);
        }
    }
}

static void an_entity_tag_is_found_in_a_list(void **state)
{
    (void)state;
    assert_true(media_etag_matches(LIT("\"a\""), LIT("\"a\"")));
    assert_true(media_etag_matches(LIT("\"b\", W/\"a\""), LIT("\"a\"")));
    assert_true(media_etag_matches(LIT("*"), LIT("\"a\"")));
    assert_false(media_etag_matches(LIT("\"b\""), LIT("\"a\"")));
    assert_false(media_etag_matches((struct slice){0}, LIT("\"a\"")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_range_is_read),
        cmocka_unit_test(an_entity_tag_is_found_in_a_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
