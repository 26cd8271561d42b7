/* Helpers that are none, and the real one's bounds. */
#include "homeserver/media/media_sandbox.h"

#include "tests/support/world.h"

#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static struct world w;

static int open_world(void **state)
{
    (void)state;
    world_open(&w, 0);
    w.ctx.may_wait = true;
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

/* A helper that is this script does a job; its result. */
static struct err run_with(const char *script, struct media_reply *reply_out)
{
    char path[] = "/tmp/myelin-helper-XXXXXX";
    const struct media_job job = {.kind = MEDIA_JOB_THUMBNAIL, .width = 32, .height = 32};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    dprintf(fd, "#!/bin/sh\n%s\n", script);
    fchmod(fd, 0700);
    close(fd);
    w.conf.media_helper = slice_of(path);
    struct media_sandbox *sandbox = media_sandbox_new(&w.hs);
    int input = memfd_create("input", MFD_CLOEXEC);
    struct err err = media_sandbox_run(sandbox, &w.ctx, &job, input, reply_out);
    close(input);
    media_sandbox_free(&sandbox);
    unlink(path);
    return err;
}

static void a_helper_that_does_not_help_means_no_picture(void **state)
{
    static const char *const scripts[] = {
        "exit 0",                                  /* dies */
        "exec sleep 60",                           /* does not answer */
        "exec cat /dev/zero >&3",                  /* answers nonsense */
        "head -c 32 /dev/zero >&3; exec sleep 60", /* half an answer */
        "printf '\\001\\001\\001\\001\\377\\377\\003' >&3; head -c 57 /dev/zero >&3", /* no bytes */
    };
    (void)state;
    w.conf.media_helper_timeout = 200;
    for (size_t i = 0; i < COUNT_OF(scripts); i++) {
        struct media_reply reply = {0};
        print_message("%s\n", scripts[i]);
        assert_int_equal(run_with(scripts[i], &reply).code, 0);
        assert_int_equal(reply.result, MEDIA_RESULT_NONE);
    }
}

static void what_is_forbidden_is_refused(void **state)
{
    char *const arguments[] = {(char *)(uintptr_t) "myelin-media", (char *)(uintptr_t) "--check",
                               NULL};
    char *const environment[] = {NULL};
    pid_t pid = 0;
    int status = -1;
    (void)state;
    assert_int_equal(posix_spawn(&pid, MEDIA_HELPER, NULL, NULL, arguments, environment), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void without_the_program_it_is_said(void **state)
{
    struct media_reply reply;
    const struct media_job job = {.kind = MEDIA_JOB_THUMBNAIL, .width = 32, .height = 32};
    (void)state;
    w.conf.media_helper = LIT("/nonexistent/helper");
    struct media_sandbox *sandbox = media_sandbox_new(&w.hs);
    assert_false(media_sandbox_is_there(sandbox));
    struct err err = media_sandbox_run(sandbox, &w.ctx, &job, 0, &reply);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    media_sandbox_free(&sandbox);
}

static void a_stopped_one_takes_no_jobs(void **state)
{
    struct media_reply reply;
    const struct media_job job = {.kind = MEDIA_JOB_THUMBNAIL, .width = 32, .height = 32};
    (void)state;
    w.conf.media_helper = LIT(MEDIA_HELPER);
    struct media_sandbox *sandbox = media_sandbox_new(&w.hs);
    media_sandbox_stop(sandbox);
    struct err err = media_sandbox_run(sandbox, &w.ctx, &job, 0, &reply);
    assert_int_equal(err.code, ERR_CANCELLED);
    media_sandbox_free(&sandbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_helper_that_does_not_help_means_no_picture),
        cmocka_unit_test(what_is_forbidden_is_refused),
        cmocka_unit_test(without_the_program_it_is_said),
        cmocka_unit_test(a_stopped_one_takes_no_jobs),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
