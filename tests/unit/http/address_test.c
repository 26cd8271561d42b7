#include "homeserver/http/priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void the_nearest_untrusted_address_counts(void **state)
{
    static const struct slice trusted[] = {{"127.0.0.1", 9}, {"10.0.0.1", 8}, {"::1", 3}};
    static const struct {
        const char *peer, *header, *expected;
    } cases[] = {
        {"127.0.0.1", "", "127.0.0.1"},
        {"127.0.0.1", "1.2.3.4", "1.2.3.4"},
        {"127.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"},
        {"127.0.0.1", "6.6.6.6, 1.2.3.4 , 10.0.0.1", "1.2.3.4"},
        {"5.5.5.5", "1.2.3.4", "5.5.5.5"},
        {"127.0.0.1", "1.2.3.4:555", "1.2.3.4"},
        {"::1", "[2a00::1]:555", "2a00::1"},
        {"::1", "2a00::1", "2a00::1"},
        {"127.0.0.1", "1.2.3.4, unknown", "127.0.0.1"},
        {"127.0.0.1", ",,,", "127.0.0.1"},
        {"127.0.0.1", "10.0.0.1", "10.0.0.1"},
        {"127.0.0.1", "<script>", "127.0.0.1"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice found = http_address_forwarded(
            slice_of(cases[i].peer), slice_of(cases[i].header), trusted, COUNT_OF(trusted));
        if (!slice_eq(found, slice_of(cases[i].expected))) {
            fail_msg("%s via %s: %.*s", cases[i].header, cases[i].peer, (int)found.len, found.ptr);
        }
    }
}

static void connections_are_counted_per_address(void **state)
{
    struct http_addresses *addresses = http_addresses_new(2);
    const unsigned char one[8] = {1};
    const unsigned char two[8] = {2};
    (void)state;
    assert_true(http_addresses_enter(addresses, one));
    assert_true(http_addresses_enter(addresses, one));
    assert_false(http_addresses_enter(addresses, one));
    assert_true(http_addresses_enter(addresses, two));
    http_addresses_leave(addresses, one);
    assert_true(http_addresses_enter(addresses, one));
    http_addresses_free(&addresses);
    assert_null(addresses);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nearest_untrusted_address_counts),
        cmocka_unit_test(connections_are_counted_per_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
