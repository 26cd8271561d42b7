#include "homeserver/sync/marks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void each_room_stands_once_in_order_of_its_last_change(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct sync_marks marks = {0};
    uint64_t *rooms = NULL;
    for (uint64_t pos = 1; pos <= 9; pos++) {
        sync_marks_add(&marks, pos % 3, pos, 8);
    }
    assert_int_equal(marks.count, 3);
    assert_int_equal(sync_marks_after(&marks, arena, 0, &rooms), 3);
    assert_int_equal(rooms[0], 1);
    assert_int_equal(rooms[2], 0);
    assert_int_equal(sync_marks_after(&marks, arena, 8, &rooms), 1);
    assert_int_equal(rooms[0], 0);
    assert_int_equal(sync_marks_after(&marks, arena, 9, &rooms), 0);
    sync_marks_deinit(&marks);
    arena_free(&arena);
}

static void forgetting_a_room_moves_complete_since(void **state)
{
    (void)state;
    struct sync_marks marks = {.complete_since = 10};
    for (uint64_t i = 0; i < 5; i++) {
        sync_marks_add(&marks, 100 + i, 11 + i, 4);
    }
    assert_int_equal(marks.count, 4);
    assert_int_equal(marks.complete_since, 11);
    sync_marks_deinit(&marks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_room_stands_once_in_order_of_its_last_change),
        cmocka_unit_test(forgetting_a_room_moves_complete_since),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
