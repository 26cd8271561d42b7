#include "homeserver/base/stats.h"

#include "homeserver/base/mem.h"

#include <stdatomic.h>

enum { SHARDS = 8, BUCKETS = 12 };

/* Upper bounds in microseconds; the last bucket has none. */
static const int64_t bounds_us[BUCKETS - 1] = {500,    1000,   2500,    5000,    10000,   25000,
                                               100000, 250000, 1000000, 5000000, 30000000};
static const char *const bounds_text[BUCKETS] = {
    "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.1", "0.25", "1", "5", "30", "+Inf"};

struct histogram {
    _Atomic uint64_t counts[BUCKETS];
    _Atomic uint64_t sum_us;
};

/* Threads count in different shards, so that they do not pull at one cache line. */
struct shard {
    _Alignas(64) _Atomic uint64_t counters[STAT_COUNTERS];
    struct histogram histograms[STAT_HISTOGRAMS];
};

struct family {
    const char *values[STAT_FAMILY_VALUES_MAX];
    _Atomic uint64_t counts[STAT_FAMILY_VALUES_MAX];
    size_t count;
};

struct stats {
    struct shard *shards;
    void *shards_owned;
    _Atomic int64_t gauges[STAT_GAUGES];
    struct family families[STAT_FAMILIES];
};

struct name {
    const char *name, *help;
};

#define COUNTER(name, help) {#name, help},
#define GAUGE(name, help)
#define HISTOGRAM(name, help)
#define FAMILY(name, label, help)
static const struct name counter_names[] = {
#include "homeserver/base/stats.def"
};
#undef COUNTER
#undef GAUGE
#define COUNTER(name, help)
#define GAUGE(name, help) {#name, help},
static const struct name gauge_names[] = {
#include "homeserver/base/stats.def"
};
#undef GAUGE
#undef HISTOGRAM
#define GAUGE(name, help)
#define HISTOGRAM(name, help) {#name, help},
static const struct name histogram_names[] = {
#include "homeserver/base/stats.def"
};
#undef HISTOGRAM
#undef FAMILY
#define HISTOGRAM(name, help)
#define FAMILY(name, label, help) {{#name, help}, #label},
static const struct {
    struct name name;
    const char *label;
} family_names[] = {
#include "homeserver/base/stats.def"
};
#undef FAMILY

/* The address of a thread-local is different in every thread: it spreads threads over shards. */
static struct shard *shard_of(struct stats *stats)
{
    static _Thread_local char here;
    uintptr_t mixed = (uintptr_t)&here * UINT64_C(0x9E3779B97F4A7C15);
    return &stats->shards[mixed >> 61];
}

struct stats *stats_new(void)
{
    struct stats *stats = mem_alloc(sizeof *stats);
    stats->shards_owned = mem_alloc(SHARDS * sizeof *stats->shards + 64);
    uintptr_t address = ((uintptr_t)stats->shards_owned + 63) & ~(uintptr_t)63;
    stats->shards = (struct shard *)address;
    return stats;
}

void stats_free(struct stats **stats)
{
    if (*stats) {
        mem_free((*stats)->shards_owned);
        mem_free(*stats);
        *stats = NULL;
    }
}

void stats_add(struct stats *stats, enum stat_counter counter, uint64_t amount)
{
    if (stats) {
        atomic_fetch_add_explicit(&shard_of(stats)->counters[counter], amount,
                                  memory_order_relaxed);
    }
}

void stats_gauge_add(struct stats *stats, enum stat_gauge gauge, int64_t amount)
{
    if (stats) {
        atomic_fetch_add_explicit(&stats->gauges[gauge], amount, memory_order_relaxed);
    }
}

void stats_gauge_set(struct stats *stats, enum stat_gauge gauge, int64_t value)
{
    if (stats) {
        atomic_store_explicit(&stats->gauges[gauge], value, memory_order_relaxed);
    }
}

