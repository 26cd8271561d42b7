#include "homeserver/admin/ops.h"

#include "homeserver/media/media.h"
#include "homeserver/service/users.h"
#include "tests/support/house.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

static struct house h;
static struct guest ann;
static struct json answer;

static int open_house(void **state)
{
    (void)state;
    house_open(&h);
    ann = house_guest(&h, "ann");
    return 0;
}

static int close_house(void **state)
{
    (void)state;
    house_close(&h);
    return 0;
}

/* Runs an operation; its answer stands in `answer`. */
static uint32_t run(const char *name, const char *args)
{
    struct json json;
    struct buf text;
    buf_init_arena(&text, h.ctx.arena, 1 << 20);
    struct json_out out = json_out_to(&text);
    assert_int_equal(json_parse(h.ctx.arena, slice_of(args), &json).code, 0);
    struct err err = admin_run(&h.hs, &h.ctx, slice_of(name), &json, &out);
    answer = json_object();
    if (err.code == 0) {
        assert_int_equal(json_parse(h.ctx.arena, buf_slice(&text), &answer).code, 0);
    }
    return err.code;
}

static bool has_flag(const char *flag)
{
    const struct json *flags = json_get_array(&answer, LIT("flags"));
    for (uint32_t i = 0; flags && i < flags->count; i++) {
        if (json_is_string(&flags->items[i], slice_of(flag))) {
            return true;
        }
    }
    return false;
}

static void accounts_are_made_with_a_password_that_works(void **state)
{
    uint64_t user = 0;
    bool found = false;
    bool right = false;
    (void)state;
    assert_int_equal(run("users/create", "{\"user\":\"bob\",\"admin\":true}"), 0);
    struct slice password = json_get_string(&answer, LIT("password"));
    assert_true(slice_eq(json_get_string(&answer, LIT("user_id")), LIT("@bob:test")));
    assert_true(password.len >= 16);
    assert_int_equal(hs_user_find(&h.hs, &h.ctx, LIT("@bob:test"), &user, &found).code, 0);
    assert_int_equal(hs_account_check_password(&h.hs, &h.ctx, user, password, &right).code, 0);
    assert_true(right);
    assert_int_equal(run("users/create", "{\"user\":\"bob\"}"), ERR_M_USER_IN_USE);
    assert_int_equal(run("users/create", "{\"user\":\"B B\"}"), ERR_M_INVALID_PARAM);
    assert_int_equal(run("users/create", "{\"user\":\"@bob:elsewhere\"}"), ERR_M_INVALID_USERNAME);
    assert_int_equal(run("users/show", "{\"user\":\"bob\"}"), 0);
    assert_true(has_flag("admin"));
    assert_non_null(json_get(&answer, LIT("file_bytes")));
    assert_int_equal(run("users/list", "{}"), 0);
    assert_int_equal(json_get_array(&answer, LIT("users"))->count, 2);
}

static void a_new_password_signs_devices_out(void **state)
{
    (void)state;
    assert_int_equal(run("devices/list", "{\"user\":\"ann\"}"), 0);
    assert_int_equal(json_get_array(&answer, LIT("devices"))->count, 1);
    assert_int_equal(
        run("users/reset_password", "{\"user\":\"ann\",\"password\":\"p\",\"keep_devices\":true}"),
        0);
    assert_null(json_get_string(&answer, LIT("password")).ptr);
    assert_int_equal(run("devices/list", "{\"user\":\"ann\"}"), 0);
    assert_int_equal(json_get_array(&answer, LIT("devices"))->count, 1);
    assert_int_equal(run("users/reset_password", "{\"user\":\"@ann:test\"}"), 0);
    assert_int_equal(run("devices/list", "{\"user\":\"ann\"}"), 0);
    assert_int_equal(json_get_array(&answer, LIT("devices"))->count, 0);
}

static void flags_are_set_and_taken_back(void **state)
{
    static const struct {
        const char *set, *take, *flag;
    } pairs[] = {{"users/lock", "users/unlock", "locked"},
                 {"users/suspend", "users/unsuspend", "suspended"},
                 {"users/make_admin", "users/remove_admin", "admin"}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        assert_int_equal(run(pairs[i].set, "{\"user\":\"ann\"}"), 0);
        assert_true(has_flag(pairs[i].flag));
        assert_int_equal(run(pairs[i].take, "{\"user\":\"ann\"}"), 0);
        assert_false(has_flag(pairs[i].flag));
    }
    assert_int_equal(run("users/deactivate", "{\"user\":\"ann\"}"), 0);
    assert_int_equal(run("users/show", "{\"user\":\"ann\"}"), 0);
    assert_true(has_flag("deactivated"));
    assert_int_equal(run("users/reset_password", "{\"user\":\"ann\"}"), ERR_M_BAD_STATE);
}

