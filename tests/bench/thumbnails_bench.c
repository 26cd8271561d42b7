/* Thumbnails a second. usage: bench_thumbnails HELPER PICTURE [JOBS [HELPERS]] */
#include "homeserver/media/media_sandbox.h"

#include "tests/support/world.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8 };

struct run {
    struct world *world;
    struct media_sandbox *sandbox;
    struct media_job job;
    int fd;
    _Atomic int left;
    _Atomic size_t bytes;
    bool is_over;
    pthread_barrier_t barrier; /* helpers die with the thread that started them, so threads stay */
};

static void *work(void *arg)
{
    struct run *run = arg;
    struct ctx ctx = {.arena = arena_new(), .now = &run->world->now, .may_wait = true};
    pthread_barrier_wait(&run->barrier);
    while (!run->is_over) {
        while (atomic_fetch_sub(&run->left, 1) > 0) {
            struct media_reply reply = {0};
            struct err err = media_sandbox_run(run->sandbox, &ctx, &run->job, run->fd, &reply);
            ASSERT(err.code == 0);
            atomic_store(&run->bytes, reply.bytes.len);
            arena_reset(ctx.arena);
        }
        pthread_barrier_wait(&run->barrier);
        pthread_barrier_wait(&run->barrier);
    }
    arena_free(&ctx.arena);
    return NULL;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void measure(struct run *run, const char *title, int jobs)
{
    double from = seconds();
    atomic_store(&run->left, jobs);
    pthread_barrier_wait(&run->barrier);
    pthread_barrier_wait(&run->barrier);
    double took = seconds() - from;
    printf("%-14s %7.1f/s  %6.1f ms each  %zu bytes\n", title, jobs / took, took / jobs * 1000,
           atomic_load(&run->bytes));
}

static int64_t number(int argc, char **argv, int at, int64_t fallback)
{
    int64_t value = fallback;
    if (at < argc && !slice_parse_i64(slice_of(argv[at]), &value)) {
        value = fallback;
    }
    return value;
}

/* Of the helpers, which have ended. */
static void tell_cost(void)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    printf("helpers: %ld MB at most, %ld s of the processor\n", usage.ru_maxrss / 1024,
           (long)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec));
}

int main(int argc, char **argv)
{
    struct world world;
    pthread_t threads[THREADS];
    int jobs = (int)number(argc, argv, 3, 200);
    if (argc < 3) {
        fputs("usage: bench_thumbnails HELPER PICTURE [JOBS [HELPERS]]\n", stderr);
        return 2;
    }
    world_open(&world, 0);
    world.conf.media_helper = slice_of(argv[1]);
    world.conf.media_helpers = number(argc, argv, 4, world.conf.media_helpers);
    struct run run = {.world = &world,
                      .sandbox = media_sandbox_new(&world.hs),
                      .job = {.kind = MEDIA_JOB_THUMBNAIL,
                              .width = 96,
                              .height = 96,
                              .flags = MEDIA_JOB_CROP,
                              .pixels_max = 1000000000},
                      .fd = open(argv[2], O_RDONLY)};
    ASSERT(run.fd >= 0);
    pthread_barrier_init(&run.barrier, NULL, THREADS + 1);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, work, &run);
    }
    measure(&run, "first ones", 4);
    measure(&run, "96x96 crop", jobs);
    run.job.flags = 0;
    run.job.width = 800;
    run.job.height = 600;
    measure(&run, "800x600 scale", jobs);
    run.job.kind = MEDIA_JOB_PROBE;
    measure(&run, "look only", jobs);
    run.is_over = true;
    pthread_barrier_wait(&run.barrier);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    media_sandbox_free(&run.sandbox);
    tell_cost();
    close(run.fd);
    world_close(&world);
    return 0;
}
