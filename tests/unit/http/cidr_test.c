#include "homeserver/http/cidr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* Synapse CVE-2021-21392. */
static void public_addresses_are_told_from_others(void **state)
{
    static const struct {
        const char *text;
        bool is_public;
    } cases[] = {
        {"8.8.8.8", true},
        {"127.0.0.1", false},
        {"10.1.2.3", false},
        {"11.0.0.0", true},
        {"100.64.0.1", false},
        {"100.128.0.0", true},
        {"169.254.169.254", false},
        {"172.15.255.255", true},
        {"172.31.255.255", false},
        {"192.168.0.1", false},
        {"0.0.0.0", false},
        {"255.255.255.255", false},
        {"224.0.0.1", false},
        {"223.255.255.255", true},
        {"::", false},
        {"::1", false},
        {"::ffff:127.0.0.1", false},
        {"::ffff:8.8.8.8", true},
        {"2a00::1", true},
        {"2001:db8::1", false},
        {"fc00::1", false},
        {"fe80::1", false},
        {"ff02::1", false},
        {"64:ff9b::10.0.0.1", false},
        {"64:ff9b::8.8.8.8", true},
        {"2002:a00:1::", false},
        {"2002:808:808::", true},
        {"2001:4860:4860::8888", true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct http_address address;
        assert_true(http_address_parse(slice_of(cases[i].text), &address));
        if (http_address_is_public(&address) != cases[i].is_public) {
            fail_msg("%s", cases[i].text);
        }
    }
}

static void ranges_contain_their_addresses(void **state)
{
    static const struct {
        const char *range, *address;
        bool inside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.0.1", true},  {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/9", "10.128.0.0", false}, {"10.0.0.1", "10.0.0.1", true},
        {"10.0.0.1", "10.0.0.2", false},     {"0.0.0.0/0", "1.2.3.4", true},
        {"0.0.0.0/0", "2a00::1", false},     {"::/0", "1.2.3.4", true},
        {"2a00::/12", "2a0f::1", true},      {"2a00::/12", "2a10::1", false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct http_cidr cidr;
        struct http_address address;
        assert_true(http_cidr_parse(slice_of(cases[i].range), &cidr));
        assert_true(http_address_parse(slice_of(cases[i].address), &address));
        if (http_cidr_contains(&cidr, &address) != cases[i].inside) {
            fail_msg("%s %s", cases[i].range, cases[i].address);
        }
    }
}

static void malformed_ranges_are_refused(void **state)
{
    static const char *const cases[] = {"",    "10.0.0.0/33", "10.0.0.0/",   "::/129",
                                        "a/8", "10.0.0/8",    "10.0.0.0/-1", "/8"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct http_cidr cidr;
        assert_false(http_cidr_parse(slice_of(cases[i]), &cidr));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_addresses_are_told_from_others),
        cmocka_unit_test(ranges_contain_their_addresses),
        cmocka_unit_test(malformed_ranges_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
