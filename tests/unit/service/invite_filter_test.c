/* Whose invites a user takes: the lists of MSC4155 and the switch of the specification. */
#include "homeserver/service/invite_filter.h"

#include "homeserver/service/prefs.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define LISTS "org.matrix.msc4155.invite_permission_config"
#define SWITCH "m.invite_permission_config"

static const struct {
    const char *type, *content, *inviter;
    enum invite_verdict verdict;
} cases[] = {
    {SWITCH, "{\"default_action\":\"block\"}", "@bob:a.org", INVITE_BLOCKED},
    {SWITCH, "{\"default_action\":\"other\"}", "@bob:a.org", INVITE_ALLOWED},
    {SWITCH, "{\"blocked_users\":[\"@bob:a.org\"]}", "@bob:a.org", INVITE_ALLOWED},
    {LISTS, "{\"blocked_users\":[\"@bob:a.org\"]}", "@bob:a.org", INVITE_BLOCKED},
    {LISTS, "{\"blocked_users\":[\"@bob:a.org\"]}", "@bobby:a.org", INVITE_ALLOWED},
    {LISTS, "{\"ignored_users\":[\"@b*\"]}", "@bobby:a.org", INVITE_IGNORED},
    {LISTS, "{\"blocked_servers\":[\"a.org\"]}", "@bob:a.org:8448", INVITE_BLOCKED},
    {LISTS, "{\"blocked_servers\":[\"*.org\"]}", "@bob:b.net", INVITE_ALLOWED},
    {LISTS, "{\"ignored_servers\":[\"a.*\"],\"blocked_servers\":[\"*\"]}", "@bob:a.org",
     INVITE_IGNORED},
    {LISTS, "{\"allowed_servers\":[\"a.org\"],\"blocked_servers\":[\"*\"]}", "@bob:a.org",
     INVITE_ALLOWED},
    {LISTS, "{\"allowed_users\":[\"@bob:a.org\"],\"blocked_users\":[\"*\"]}", "@bob:a.org",
     INVITE_ALLOWED},
    {LISTS, "{\"blocked_users\":[\"@bob:a.org\"],\"allowed_servers\":[\"a.org\"]}", "@bob:a.org",
     INVITE_BLOCKED},
    {LISTS, "{\"enabled\":false,\"blocked_servers\":[\"*\"]}", "@bob:a.org", INVITE_ALLOWED},
    {LISTS, "{\"enabled\":true,\"blocked_servers\":[\"*\"]}", "@bob:a.org", INVITE_BLOCKED},
    {LISTS, "{\"allowed_users\":null,\"blocked_servers\":[\"*\"]}", "@bob:a.org", INVITE_BLOCKED},
    {LISTS, "{\"allowed_users\":\"no list\",\"blocked_servers\":[\"*\"]}", "@bob:a.org",
     INVITE_ALLOWED},
    {LISTS, "{\"blocked_servers\":[\"*\",5]}", "@bob:a.org", INVITE_ALLOWED},
};

static void the_first_list_that_names_the_sender_decides(void **state)
{
    struct house h;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        enum invite_verdict verdict = INVITE_ALLOWED;
        house_open(&h);
        struct guest ann = house_guest(&h, "ann");
        struct err err = hs_account_data_put(&h.hs, &h.ctx, ann.actor.user, 0,
                                             slice_of(cases[i].type), slice_of(cases[i].content));
        assert_int_equal(err.code, 0);
        err =
            hs_invite_verdict(&h.hs, &h.ctx, ann.actor.user, slice_of(cases[i].inviter), &verdict);
        assert_int_equal(err.code, 0);
        if (verdict != cases[i].verdict) {
            print_message("%s for %s\n", cases[i].content, cases[i].inviter);
        }
        assert_int_equal(verdict, cases[i].verdict);
        house_close(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_list_that_names_the_sender_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