static void devices_are_deleted_one_by_one(void **state)
{
    (void)state;
    assert_int_equal(run("devices/delete", "{\"user\":\"ann\",\"device\":\"X\"}"), ERR_M_NOT_FOUND);
    assert_int_equal(run("devices/delete", "{\"user\":\"ann\",\"device\":\"DEVICE\"}"), 0);
    assert_int_equal(run("devices/delete", "{\"user\":\"ann\",\"device\":\"DEVICE\"}"),
                     ERR_M_NOT_FOUND);
}

static void rooms_are_shown_and_purged(void **state)
{
    (void)state;
    house_room(&h, &ann, "{\"name\":\"Hall\",\"room_alias_name\":\"hall\"}");
    assert_int_equal(run("rooms/list", "{}"), 0);
    assert_int_equal(json_get_array(&answer, LIT("rooms"))->count, 1);
    assert_int_equal(run("rooms/show", "{\"room\":\"#hall:test\"}"), 0);
    assert_true(slice_eq(json_get_string(&answer, LIT("name")), LIT("Hall")));
    assert_int_equal(run("rooms/members", "{\"room\":\"#hall:test\",\"membership\":\"join\"}"), 0);
    assert_int_equal(json_get_array(&answer, LIT("members"))->count, 1);
    assert_int_equal(run("rooms/members", "{\"room\":\"#hall:test\",\"membership\":\"x\"}"),
                     ERR_M_INVALID_PARAM);
    assert_int_equal(run("rooms/purge", "{\"room\":\"#hall:test\"}"), 0);
    assert_int_equal(run("rooms/purge", "{\"room\":\"#hall:test\"}"), ERR_M_NOT_FOUND);
    assert_int_equal(run("rooms/list", "{}"), 0);
    assert_int_equal(json_get_array(&answer, LIT("rooms"))->count, 0);
}

static void registration_tokens_come_and_go(void **state)
{
    int64_t uses = 0;
    (void)state;
    assert_int_equal(
        run("registration_tokens/create", "{\"token\":\"abc\",\"uses_allowed\":3,\"days\":1}"), 0);
    assert_true(json_get_int(&answer, LIT("uses_allowed"), &uses));
    assert_int_equal(uses, 3);
    assert_int_equal(run("registration_tokens/create", "{\"uses_allowed\":-2}"),
                     ERR_M_INVALID_PARAM);
    assert_int_equal(run("registration_tokens/create", "{}"), 0);
    assert_false(json_get_int(&answer, LIT("uses_allowed"), &uses));
    assert_int_equal(run("registration_tokens/list", "{}"), 0);
    assert_int_equal(json_get_array(&answer, LIT("registration_tokens"))->count, 2);
    assert_int_equal(run("registration_tokens/delete", "{\"token\":\"abc\"}"), 0);
    assert_int_equal(run("registration_tokens/delete", "{\"token\":\"abc\"}"), ERR_M_NOT_FOUND);
}

static void the_search_index_is_shown_and_removed(void **state)
{
    int64_t bytes = -1;
    (void)state;
    h.conf.data_dir = LIT("/tmp/myelin-test-there-is-none");
    assert_int_equal(run("search/show", "{}"), 0);
    assert_true(json_get_bool(&answer, LIT("enabled"), false));
    assert_true(json_get_int(&answer, LIT("file_bytes"), &bytes));
    assert_int_equal(bytes, 0);
    assert_int_equal(run("search/rebuild", "{}"), 0);
    assert_true(slice_eq(json_get_string(&answer, LIT("begun")), LIT("with the next start")));
}

static void what_is_missing_or_unknown_is_said(void **state)
{
    (void)state;
    assert_int_equal(run("users/show", "{}"), ERR_M_MISSING_PARAM);
    assert_int_equal(run("users/show", "{\"user\":\"nobody\"}"), ERR_M_NOT_FOUND);
    assert_int_equal(run("users/list", "{\"from\":\"x\"}"), ERR_M_INVALID_PARAM);
    assert_int_equal(run("nothing", "{}"), ERR_M_UNRECOGNIZED);
    assert_int_equal(run("stats", "{}"), 0);
    assert_int_equal(run("compact", "{}"), 0);
}

static struct err fetch(const char *media_id)
{
    struct http_reply reply = {.file_fd = -1};
    struct media_view view = {.media_id = slice_of(media_id)};
    buf_init_arena(&reply.body, h.ctx.arena, 65536);
    struct err err = media_serve(&h.hs, &h.ctx, NULL, &reply, &view, 0);
    if (reply.file_fd >= 0) {
        close(reply.file_fd);
    }
    return err;
}

