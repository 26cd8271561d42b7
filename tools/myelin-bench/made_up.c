#include "tools/myelin-bench/made_up.h"

#include "homeserver/base/mem.h"
#include "tools/myelin-bench/made_up_priv.h"
#include "tools/myelin-bench/names.h"

#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_TRIES = 2000, START_TRY_NS = 5000000 };

extern char **environ;

struct made_up {
    struct made_up_config config;
    char *certificate, *key;           /* owned */
    char (*names)[MADE_UP_NAME_BYTES]; /* owned */
    struct made_up_shared *shared;
    int shared_fd;
    pid_t pids[GROUPS]; /* 0 = dead */
    int silent_fd;
    struct names *dns;
};

static enum made_up_group group_of(size_t index)
{
    static const enum made_up_group dead[] = {REFUSING, SILENT, HUNG};
    return index % 2 == 0 ? LIVING : dead[index / 2 % COUNT_OF(dead)];
}

bool made_up_is_mortal(size_t index)
{
    return group_of(index) != LIVING;
}

size_t made_up_living(const struct made_up *made_up)
{
    return (made_up->config.count + 1) / 2;
}

struct slice made_up_name(const struct made_up *made_up, size_t index)
{
    return slice_of(made_up->names[index]);
}

struct json_signer made_up_signer(const struct made_up *made_up, size_t index)
{
    return (struct json_signer){
        {made_up_name(made_up, index)}, LIT(MADE_UP_KEY_ID), &made_up->shared->key};
}

struct slice made_up_authorization(const struct made_up *made_up, struct arena *arena, size_t index,
                                   const struct json *request)
{
    struct json_signer signer = made_up_signer(made_up, index);
    struct slice name = made_up_name(made_up, index);
    struct slice destination = json_get_string(request, LIT("destination"));
    struct json signed_request = *request;
    json_set(arena, &signed_request, LIT("origin"), json_string(name));
    json_sign(arena, &signed_request, &signer);
    struct slice sig = json_sign_find(&signed_request, name, signer.key_id);
    return arena_printf(arena,
                        "X-Matrix origin=\"%.*s\",destination=\"%.*s\",key=\"%s\",sig=\"%.*s\"",
                        (int)name.len, name.ptr, (int)destination.len, destination.ptr,
                        MADE_UP_KEY_ID, (int)sig.len, sig.ptr);
}

/* --- processes --- */

int made_up_main(int argc, char **argv)
{
    if (argc != 7) {
        return 2;
    }
    int fd = (int)strtol(argv[2], NULL, 10);
    struct made_up_serving serving = {.port = (uint16_t)strtoul(argv[3], NULL, 10),
                                      .count = strtoul(argv[4], NULL, 10),
                                      .certificate = argv[5],
                                      .key = argv[6]};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    serving.shared = mmap(NULL, sizeof *serving.shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (serving.shared == MAP_FAILED) {
        return 1;
    }
    struct err err = made_up_serve(&serving);
    fprintf(stderr, "made-up servers: %s\n", err.text);
    return 1;
}

static struct err await(const struct made_up *made_up, uint32_t listening)
{
    const struct timespec pause = {.tv_nsec = START_TRY_NS};
    for (int i = 0; i < START_TRIES; i++) {
        if (atomic_load(&made_up->shared->listening) == listening) {
            return OK;
        }
        nanosleep(&pause, NULL);
    }
    return err_public(ERR_IO, "a process of the made-up servers does not start");
}

static struct err start_group(struct made_up *made_up, enum made_up_group group)
{
    char fd[16], port[16], count[16];
    char *argv[] = {"myelin-bench", MADE_UP_ARGUMENT,     fd,           port,
                    count,          made_up->certificate, made_up->key, NULL};
    uint32_t listening = atomic_load(&made_up->shared->listening);
    snprintf(fd, sizeof fd, "%d", made_up->shared_fd);
    snprintf(port, sizeof port, "%u", (unsigned)made_up->config.port + (unsigned)group);
    snprintf(count, sizeof count, "%zu", made_up->config.count);
    if (posix_spawn(&made_up->pids[group], "/proc/self/exe", NULL, NULL, argv, environ) != 0) {
        made_up->pids[group] = 0;
        return err_public(ERR_IO, "no process can be made for the made-up servers");
    }
    return await(made_up, listening + 1);
}

static void kill_group(struct made_up *made_up, enum made_up_group group)
{
    if (made_up->pids[group] > 0) {
        kill(made_up->pids[group], SIGKILL);
        waitpid(made_up->pids[group], NULL, 0);
        made_up->pids[group] = 0;
    }
}

static void end_silence(struct made_up *made_up)
{
    if (made_up->silent_fd >= 0) {
        close(made_up->silent_fd);
        made_up->silent_fd = -1;
    }
}

struct err made_up_restart(struct made_up *made_up, enum made_up_part part)
{
    size_t groups = part == MADE_UP_ALL ? GROUPS : LIVING + 1;
    if (part == MADE_UP_ALL) {
        end_silence(made_up);
    }
    for (size_t i = 0; i < groups; i++) {
        kill_group(made_up, (enum made_up_group)i);
        TRY(start_group(made_up, (enum made_up_group)i));
    }
    return OK;
}

struct err made_up_kill_half(struct made_up *made_up)
{
    kill_group(made_up, REFUSING);
    kill_group(made_up, SILENT);
    kill(made_up->pids[HUNG], SIGSTOP);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)(made_up->config.port + SILENT)),
                                  .sin_addr.s_addr = htonl(INADDR_ANY)};
    int on = 1;
    made_up->silent_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(made_up->silent_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    /* Nobody accepts: when the queue is full, packets of further peers are dropped. */
    bool good = made_up->silent_fd >= 0 &&
                bind(made_up->silent_fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                listen(made_up->silent_fd, 1) == 0;
    return good ? OK : err_public(ERR_IO, "the port of the silent servers cannot be taken again");
}

/* --- life --- */

static char *copy_text(struct slice text)
{
    char *copy = mem_alloc(text.len + 1);
    memcpy(copy, text.ptr, text.len);
    return copy;
}

static struct err share(struct made_up *made_up)
{
    size_t bytes = sizeof *made_up->shared;
    made_up->shared_fd = memfd_create("made-up", 0); /* the processes inherit it */
    if (made_up->shared_fd < 0 || ftruncate(made_up->shared_fd, (off_t)bytes) != 0) {
        return err_public(ERR_IO, "no memory can be shared with the made-up servers");
    }
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, made_up->shared_fd, 0);
    if (memory == MAP_FAILED) {
        return err_public(ERR_IO, "no memory can be shared with the made-up servers");
    }
    made_up->shared = memory;
    made_up->shared->key = ed25519_generate();
    return OK;
}

