#include "homeserver/base/mem.h"
#include "homeserver/service/check_priv.h"

#include <string.h>

enum { ROWS_PER_PAGE = 256 };
#define POSITIONS_MAX (UINT64_C(1) << 36)

/* One bit for each position up to the counter. */
struct check_used {
    uint64_t counter;
    uint8_t *bits_owned; /* NULL: the counter is out of all reason */
};

static const struct {
    const char *name, *text;
} indexes[CHECK_COUNT] = {
#define CHECK(NAME, name, what) {name, what},
#include "homeserver/service/check.def"
#undef CHECK
};

const char *check_index_name(enum check_index index)
{
    return indexes[index].name;
}

const char *check_index_text(enum check_index index)
{
    return indexes[index].text;
}

/* --- telling --- */

void check_compared(struct checker *c, enum check_index index)
{
    c->result->of[index].rows++;
}

void check_report(struct checker *c, enum check_index index, struct slice key, const char *what,
                  bool healed)
{
    struct check_difference difference = {.index = index,
                                          .room_id = c->at ? c->at->room_id : (struct slice){0},
                                          .event_id = c->event_id,
                                          .number = c->number,
                                          .key = key,
                                          .what = what,
                                          .healed = healed};
    c->result->of[index].differences++;
    c->result->differences++;
    c->result->of[index].healed += healed;
    c->result->healed += healed;
    if (c->options->report) {
        c->options->report(c->options->arg, &difference);
    }
}

bool check_is_damage(struct err err)
{
    return err.code == ERR_CORRUPT || err.code == ERR_SYNTAX || err.code == ERR_LIMIT;
}

/* --- comparing rows --- */

struct err check_row_is(struct checker *c, struct check_place place, struct slice expected)
{
    struct slice value;
    bool found = false;
    TRY(store_get(c->hs->store, &c->page, place.object, place.key, &value, &found));
    check_compared(c, place.index);
    if (found && slice_eq(value, expected)) {
        return OK;
    }
    if (c->mode == CHECK_REBUILD) {
        TRY(rebuild_put(c, &place, expected));
    }
    check_report(c, place.index, place.key, found ? "differs" : "is missing",
                 c->mode == CHECK_REBUILD);
    return OK;
}

struct err check_row_stray(struct checker *c, struct check_place place)
{
    if (c->mode == CHECK_REBUILD) {
        TRY(rebuild_delete(c, &place));
    }
    check_report(c, place.index, place.key, "is there without reason", c->mode == CHECK_REBUILD);
    return OK;
}

struct err check_each_row(struct checker *c, struct store_object object, char prefix,
                          check_visit_fn visit, void *arg)
{
    char from[STORE_KEY_BYTES_MAX + 1] = {prefix};
    const char after = (char)(prefix + 1);
    struct store_range range = {.from = {from, prefix ? 1 : 0}, .limit = ROWS_PER_PAGE};
    struct store_rows rows = {.count = ROWS_PER_PAGE};
    range.to = prefix ? (struct slice){&after, 1} : (struct slice){0};
    while (rows.count == ROWS_PER_PAGE) {
        arena_reset(c->page.arena);
        TRY(store_read_range(c->hs->store, &c->page, object, range, &rows));
        for (size_t i = 0; i < rows.count; i++) {
            TRY(visit(c, arg, &rows.rows[i]));
        }
        if (rows.count) { /* the next key possible: the last one and a NUL */
            struct slice last = rows.rows[rows.count - 1].key;
            ASSERT(last.len < sizeof from);
            memcpy(from, last.ptr, last.len);
            from[last.len] = '\0';
            range.from = (struct slice){from, last.len + 1};
        }
    }
    arena_reset(c->page.arena);
    return OK;
}

/* --- positions --- */

static struct err load_counter(struct checker *c)
{
    struct slice value;
    bool found = false;
    struct store_object meta = {.kind = STORE_META};
    TRY(store_get(c->hs->store, c->ctx, meta, LIT("positions"), &value, &found));
    if (found) {
        struct unpack in = unpack_of(value);
        c->used->counter = unpack_u64(&in);
        TRY(unpack_check(&in));
    }
    if (c->used->counter < POSITIONS_MAX) {
        c->used->bits_owned = mem_alloc((size_t)(c->used->counter / 8 + 1));
    }
    return OK;
}

static const char *wrong_position(struct check_used *used, uint64_t pos)
{
    if (pos == 0) {
        return "has no position";
    }
    if (pos > used->counter) {
        return "has a position above the counter";
    }
    if (!used->bits_owned) {
        return NULL;
    }
    uint8_t bit = (uint8_t)(1u << (pos & 7));
    bool twice = (used->bits_owned[pos >> 3] & bit) != 0;
    used->bits_owned[pos >> 3] |= bit;
    return twice ? "has a position that is used twice" : NULL;
}

uint64_t check_counter(const struct checker *c)
{
    return c->used->counter;
}

