/* Counters, gauges and histograms (stats.def), lock-free, rendered as Prometheus text. Every
 * function takes NULL stats and does nothing then. Any thread. */
#pragma once
#include "homeserver/base/buf.h"

#define COUNTER(name, help) STAT_##name,
#define GAUGE(name, help)
#define HISTOGRAM(name, help)
#define FAMILY(name, label, help)
enum stat_counter {
#include "homeserver/base/stats.def"
    STAT_COUNTERS
};
#undef COUNTER
#undef GAUGE
#define COUNTER(name, help)
#define GAUGE(name, help) STAT_##name,
enum stat_gauge {
#include "homeserver/base/stats.def"
    STAT_GAUGES
};
#undef GAUGE
#undef HISTOGRAM
#define GAUGE(name, help)
#define HISTOGRAM(name, help) STAT_##name,
enum stat_histogram {
#include "homeserver/base/stats.def"
    STAT_HISTOGRAMS
};
#undef HISTOGRAM
#undef FAMILY
#define HISTOGRAM(name, help)
#define FAMILY(name, label, help) STAT_##name,
enum stat_family {
#include "homeserver/base/stats.def"
    STAT_FAMILIES
};
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
#undef FAMILY

enum { STAT_FAMILY_VALUES_MAX = 128 };

struct stats;

struct stats *stats_new(void);
void stats_free(struct stats **stats);
void stats_add(struct stats *stats, enum stat_counter counter, uint64_t amount);
void stats_gauge_add(struct stats *stats, enum stat_gauge gauge, int64_t amount);
void stats_gauge_set(struct stats *stats, enum stat_gauge gauge, int64_t value);
/* A duration in microseconds. */
void stats_observe(struct stats *stats, enum stat_histogram histogram, int64_t us);
/* Names the next value of the family, from 0; static text. Before threads start. */
void stats_family_value(struct stats *stats, enum stat_family family, const char *value);
void stats_family_add(struct stats *stats, enum stat_family family, size_t value, uint64_t amount);
uint64_t stats_get(const struct stats *stats, enum stat_counter counter);
/* The Prometheus text format. */
void stats_render(const struct stats *stats, struct buf *out);