static void name_all(struct made_up *made_up)
{
    const struct made_up_config *config = &made_up->config;
    made_up->names = mem_alloc(config->count * sizeof *made_up->names);
    for (size_t i = 0; i < config->count; i++) {
        size_t port = config->port + (size_t)group_of(i);
        if (config->naming == MADE_UP_BY_NAME) {
            snprintf(made_up->names[i], MADE_UP_NAME_BYTES, "d%zu.made-up.test:%zu", i, port);
        } else {
            snprintf(made_up->names[i], MADE_UP_NAME_BYTES, "127.1.%zu.%zu:%zu", i / NAMES_A_NET,
                     i % NAMES_A_NET + 1, port);
        }
    }
}

struct err made_up_new(const struct made_up_config *config, struct made_up **made_up_out)
{
    struct made_up *made_up = mem_alloc(sizeof *made_up);
    *made_up = (struct made_up){.config = *config, .silent_fd = -1, .shared_fd = -1};
    *made_up_out = made_up;
    made_up->certificate = copy_text(config->certificate);
    made_up->key = copy_text(config->key);
    name_all(made_up);
    TRY(share(made_up));
    if (config->naming == MADE_UP_BY_NAME) {
        TRY(names_new((uint16_t)(config->port + GROUPS), &made_up->dns));
    }
    return made_up_restart(made_up, MADE_UP_ALL);
}

void made_up_free(struct made_up **made_up)
{
    struct made_up *old = *made_up;
    if (!old) {
        return;
    }
    for (size_t i = 0; i < GROUPS; i++) {
        kill_group(old, (enum made_up_group)i);
    }
    end_silence(old);
    names_free(&old->dns);
    if (old->shared) {
        munmap(old->shared, sizeof *old->shared);
    }
    if (old->shared_fd >= 0) {
        close(old->shared_fd);
    }
    mem_free(old->certificate);
    mem_free(old->key);
    mem_free(old->names);
    mem_free(old);
    *made_up = NULL;
}

/* --- what arrives --- */

void made_up_expect(struct made_up *made_up, struct slice text)
{
    struct made_up_shared *shared = made_up->shared;
    atomic_store(&shared->text_len, 0);
    atomic_store(&shared->arrived, 0);
    for (size_t i = 0; i < MADE_UP_MAX; i++) {
        atomic_store(&shared->has[i], false);
        atomic_store(&shared->arrivals[i], 0);
    }
    size_t len = text.len < sizeof shared->text ? text.len : 0;
    memcpy(shared->text, text.ptr, len);
    atomic_store(&shared->text_len, (uint32_t)len);
}

size_t made_up_arrived(const struct made_up *made_up)
{
    return atomic_load(&made_up->shared->arrived);
}

size_t made_up_arrivals(const struct made_up *made_up, int64_t *times_out, size_t max)
{
    size_t count = made_up_arrived(made_up);
    count = count < max ? count : max;
    for (size_t i = 0; i < count; i++) {
        do { /* counted just before it is written down */
            times_out[i] = atomic_load(&made_up->shared->arrivals[i]);
        } while (times_out[i] == 0);
    }
    return count;
}

uint64_t made_up_transactions(const struct made_up *made_up)
{
    return atomic_load(&made_up->shared->transactions);
}
