/* myelin-media: reads pictures and pages for the server, confined. Started by the server, which
 * hands it jobs over the socket that is descriptor 3; nobody else needs to. */
#include "tools/myelin-media/helper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SOCKET_FD = 3, EXIT_CANNOT = 1, EXIT_USAGE = 2 };

static const char usage[] =
    "usage: myelin-media --serve | --check | --help | --version\n"
    "\n"
    "Makes thumbnails and reads pages to preview for a Myelin server, in a process that can open\n"
    "no files and reach no network. The server starts it by itself.\n"
    "\n"
    "  --serve   take jobs from descriptor 3\n"
    "  --check   prove that what is forbidden is refused on this system\n";

/* A job's record and its input; false at the end, or when the server says something odd. */
static bool receive(char record[MEDIA_JOB_BYTES], int *fd_out)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec into = {record, MEDIA_JOB_BYTES};
    struct msghdr message = {.msg_iov = &into,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    *fd_out = -1;
    ssize_t got = recvmsg(SOCKET_FD, &message, MSG_WAITALL | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(fd_out, CMSG_DATA(header), sizeof(int));
    }
    return got == MEDIA_JOB_BYTES && *fd_out >= 0;
}

static bool send_all(struct slice bytes)
{
    while (bytes.len) {
        ssize_t sent = send(SOCKET_FD, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        bytes = slice_from(bytes, (size_t)sent);
    }
    return true;
}

static bool answer(const struct media_reply *reply)
{
    char record[MEDIA_REPLY_BYTES];
    media_reply_encode(reply, record);
    return send_all((struct slice){record, sizeof record}) && send_all(reply->bytes);
}

static void run(struct charset_reader *charsets, struct arena *arena, const struct media_job *job,
                int fd, struct media_reply *reply)
{
    off_t end = lseek(fd, 0, SEEK_END);
    size_t len = end > 0 ? (size_t)end : 0;
    *reply = (struct media_reply){.result = MEDIA_RESULT_NONE};
    if (len == 0) {
        return;
    }
    void *input = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (input == MAP_FAILED) {
        reply->result = MEDIA_RESULT_TOO_LARGE;
        return;
    }
    if (job->kind == MEDIA_JOB_PAGE) {
        page_run(charsets, arena, job, (struct slice){input, len}, reply);
    } else {
        picture_run(arena, job, (struct slice){input, len}, reply);
    }
    munmap(input, len);
}

static int serve(struct charset_reader *charsets, struct arena *arena)
{
    char record[MEDIA_JOB_BYTES];
    int fd = -1;
    bool good = true;
    while (good && receive(record, &fd)) {
        struct media_job job;
        struct media_reply reply;
        good = media_job_decode((struct slice){record, sizeof record}, &job).code == 0;
        if (good) {
            run(charsets, arena, &job, fd, &reply);
            good = answer(&reply);
        }
        close(fd);
        arena_reset(arena);
    }
    return 0;
}

static int start(bool is_check)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct arena *arena = arena_new();
    struct charset_reader *charsets = charset_reader_new();
    page_init();
    if (!picture_init(arena)) {
        fputs("myelin-media: libvips cannot be used\n", stderr);
        return EXIT_CANNOT;
    }
    if (!confine()) {
        fputs("myelin-media: this system does not let a process confine itself\n", stderr);
        return EXIT_CANNOT;
    }
    if (is_check) {
        return confine_check() ? 0 : EXIT_CANNOT;
    }
    return serve(charsets, arena);
}

int main(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--serve") == 0 || strcmp(argv[1], "--check") == 0)) {
        _exit(start(strcmp(argv[1], "--check") == 0)); /* at once: no handlers of libraries */
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("myelin-media " MYELIN_VERSION);
        return 0;
    }
    bool asked = argc == 2 && strcmp(argv[1], "--help") == 0;
    fputs(usage, asked ? stdout : stderr);
    return asked ? 0 : EXIT_USAGE;
}
