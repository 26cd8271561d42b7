#include "homeserver/sync/lazy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct sync_lazy_key key_of(int64_t member_event)
{
    return (struct sync_lazy_key){
        .user = 1, .device_id = LIT("D"), .room = 2, .member_event = member_event};
}

static void a_member_is_known_from_the_answer_on_that_carried_it(void **state)
{
    (void)state;
    struct sync_lazy *lazy = sync_lazy_new(100);
    struct sync_lazy_key key = key_of(7);
    assert_false(sync_lazy_has(lazy, &key, 100));
    sync_lazy_sent(lazy, &key, 50);
    assert_true(sync_lazy_has(lazy, &key, 50));
    assert_false(sync_lazy_has(lazy, &key, 49)); /* the same since again */
    sync_lazy_sent(lazy, &key, 60);
    assert_true(sync_lazy_has(lazy, &key, 50));
    key.device_id = LIT("E");
    assert_false(sync_lazy_has(lazy, &key, 100));
    sync_lazy_free(&lazy);
}

static void what_is_not_asked_for_is_forgotten_first(void **state)
{
    (void)state;
    struct sync_lazy *lazy = sync_lazy_new(20);
    struct sync_lazy_key kept = key_of(1);
    struct sync_lazy_key lost = key_of(2);
    sync_lazy_sent(lazy, &kept, 1);
    sync_lazy_sent(lazy, &lost, 1);
    for (int64_t i = 3; i < 200; i++) {
        struct sync_lazy_key key = key_of(i);
        sync_lazy_sent(lazy, &key, 1);
        assert_true(sync_lazy_has(lazy, &kept, 1));
    }
    assert_false(sync_lazy_has(lazy, &lost, 1));
    sync_lazy_free(&lazy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_is_known_from_the_answer_on_that_carried_it),
        cmocka_unit_test(what_is_not_asked_for_is_forgotten_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