static void put_file(const char *media_id, const char *origin)
{
    struct media_upload upload;
    const struct media draft = {.media_id = slice_of(media_id),
                                .content_type = LIT("text/plain"),
                                .origin = slice_of(origin)};
    assert_int_equal(media_upload_begin(&h.hs, &upload).code, 0);
    assert_int_equal(media_upload_append(&upload, LIT("hi")).code, 0);
    assert_int_equal(media_upload_finish_remote(&h.hs, &h.ctx, &upload, &draft).code, 0);
}

static void a_file_in_quarantine_is_served_to_nobody(void **state)
{
    (void)state;
    put_file("bad", "");
    assert_int_equal(run("media/quarantine", "{\"mxc\":\"mxc://test/bad\"}"), 0);
    assert_int_equal(fetch("bad").code, ERR_M_NOT_FOUND);
    assert_int_equal(run("media/show", "{\"mxc\":\"mxc://test/bad\"}"), 0);
    assert_true(json_get_bool(&answer, LIT("is_quarantined"), false));
    assert_int_equal(run("media/release", "{\"mxc\":\"mxc://test/bad\"}"), 0);
    assert_int_equal(fetch("bad").code, 0);
    assert_int_equal(run("media/delete", "{\"mxc\":\"mxc://test/bad\"}"), 0);
    assert_int_equal(fetch("bad").code, ERR_M_NOT_FOUND);
    assert_int_equal(run("media/show", "{\"mxc\":\"mxc://test/bad\"}"), ERR_M_NOT_FOUND);
    assert_int_equal(run("media/quarantine", "{\"mxc\":\"mxc://test/bad\"}"), ERR_M_NOT_FOUND);
    assert_int_equal(run("media/show", "{\"mxc\":\"mxc://test/../x\"}"), ERR_M_INVALID_PARAM);
    assert_int_equal(run("media/show", "{\"mxc\":\"bad\"}"), ERR_M_INVALID_PARAM);
}

static void files_of_other_servers_are_kept_out_and_purged(void **state)
{
    struct slice kept = media_remote_id(h.ctx.arena, LIT("far"), LIT("file"));
    struct slice old = media_remote_id(h.ctx.arena, LIT("far"), LIT("old"));
    (void)state;
    assert_int_equal(run("media/quarantine", "{\"mxc\":\"mxc://far/never\"}"), 0);
    put_file(kept.ptr, "far");
    put_file(old.ptr, "far");
    assert_int_equal(run("media/quarantine", "{\"mxc\":\"mxc://far/file\"}"), 0);
    assert_int_equal(run("media/purge_remote", "{\"before\":\"1990-01-01\"}"), 0);
    assert_int_equal(fetch(old.ptr).code, 0);
    assert_int_equal(run("media/purge_remote", "{\"before\":\"2200-01-01\"}"), 0);
    int64_t files = 0;
    assert_true(json_get_int(&answer, LIT("files"), &files) && files == 1);
    assert_int_equal(fetch(old.ptr).code, ERR_M_NOT_FOUND);
    assert_int_equal(run("media/release", "{\"mxc\":\"mxc://far/file\"}"), 0);
    assert_int_equal(fetch(kept.ptr).code, 0);
    assert_int_equal(run("media/release", "{\"mxc\":\"mxc://far/never\"}"), 0);
    assert_int_equal(run("media/show", "{\"mxc\":\"mxc://far/never\"}"), ERR_M_NOT_FOUND);
    assert_int_equal(run("media/purge_remote", "{\"before\":\"soon\"}"), ERR_M_INVALID_PARAM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(accounts_are_made_with_a_password_that_works, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_new_password_signs_devices_out, open_house, close_house),
        cmocka_unit_test_setup_teardown(flags_are_set_and_taken_back, open_house, close_house),
        cmocka_unit_test_setup_teardown(devices_are_deleted_one_by_one, open_house, close_house),
        cmocka_unit_test_setup_teardown(rooms_are_shown_and_purged, open_house, close_house),
        cmocka_unit_test_setup_teardown(registration_tokens_come_and_go, open_house, close_house),
        cmocka_unit_test_setup_teardown(the_search_index_is_shown_and_removed, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(what_is_missing_or_unknown_is_said, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(a_file_in_quarantine_is_served_to_nobody, open_house,
                                        close_house),
        cmocka_unit_test_setup_teardown(files_of_other_servers_are_kept_out_and_purged, open_house,
                                        close_house),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