void stats_observe(struct stats *stats, enum stat_histogram histogram, int64_t us)
{
    if (!stats) {
        return;
    }
    struct histogram *into = &shard_of(stats)->histograms[histogram];
    size_t bucket = 0;
    while (bucket < BUCKETS - 1 && us > bounds_us[bucket]) {
        bucket++;
    }
    atomic_fetch_add_explicit(&into->counts[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&into->sum_us, us > 0 ? (uint64_t)us : 0, memory_order_relaxed);
}

void stats_family_value(struct stats *stats, enum stat_family family, const char *value)
{
    if (stats) {
        struct family *into = &stats->families[family];
        ASSERT(into->count < STAT_FAMILY_VALUES_MAX);
        into->values[into->count++] = value;
    }
}

void stats_family_add(struct stats *stats, enum stat_family family, size_t value, uint64_t amount)
{
    if (stats && value < stats->families[family].count) {
        atomic_fetch_add_explicit(&stats->families[family].counts[value], amount,
                                  memory_order_relaxed);
    }
}

uint64_t stats_get(const struct stats *stats, enum stat_counter counter)
{
    uint64_t sum = 0;
    for (size_t i = 0; stats && i < SHARDS; i++) {
        sum += atomic_load_explicit(&stats->shards[i].counters[counter], memory_order_relaxed);
    }
    return sum;
}

static void render_head(struct buf *out, const struct name *name, const char *type)
{
    buf_printf(out, "# HELP myelin_%s %s\n# TYPE myelin_%s %s\n", name->name, name->help,
               name->name, type);
}

static void render_histogram(const struct stats *stats, struct buf *out, size_t at)
{
    const char *name = histogram_names[at].name;
    uint64_t below = 0;
    uint64_t sum_us = 0;
    render_head(out, &histogram_names[at], "histogram");
    for (size_t i = 0; i < BUCKETS; i++) {
        for (size_t j = 0; j < SHARDS; j++) {
            below += atomic_load_explicit(&stats->shards[j].histograms[at].counts[i],
                                          memory_order_relaxed);
        }
        buf_printf(out, "myelin_%s_bucket{le=\"%s\"} %llu\n", name, bounds_text[i],
                   (unsigned long long)below);
    }
    for (size_t j = 0; j < SHARDS; j++) {
        sum_us +=
            atomic_load_explicit(&stats->shards[j].histograms[at].sum_us, memory_order_relaxed);
    }
    buf_printf(out, "myelin_%s_sum %.6f\nmyelin_%s_count %llu\n", name, (double)sum_us / 1e6, name,
               (unsigned long long)below);
}

static void render_family(const struct stats *stats, struct buf *out, size_t at)
{
    const struct family *family = &stats->families[at];
    render_head(out, &family_names[at].name, "counter");
    for (size_t i = 0; i < family->count; i++) {
        uint64_t count = atomic_load_explicit(&family->counts[i], memory_order_relaxed);
        buf_printf(out, "myelin_%s{%s=\"%s\"} %llu\n", family_names[at].name.name,
                   family_names[at].label, family->values[i], (unsigned long long)count);
    }
}

void stats_render(const struct stats *stats, struct buf *out)
{
    if (!stats) {
        return;
    }
    for (size_t i = 0; i < STAT_COUNTERS; i++) {
        render_head(out, &counter_names[i], "counter");
        buf_printf(out, "myelin_%s %llu\n", counter_names[i].name,
                   (unsigned long long)stats_get(stats, (enum stat_counter)i));
    }
    for (size_t i = 0; i < STAT_GAUGES; i++) {
        int64_t value = atomic_load_explicit(&stats->gauges[i], memory_order_relaxed);
        render_head(out, &gauge_names[i], "gauge");
        buf_printf(out, "myelin_%s %lld\n", gauge_names[i].name, (long long)value);
    }
    for (size_t i = 0; i < STAT_HISTOGRAMS; i++) {
        render_histogram(stats, out, i);
    }
    for (size_t i = 0; i < STAT_FAMILIES; i++) {
        render_family(stats, out, i);
    }
}
