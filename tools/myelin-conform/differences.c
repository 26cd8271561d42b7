#include "tools/myelin-conform/differences.h"
#include "tools/myelin-conform/term.h"

static struct err take_quoted(struct arena *arena, struct slice *text, struct slice *out)
{
    struct term term;
    TRY(term_parse(arena, *text, &term, text));
    *out = term.text;
    return term.kind == TERM_TEXT ? OK
                                  : err_public(ERR_SYNTAX, "expected a file and a scene in quotes");
}

static struct err add_entry(struct arena *arena, struct differences *list, struct slice text)
{
    list->items = arena_grow(arena, list->items, list->count * sizeof *list->items,
                             (list->count + 1) * sizeof *list->items);
    struct difference *entry = &list->items[list->count++];
    *entry = (struct difference){0};
    TRY(take_quoted(arena, &text, &entry->file));
    return take_quoted(arena, &text, &entry->scene);
}

static struct slice join_lines(struct arena *arena, struct slice a, struct slice b)
{
    return a.len == 0 ? b : arena_concat(arena, arena_concat(arena, a, LIT(" ")), b);
}

struct err differences_parse(struct arena *arena, struct slice text,
                             struct differences *differences_out)
{
    *differences_out = (struct differences){0};
    while (text.len > 0) {
        struct slice line;
        text = slice_cut(text, '\n', &line);
        line = slice_trim(line);
        struct difference *entry =
            differences_out->count > 0 ? &differences_out->items[differences_out->count - 1] : NULL;
        if (line.len == 0 || line.ptr[0] == '#') {
            continue;
        }
        if (slice_has_prefix(line, LIT("difference "))) {
            TRY(add_entry(arena, differences_out, slice_from(line, 11)));
        } else if (!entry) {
            return err_public(ERR_SYNTAX, "expected `difference \"file\" \"scene\"` first");
        } else if (line.ptr[0] == '>') {
            entry->quote = join_lines(arena, entry->quote, slice_trim(slice_from(line, 1)));
        } else {
            entry->how = join_lines(arena, entry->how, line);
        }
    }
    for (size_t i = 0; i < differences_out->count; i++) {
        const struct difference *entry = &differences_out->items[i];
        if (entry->quote.len == 0 || entry->how.len == 0) {
            return err_publicf(arena, ERR_SYNTAX, "\"%.*s\" needs a quoted sentence and a reason",
                               (int)entry->scene.len, entry->scene.ptr);
        }
    }
    return OK;
}

struct difference *differences_find(struct differences *differences, struct slice file,
                                    struct slice scene)
{
    for (size_t i = 0; i < differences->count; i++) {
        struct difference *entry = &differences->items[i];
        if (slice_eq(entry->file, file) && slice_eq(entry->scene, scene)) {
            return entry;
        }
    }
    return NULL;
}
