#include "federation/bulk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void little_stays_in_memory(void **state)
{
    struct bulk bulk;
    struct slice bytes;
    int fd = 0;
    (void)state;
    bulk_init(&bulk, LIT("/nowhere"), 0);
    assert_int_equal(bulk_add(&bulk, LIT("ab")).code, 0);
    assert_int_equal(bulk_add(&bulk, LIT("cd")).code, 0);
    assert_int_equal(bulk_read(&bulk, &bytes).code, 0);
    assert_true(slice_eq(bytes, LIT("abcd")));
    assert_int_equal(bulk_take_file(&bulk, &fd).code, 0);
    assert_int_equal(fd, -1);
    bulk_deinit(&bulk);
}

static void add_much(struct bulk *bulk, size_t pieces)
{
    static char piece[1 << 16];
    for (size_t i = 0; i < pieces; i++) {
        memset(piece, 'a' + (int)(i % 26), sizeof piece);
        assert_int_equal(bulk_add(bulk, (struct slice){piece, sizeof piece}).code, 0);
    }
}

static void much_goes_to_a_file_and_reads_the_same(void **state)
{
    struct bulk bulk;
    struct slice bytes;
    (void)state;
    bulk_init(&bulk, LIT("/tmp"), 0);
    add_much(&bulk, 50);
    assert_int_equal(bulk_read(&bulk, &bytes).code, 0);
    assert_int_equal(bytes.len, 50 << 16);
    bulk_rest(&bulk, bytes.len);
    for (size_t i = 0; i < 50; i++) {
        assert_int_equal(bytes.ptr[i << 16], 'a' + (int)(i % 26));
        assert_int_equal(bytes.ptr[(i << 16) + 65535], 'a' + (int)(i % 26));
    }
    bulk_clear(&bulk);
    assert_int_equal(bulk_add(&bulk, LIT("again")).code, 0);
    assert_int_equal(bulk_read(&bulk, &bytes).code, 0);
    assert_true(slice_eq(bytes, LIT("again")));
    bulk_deinit(&bulk);
}

static void the_file_can_be_taken(void **state)
{
    struct bulk bulk;
    int fd = -1;
    (void)state;
    bulk_init(&bulk, LIT("/tmp"), 0);
    add_much(&bulk, 20);
    assert_int_equal(bulk_add(&bulk, LIT("end")).code, 0);
    assert_int_equal(bulk_take_file(&bulk, &fd).code, 0);
    assert_true(fd >= 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), (20 << 16) + 3);
    close(fd);
    bulk_deinit(&bulk);
}

static void a_bound_is_kept(void **state)
{
    struct bulk bulk;
    (void)state;
    bulk_init(&bulk, LIT("/tmp"), 3);
    assert_int_equal(bulk_add(&bulk, LIT("abc")).code, 0);
    assert_int_equal(bulk_add(&bulk, LIT("d")).code, ERR_LIMIT);
    bulk_deinit(&bulk);
}

static void a_folder_that_is_not_there_is_an_error(void **state)
{
    static char piece[BULK_MEMORY_BYTES + 1];
    struct bulk bulk;
    (void)state;
    bulk_init(&bulk, LIT("/nowhere"), 0);
    assert_int_equal(bulk_add(&bulk, (struct slice){piece, sizeof piece}).code, ERR_IO);
    bulk_deinit(&bulk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(little_stays_in_memory),
        cmocka_unit_test(much_goes_to_a_file_and_reads_the_same),
        cmocka_unit_test(the_file_can_be_taken),
        cmocka_unit_test(a_bound_is_kept),
        cmocka_unit_test(a_folder_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
