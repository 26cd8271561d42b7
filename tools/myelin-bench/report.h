/* What was measured, as a table or as JSON lines, each figure beside its goal. */
#pragma once
#include "homeserver/base/arena.h"

enum report_better { REPORT_LOWER, REPORT_HIGHER, REPORT_FACT /* has no goal */ };

struct report_figure {
    const char *row;  /* the subcommand that measured it */
    const char *what; /* unique within the row */
    const char *unit;
    double value;
    double goal;
    enum report_better better;
    const char *note; /* NULL = none: how it was measured, when that is not as the goal says */
};

struct report;
enum report_form { REPORT_TABLE, REPORT_JSON };

struct report *report_new(enum report_form form);
void report_free(struct report **report);
/* Names the server that the next figures belong to (at most two names in a run). */
void report_server(struct report *report, struct slice name);
/* Keeps a figure; in JSON form also prints it. */
void report_add(struct report *report, struct report_figure figure);
/* Prints the table; returns how many figures of the first server miss their goal. */
size_t report_print(const struct report *report);

/* The value below which `share` (0..1) of the sorted or unsorted samples lie; sorts them. */
double report_quantile(int64_t *samples, size_t count, double share);
