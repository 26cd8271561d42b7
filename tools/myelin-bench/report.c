#include "tools/myelin-bench/report.h"

#include "homeserver/base/json_out.h"
#include "homeserver/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIGURES_MAX = 512, SERVERS_MAX = 2 };

struct entry {
    struct report_figure figure;
    double values[SERVERS_MAX];
    bool present[SERVERS_MAX];
    const char *notes[SERVERS_MAX];
};

struct report {
    enum report_form form;
    struct arena *arena;
    struct slice servers[SERVERS_MAX];
    size_t server_count, server;
    struct entry entries[FIGURES_MAX];
    size_t count;
};

struct report *report_new(enum report_form form)
{
    struct report *report = mem_alloc(sizeof *report);
    report->form = form;
    report->arena = arena_new();
    return report;
}

void report_free(struct report **report)
{
    if (*report) {
        arena_free(&(*report)->arena);
        mem_free(*report);
        *report = NULL;
    }
}

void report_server(struct report *report, struct slice name)
{
    for (size_t i = 0; i < report->server_count; i++) {
        if (slice_eq(report->servers[i], name)) {
            report->server = i;
            return;
        }
    }
    if (report->server_count < SERVERS_MAX) {
        report->server = report->server_count;
        report->servers[report->server_count++] = arena_copy(report->arena, name);
    }
}

static const char *own(struct report *report, const char *text)
{
    return text ? arena_cstr(report->arena, slice_of(text)) : NULL;
}

static bool is_met(const struct report_figure *figure, double value)
{
    return figure->better == REPORT_LOWER ? value <= figure->goal : value >= figure->goal;
}

static void print_json(const struct report *report, const struct report_figure *figure)
{
    struct buf line;
    buf_init(&line, 65536);
    struct json_out out = json_out_to(&line);
    json_out_object(&out);
    json_out_key_string(&out, LIT("server"), report->servers[report->server]);
    json_out_key_string(&out, LIT("row"), slice_of(figure->row));
    json_out_key_string(&out, LIT("what"), slice_of(figure->what));
    json_out_key(&out, LIT("value"));
    char number[64];
    snprintf(number, sizeof number, "%.6g", figure->value);
    json_out_raw(&out, slice_of(number));
    json_out_key_string(&out, LIT("unit"), slice_of(figure->unit));
    if (figure->better != REPORT_FACT) {
        snprintf(number, sizeof number, "%.6g", figure->goal);
        json_out_key_raw(&out, LIT("goal"), slice_of(number));
        json_out_key_bool(&out, LIT("met"), is_met(figure, figure->value));
    }
    if (figure->note) {
        json_out_key_string(&out, LIT("note"), slice_of(figure->note));
    }
    json_out_object_end(&out);
    printf("%.*s\n", (int)line.len, line.ptr);
    fflush(stdout);
    buf_deinit(&line);
}

void report_add(struct report *report, struct report_figure figure)
{
    struct entry *entry = NULL;
    for (size_t i = 0; i < report->count && !entry; i++) {
        struct report_figure *known = &report->entries[i].figure;
        if (strcmp(known->row, figure.row) == 0 && strcmp(known->what, figure.what) == 0) {
            entry = &report->entries[i];
        }
    }
    if (!entry) {
        if (report->count == FIGURES_MAX) {
            return;
        }
        entry = &report->entries[report->count++];
        entry->figure = figure;
        entry->figure.row = own(report, figure.row);
        entry->figure.what = own(report, figure.what);
        entry->figure.unit = own(report, figure.unit);
    }
    entry->values[report->server] = figure.value;
    entry->present[report->server] = true;
    entry->notes[report->server] = own(report, figure.note);
    if (report->form == REPORT_JSON) {
        print_json(report, &figure);
    } else {
        fprintf(stderr, "  %-44s %12.4g %s\n", figure.what, figure.value, figure.unit);
    }
}

static void print_value(const struct entry *entry, size_t server)
{
    if (entry->present[server]) {
        printf(" %14.4g", entry->values[server]);
    } else {
        printf(" %14s", "-");
    }
}

static void print_entry(const struct report *report, const struct entry *entry)
{
    const struct report_figure *figure = &entry->figure;
    printf("%-16s %-44s", figure->row, figure->what);
    for (size_t i = 0; i < report->server_count; i++) {
        print_value(entry, i);
    }
    printf(" %-9s", figure->unit);
    if (figure->better != REPORT_FACT) {
        printf(" %s %-8.4g %s", figure->better == REPORT_LOWER ? "<" : ">", figure->goal,
               !entry->present[0]                 ? ""
               : is_met(figure, entry->values[0]) ? "met"
                                                  : "MISSED");
    }
    for (size_t i = 0; i < report->server_count; i++) {
        if (entry->notes[i]) {
            printf("  [%.*s: %s]", (int)report->servers[i].len, report->servers[i].ptr,
                   entry->notes[i]);
        }
    }
    printf("\n");
}

size_t report_print(const struct report *report)
{
    size_t missed = 0;
    bool table = report->form == REPORT_TABLE;
    if (table) {
        printf("\n%-16s %-44s", "row", "what");
        for (size_t i = 0; i < report->server_count; i++) {
            printf(" %14.*s", (int)report->servers[i].len, report->servers[i].ptr);
        }
        printf(" %-9s goal\n", "unit");
    }
    for (size_t i = 0; i < report->count; i++) {
        const struct entry *entry = &report->entries[i];
        if (table) {
            print_entry(report, entry);
        }
        missed += entry->figure.better != REPORT_FACT && entry->present[0] &&
                  !is_met(&entry->figure, entry->values[0]);
    }
    return missed;
}

static int compare(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

double report_quantile(int64_t *samples, size_t count, double share)
{
    if (count == 0) {
        return 0;
    }
    qsort(samples, count, sizeof *samples, compare);
    size_t index = (size_t)(share * (double)count);
    return (double)samples[index < count ? index : count - 1];
}
