/* How many durable writes a second the store takes: threads that each write a log row of 1 KB and
 * two small rows and wait until they are durable. Not a test: it prints what it measures.
 * Usage: bench_store FOLDER [THREADS] [SECONDS] [CACHE_MB] */
#include "store/store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOG_ROW_BYTES = 1024, LATENCIES_MAX = 1 << 20, THREADS_MAX = 1024 };

struct bench {
    struct store *store;
    atomic_bool stop;
    _Atomic uint64_t events;
    _Atomic uint64_t next_room;
    uint32_t *latencies_us; /* of the first LATENCIES_MAX writes */
};

static void fill_row(char *row, uint64_t seed)
{
    for (size_t i = 0; i < LOG_ROW_BYTES; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        row[i] = (char)('a' + (seed >> 60)); /* compresses about as well as JSON */
    }
}

static void write_event(struct bench *bench, struct ctx *ctx, uint64_t room, uint64_t number)
{
    char row[LOG_ROW_BYTES];
    struct slice key = store_id_u64(ctx->arena, number);
    struct slice event_id = store_id_u64(ctx->arena, (room << 40 | number) * 0x9E3779B97F4A7C15);
    struct store_object log = {STORE_ROOM, store_id_u64(ctx->arena, room)};
    struct store_update *updates[3] = {
        store_update_new(ctx, log),
        store_update_new(ctx, (struct store_object){STORE_EVENT_IDS, slice_sub(event_id, 0, 1)}),
        store_update_new(ctx, (struct store_object){STORE_POSITIONS, {0}}),
    };
    fill_row(row, number);
    store_put(updates[0], key, (struct slice){row, sizeof row});
    store_put(updates[1], event_id, key);
    store_put(updates[2], store_id_u64(ctx->arena, number << 10 | room), key);
    struct err err = store_write(bench->store, ctx, updates, COUNT_OF(updates));
    ASSERT(err.code == 0);
}

static void *run(void *arg)
{
    struct bench *bench = arg;
    uint64_t room = atomic_fetch_add(&bench->next_room, 1);
    struct ctx ctx = {.arena = arena_new()};
    for (uint64_t number = 1; !atomic_load(&bench->stop); number++) {
        int64_t start_us = now_mono_us();
        write_event(bench, &ctx, room, number);
        struct err err = store_wait_durable(bench->store, ctx.write_ticket);
        ASSERT(err.code == 0);
        uint64_t at = atomic_fetch_add(&bench->events, 1);
        if (at < LATENCIES_MAX) {
            bench->latencies_us[at] = (uint32_t)(now_mono_us() - start_us);
        }
        arena_reset(ctx.arena);
    }
    arena_free(&ctx.arena);
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    const uint32_t *left = a;
    const uint32_t *right = b;
    return *left < *right ? -1 : *left > *right;
}

static void report(struct bench *bench, size_t thread_count, double seconds)
{
    struct store_stats stats;
    uint64_t events = atomic_load(&bench->events);
    size_t count = events < LATENCIES_MAX ? (size_t)events : LATENCIES_MAX;
    store_get_stats(bench->store, &stats);
    qsort(bench->latencies_us, count, sizeof *bench->latencies_us, by_size);
    printf("%zu threads: %.0f events/s durable, %.1f events per flush, p50 %u us, p99 %u us\n",
           thread_count, (double)events / seconds, (double)stats.writes / (double)stats.flushes,
           bench->latencies_us[count / 2], bench->latencies_us[count * 99 / 100]);
}

/* Argument number `at`, or the fallback when it is not given; 0 when it is no number. */
static size_t number_arg(int argc, char **argv, int at, size_t fallback)
{
    uint64_t number = 0;
    if (at >= argc) {
        return fallback;
    }
    return slice_parse_u64(slice_of(argv[at]), &number) ? (size_t)number : 0;
}

static int measure(struct bench *bench, size_t thread_count, size_t seconds)
{
    static pthread_t threads[THREADS_MAX];
    int64_t start_us = now_mono_us();
    for (size_t i = 0; i < thread_count; i++) {
        if (pthread_create(&threads[i], NULL, run, bench) != 0) {
            return 1;
        }
    }
    sleep((unsigned)seconds);
    atomic_store(&bench->stop, true);
    for (size_t i = 0; i < thread_count; i++) {
        pthread_join(threads[i], NULL);
    }
    report(bench, thread_count, (double)(now_mono_us() - start_us) / 1e6);
    return 0;
}

int main(int argc, char **argv)
{
    size_t thread_count = number_arg(argc, argv, 2, 64);
    size_t seconds = number_arg(argc, argv, 3, 5);
    size_t cache_mb = number_arg(argc, argv, 4, 32);
    if (argc < 2 || !thread_count || thread_count > THREADS_MAX || !seconds || !cache_mb) {
        fprintf(stderr, "usage: bench_store FOLDER [THREADS] [SECONDS] [CACHE_MB]\n");
        return 2;
    }
    struct bench bench = {.latencies_us = calloc(LATENCIES_MAX, sizeof(uint32_t))};
    struct arena *arena = arena_new();
    struct store_config config = {
        .path = slice_of(argv[1]), .arena = arena, .cache_bytes = cache_mb << 20};
    struct err err = store_open(&config, &bench.store);
    if (err.code != 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int code = measure(&bench, thread_count, seconds);
    store_close(&bench.store);
    arena_free(&arena);
    free(bench.latencies_us);
    return code;
}
