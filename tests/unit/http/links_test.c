#include "homeserver/http/links.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void a_peer_has_a_link_until_either_side_ends_it(void **state)
{
    (void)state;
    struct http_links *links = http_links_new();
    int ours[2], theirs[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ours), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, theirs), 0);
    http_links_add(links, ours[0], LIT("a.org"));
    http_links_add(links, theirs[0], LIT("b.org:8448"));
    assert_true(http_links_has(links, LIT("a.org")));
    assert_true(http_links_has(links, LIT("b.org:8448")));
    assert_false(http_links_has(links, LIT("b.org")));
    assert_int_equal(write(theirs[1], "x", 1), 1);
    assert_true(http_links_has(links, LIT("b.org:8448"))); /* bytes wait: it is open */
    close(theirs[1]);
    assert_false(http_links_has(links, LIT("b.org:8448")));
    http_links_remove(links, ours[0]);
    assert_false(http_links_has(links, LIT("a.org")));
    http_links_free(&links);
    close(theirs[0]);
    close(ours[0]);
    close(ours[1]);
}

static void an_older_link_that_goes_leaves_the_newer_one(void **state)
{
    (void)state;
    struct http_links *links = http_links_new();
    int old[2], new[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, old), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, new), 0);
    http_links_add(links, old[0], LIT("a.org"));
    http_links_add(links, new[0], LIT("a.org"));
    http_links_remove(links, old[0]);
    assert_true(http_links_has(links, LIT("a.org")));
    http_links_add(links, new[0], LIT("b.org")); /* the descriptor came to be another's */
    assert_false(http_links_has(links, LIT("a.org")));
    assert_true(http_links_has(links, LIT("b.org")));
    http_links_remove(links, 5000);
    http_links_free(&links);
    for (int i = 0; i < 2; i++) {
        close(old[i]);
        close(new[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_peer_has_a_link_until_either_side_ends_it),
        cmocka_unit_test(an_older_link_that_goes_leaves_the_newer_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
