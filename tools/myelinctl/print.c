/* Answers as text: members one a line, arrays of objects as tables. */
#include "tools/myelinctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { COLUMNS_MAX = 12, WIDTH_MAX = 70 };

/* Times are members whose names end so. */
static bool is_time(struct slice key)
{
    return slice_has_suffix(key, LIT("_ms"));
}

static struct slice time_text(struct arena *arena, int64_t ms)
{
    char text[32];
    struct tm parts;
    time_t seconds = (time_t)(ms / 1000);
    if (ms == 0 || !gmtime_r(&seconds, &parts)) {
        return LIT("-");
    }
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ", &parts);
    return arena_copy(arena, slice_of(text));
}

/* Control characters would play with the terminal. */
static struct slice clean(struct arena *arena, struct slice text)
{
    char *copy = arena_cstr(arena, text);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char byte = (unsigned char)copy[i];
        copy[i] = byte < ' ' || byte == 127 ? '?' : copy[i];
    }
    return (struct slice){copy, text.len};
}

static struct slice list_text(struct arena *arena, const struct json *list)
{
    struct buf text;
    buf_init_arena(&text, arena, SIZE_MAX / 2);
    for (uint32_t i = 0; i < list->count; i++) {
        buf_add(&text, i ? LIT(",") : LIT(""));
        buf_add(&text, list->items[i].type == JSON_STRING ? list->items[i].text
                                                          : json_canonical(arena, &list->items[i]));
    }
    return text.len ? clean(arena, buf_slice(&text)) : LIT("-");
}

static struct slice value_text(struct arena *arena, struct slice key, const struct json *value)
{
    if (!value) {
        return LIT("-");
    }
    switch (value->type) {
    case JSON_NULL:
        return LIT("-");
    case JSON_BOOL:
        return value->boolean ? LIT("yes") : LIT("no");
    case JSON_INT:
        return is_time(key) ? time_text(arena, value->integer)
                            : arena_printf(arena, "%" PRId64, value->integer);
    case JSON_NUMBER:
        return value->text;
    case JSON_STRING:
        return value->text.len ? clean(arena, value->text) : LIT("-");
    case JSON_ARRAY:
        return list_text(arena, value);
    case JSON_OBJECT:
        return json_canonical(arena, value);
    }
    return LIT("-");
}

struct table {
    struct slice columns[COLUMNS_MAX];
    size_t widths[COLUMNS_MAX];
    size_t count;
};

static void add_columns(struct table *table, const struct json *row)
{
    for (uint32_t i = 0; i < row->count; i++) {
        bool known = false;
        for (size_t j = 0; j < table->count; j++) {
            known = known || slice_eq(table->columns[j], row->members[i].key);
        }
        if (!known && table->count < COLUMNS_MAX) {
            table->columns[table->count++] = row->members[i].key;
        }
    }
}

/* The column that names the row goes first. */
static void order_columns(struct table *table)
{
    static const struct slice names[] = {
        {"user_id", 7}, {"room_id", 7}, {"device_id", 9}, {"token", 5}, {"server", 6}};
    for (size_t i = 0; i < table->count; i++) {
        for (size_t j = 0; j < COUNT_OF(names); j++) {
            if (slice_eq(table->columns[i], names[j])) {
                struct slice first = table->columns[i];
                memmove(table->columns + 1, table->columns, i * sizeof first);
                table->columns[0] = first;
            }
        }
    }
    for (size_t i = 0; i < table->count; i++) {
        table->widths[i] = table->columns[i].len;
    }
}

static void print_cell(const struct table *table, size_t column, struct slice text)
{
    bool last = column + 1 == table->count;
    size_t pad = !last && text.len < table->widths[column] ? table->widths[column] - text.len : 0;
    printf("%.*s%*s%s", (int)text.len, text.ptr, (int)pad, "", last ? "\n" : "  ");
}

static void print_table(struct arena *arena, const struct json *rows)
{
    struct table table = {0};
    for (uint32_t i = 0; i < rows->count; i++) {
        add_columns(&table, &rows->items[i]);
    }
    order_columns(&table);
    for (uint32_t i = 0; i < rows->count; i++) {
        for (size_t j = 0; j < table.count; j++) {
            size_t len =
                value_text(arena, table.columns[j], json_get(&rows->items[i], table.columns[j]))
                    .len;
            len = len > WIDTH_MAX ? WIDTH_MAX : len;
            table.widths[j] = len > table.widths[j] ? len : table.widths[j];
        }
    }
    for (size_t j = 0; j < table.count; j++) {
        print_cell(&table, j, table.columns[j]);
    }
    for (uint32_t i = 0; i < rows->count; i++) {
        for (size_t j = 0; j < table.count; j++) {
            print_cell(
                &table, j,
                value_text(arena, table.columns[j], json_get(&rows->items[i], table.columns[j])));
        }
    }
}

void ctl_print_answer(const struct ctl *ctl, const struct json *answer)
{
    if (ctl->json) {
        ctl_print(json_canonical(ctl->arena, answer));
        ctl_print(LIT("\n"));
        return;
    }
    for (uint32_t i = 0; i < answer->count; i++) {
        const struct json_member *member = &answer->members[i];
        bool is_table = member->value.type == JSON_ARRAY &&
                        (member->value.count == 0 || member->value.items[0].type == JSON_OBJECT);
        if (is_table) {
            print_table(ctl->arena, &member->value);
        } else if (!slice_eq(member->key, LIT("next"))) {
            struct slice text = value_text(ctl->arena, member->key, &member->value);
            printf("%.*s: %.*s\n", (int)member->key.len, member->key.ptr, (int)text.len, text.ptr);
        }
    }
}