struct err check_position(struct checker *c, uint64_t pos)
{
    const char *what = wrong_position(c->used, pos);
    check_compared(c, CHECK_POSITIONS);
    if (what) {
        check_report(c, CHECK_POSITIONS, (struct slice){0}, what, false);
    }
    return OK;
}

/* --- an index by position --- */

static struct err visit_positioned(struct checker *c, void *arg, const struct store_row *row)
{
    const struct check_by_position *rows = arg;
    struct unpack in = unpack_of(row->value);
    uint64_t pos = unpack_u64(&in);
    if (in.bad || pos > c->used->counter) {
        check_report(c, rows->index, row->key, "has no valid position", false);
        return OK;
    }
    struct check_place place = {rows->index, rows->object,
                                key_u64(&c->page, rows->index_letter, pos)};
    return check_row_is(c, place, slice_from(row->key, 1));
}

static struct err visit_position(struct checker *c, void *arg, const struct store_row *row)
{
    const struct check_by_position *rows = arg;
    struct slice value;
    bool found = false;
    struct unpack key = unpack_of(slice_from(row->key, 1));
    uint64_t pos = unpack_be64(&key);
    struct slice name = key_bytes(&c->page, rows->letter, row->value);
    if (name.len <= STORE_KEY_BYTES_MAX) {
        TRY(store_get(c->hs->store, &c->page, rows->object, name, &value, &found));
    }
    struct unpack in = unpack_of(found ? value : (struct slice){0});
    if (found && unpack_u64(&in) == pos && !in.bad && !key.bad && key.rest.len == 0) {
        return OK;
    }
    return check_row_stray(c, (struct check_place){rows->index, rows->object, row->key});
}

struct err check_by_position(struct checker *c, const struct check_by_position *rows)
{
    void *arg = (void *)(uintptr_t)rows;
    TRY(check_each_row(c, rows->object, rows->letter, visit_positioned, arg));
    return check_each_row(c, rows->object, rows->index_letter, visit_position, arg);
}

/* --- the run --- */

const struct check_room *check_room_find(const struct checker *c, uint64_t number)
{
    uint64_t at = 0;
    bool found = map_get(c->rooms->by_number, map_key_u64(&number), &at);
    return found ? &c->rooms->items[at - 1] : NULL;
}

static struct err check_all(struct checker *c)
{
    TRY(check_user_ids(c));
    TRY(check_rooms_load(c));
    TRY(check_aliases(c));
    for (size_t i = 0; i < c->rooms->count; i++) {
        c->at = &c->rooms->items[i];
        TRY(check_room(c, c->at));
        c->result->rooms++;
        arena_reset(c->room.arena);
        if (c->options->progress) {
            c->options->progress(c->options->arg, i + 1, c->rooms->count);
        }
    }
    c->at = NULL;
    TRY(check_event_ids(c));
    TRY(check_users(c));
    TRY(check_pushers(c));
    TRY(check_keys(c));
    TRY(check_device_lists(c));
    TRY(check_inboxes(c));
    TRY(check_media(c));
    return c->mode == CHECK_REBUILD ? store_wait_durable(c->hs->store, c->page.write_ticket) : OK;
}

/* Everything, or one room. */
static struct err run_body(struct checker *checker, const struct check_room *only)
{
    TRY(load_counter(checker));
    return only ? check_room(checker, only) : check_all(checker);
}

static struct err run(struct checker *checker, const struct check_room *only)
{
    struct check_used used = {0};
    struct check_rooms rooms = {.by_number = map_new()};
    checker->room = *checker->ctx;
    checker->page = *checker->ctx;
    checker->used = &used;
    checker->rooms = &rooms;
    checker->room.arena = arena_new();
    checker->page.arena = arena_new();
    struct err err = run_body(checker, only);
    arena_free(&checker->page.arena);
    arena_free(&checker->room.arena);
    mem_free(rooms.items);
    map_free(&rooms.by_number);
    mem_free(used.bits_owned);
    return err;
}

struct err check_run(struct hs *hs, struct ctx *ctx, enum check_mode mode,
                     const struct check_options *options, struct check_result *result_out)
{
    struct checker checker = {
        .hs = hs, .ctx = ctx, .options = options, .result = result_out, .mode = mode};
    *result_out = (struct check_result){0};
    return run(&checker, NULL);
}

struct err rebuild_room(struct hs *hs, struct ctx *ctx, const struct check_room *room)
{
    struct check_options options = {0};
    struct check_result result = {0};
    struct checker checker = {
        .hs = hs, .ctx = ctx, .options = &options, .result = &result, .mode = CHECK_REBUILD};
    checker.at = room;
    struct err err = run(&checker, room);
    log_warn(hs->log, "room_healed", .room = room->room_id, .pos = (int64_t)result.healed,
             .note = LIT("rows that derive from its log were behind it"));
    return err;
}

struct err hs_check(struct hs *hs, struct ctx *ctx, const struct check_options *options,
                    struct check_result *result_out)
{
    return check_run(hs, ctx, CHECK_ONLY, options, result_out);
}
