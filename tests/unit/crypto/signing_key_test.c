#include "crypto/signing_key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

struct place {
    char folder[64];
    char path[96];
};

static int make_place(void **state)
{
    static struct place place;
    snprintf(place.folder, sizeof place.folder, "/tmp/signing_key_test.XXXXXX");
    assert_non_null(mkdtemp(place.folder));
    snprintf(place.path, sizeof place.path, "%s/signing.key", place.folder);
    *state = &place;
    return 0;
}

static int drop_place(void **state)
{
    struct place *place = *state;
    unlink(place->path);
    return rmdir(place->folder);
}

static void put(const struct place *place, const char *text)
{
    FILE *file = fopen(place->path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void a_new_file_is_private_and_stays_the_same(void **state)
{
    struct place *place = *state;
    struct signing_key *first = NULL;
    struct signing_key *second = NULL;
    struct stat info;
    assert_int_equal(signing_key_load(slice_of(place->path), &first).code, 0);
    assert_int_equal(stat(place->path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(signing_key_load(slice_of(place->path), &second).code, 0);
    assert_true(slice_eq(signing_key_id(first), signing_key_id(second)));
    assert_true(slice_has_prefix(signing_key_id(first), LIT("ed25519:a_")));
    signing_key_free(&first);
    signing_key_free(&second);
}

/* The seed of the specification's test vectors. Spec: appendices, "Signing Key". */
static void a_written_key_is_read(void **state)
{
    struct place *place = *state;
    struct signing_key *key = NULL;
    struct ed25519_public expected;
    put(place, "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n");
    assert_int_equal(signing_key_load(slice_of(place->path), &key).code, 0);
    assert_true(slice_eq(signing_key_id(key), LIT("ed25519:1")));
    assert_true(
        ed25519_parse_public(LIT("XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"), &expected));
    struct ed25519_public real = signing_key_public(key);
    assert_memory_equal(&real, &expected, sizeof real);
    signing_key_free(&key);
}

static void rotation_keeps_the_old_key_with_its_end(void **state)
{
    struct place *place = *state;
    struct signing_key *before = NULL;
    struct signing_key *after = NULL;
    size_t count = 0;
    assert_int_equal(signing_key_load(slice_of(place->path), &before).code, 0);
    assert_int_equal(signing_key_rotate(slice_of(place->path), 1234567890123).code, 0);
    assert_int_equal(signing_key_rotate(slice_of(place->path), 1234567890999).code, 0);
    assert_int_equal(signing_key_load(slice_of(place->path), &after).code, 0);
    const struct signing_key_old *olds = signing_key_olds(after, &count);
    assert_int_equal(count, 2);
    assert_int_equal(olds[1].expired_ms, 1234567890123);
    assert_true(slice_eq(olds[1].key_id, signing_key_id(before)));
    struct ed25519_public public_key = signing_key_public(before);
    assert_memory_equal(&olds[1].public_key, &public_key, sizeof public_key);
    assert_false(slice_eq(signing_key_id(after), signing_key_id(before)));
    signing_key_free(&before);
    signing_key_free(&after);
}

static void broken_files_are_refused(void **state)
{
    struct place *place = *state;
    static const char *const texts[] = {
        "",
        "ed25519 a\n",
        "ed25519 a short\n",
        "rsa a YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n",
        "ed25519 a-b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n",
        "old_ed25519 a YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1 soon\n",
    };
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct signing_key *key = NULL;
        put(place, texts[i]);
        assert_int_equal(signing_key_load(slice_of(place->path), &key).code, ERR_CORRUPT);
        assert_null(key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_new_file_is_private_and_stays_the_same, make_place,
                                        drop_place),
        cmocka_unit_test_setup_teardown(a_written_key_is_read, make_place, drop_place),
        cmocka_unit_test_setup_teardown(rotation_keeps_the_old_key_with_its_end, make_place,
                                        drop_place),
        cmocka_unit_test_setup_teardown(broken_files_are_refused, make_place, drop_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
