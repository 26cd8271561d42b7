#include "homeserver/search/people.h"

#include "homeserver/search/words.h"

enum { NAME_BYTES_MAX = 1024 };

struct old_person {
    struct arena *arena;
    struct search_person person;
    struct slice name; /* as it stands in the index */
    bool found;
};

static struct err run(struct search_index *index, const struct search_sql *sql)
{
    return search_db_run(search_index_db(index), sql, NULL, NULL);
}

static struct slice keep(struct arena *arena, struct slice text)
{
    return text.ptr ? arena_copy(arena, text) : text;
}

static struct err take_old(void *arg, const struct search_row *row, bool *stop_out)
{
    struct old_person *old = arg;
    *stop_out = true;
    old->found = true;
    old->person.user_id = keep(old->arena, search_row_text(row, 0));
    old->name = keep(old->arena, search_row_text(row, 1));
    old->person.display_name = keep(old->arena, search_row_text(row, 2));
    old->person.avatar_url = keep(old->arena, search_row_text(row, 3));
    old->person.told_in = (uint64_t)search_row_int(row, 4);
    return OK;
}

static struct err load(struct search_db *db, struct ctx *ctx, uint64_t user,
                       struct old_person *old_out)
{
    static const char select[] =
        "SELECT user_id, name, display_name, avatar_url, told_in FROM people WHERE user = ?1";
    *old_out = (struct old_person){.arena = ctx->arena, .person.user = user};
    return search_db_run(db, &(struct search_sql){select, {search_int((int64_t)user)}}, take_old,
                         old_out);
}

static struct err delete_row(struct search_index *index, const struct old_person *old)
{
    static const char out_of_names[] =
        "INSERT INTO names(names, rowid, user_id, name) VALUES('delete', ?1, ?2, ?3)";
    int64_t user = (int64_t)old->person.user;
    TRY(run(index, &(struct search_sql){out_of_names,
                                        {search_int(user), search_text(old->person.user_id),
                                         search_text(old->name)}}));
    return run(index,
               &(struct search_sql){"DELETE FROM people WHERE user = ?1", {search_int(user)}});
}

static struct err insert_row(struct search_index *index, const struct search_person *person,
                             struct slice name)
{
    static const char into_people[] =
        "INSERT INTO people(user, user_id, name, display_name, avatar_url, told_in)"
        " VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
    static const char into_names[] = "INSERT INTO names(rowid, user_id, name) VALUES(?1, ?2, ?3)";
    int64_t user = (int64_t)person->user;
    TRY(run(index, &(struct search_sql){into_people,
                                        {search_int(user), search_text(person->user_id),
                                         search_text(name), search_text(person->display_name),
                                         search_text(person->avatar_url),
                                         search_int((int64_t)person->told_in)}}));
    return run(index, &(struct search_sql){
                          into_names,
                          {search_int(user), search_text(person->user_id), search_text(name)}});
}

static bool is_same(const struct search_person *a, const struct search_person *b)
{
    return slice_eq(a->display_name, b->display_name) && slice_eq(a->avatar_url, b->avatar_url) &&
           slice_eq(a->user_id, b->user_id) && a->told_in == b->told_in;
}

struct err search_people_put(struct search_index *index, struct ctx *ctx,
                             const struct search_person *person)
{
    struct old_person old;
    TRY(search_index_begin(index));
    TRY(load(search_index_db(index), ctx, person->user, &old));
    if (old.found && (is_same(&old.person, person) || (person->told_in && !old.person.told_in))) {
        return OK;
    }
    if (old.found) {
        TRY(delete_row(index, &old));
    }
    struct slice name = {0};
    if (person->display_name.ptr) {
        name = search_words_spread(ctx->arena, slice_sub(person->display_name, 0, NAME_BYTES_MAX));
    }
    return insert_row(index, person, name);
}

struct err search_people_drop(struct search_index *index, struct ctx *ctx, uint64_t user)
{
    struct old_person old;
    TRY(search_index_begin(index));
    TRY(load(search_index_db(index), ctx, user, &old));
    return old.found ? delete_row(index, &old) : OK;
}

struct err search_rooms_set_open(struct search_index *index, uint64_t room, bool is_open)
{
    const struct search_value number = search_int((int64_t)room);
    const char *sql = is_open ? "INSERT OR IGNORE INTO rooms(room) VALUES(?1)"
                              : "DELETE FROM rooms WHERE room = ?1";
    TRY(search_index_begin(index));
    return run(index, &(struct search_sql){sql, {number}});
}

/* --- looking --- */

struct looking {
    struct ctx *ctx;
    size_t max;
    struct search_candidates *out;
};

static struct err take_candidate(void *arg, const struct search_row *row, bool *stop_out)
{
    struct looking *looking = arg;
    struct arena *arena = looking->ctx->arena;
    struct search_candidates *out = looking->out;
    if (out->count == looking->max) {
        out->has_more = true;
        *stop_out = true;
        return OK;
    }
    struct search_candidate *candidate = &out->items[out->count++];
    candidate->by_id = search_row_int(row, 0) != 0;
    candidate->person = (struct search_person){
        .user = (uint64_t)search_row_int(row, 1),
        .user_id = keep(arena, search_row_text(row, 2)),
        .display_name = keep(arena, search_row_text(row, 3)),
        .avatar_url = keep(arena, search_row_text(row, 4)),
        .told_in = (uint64_t)search_row_int(row, 5),
    };
    return OK;
}

/* Each word as the beginning of one. */
static struct err express(struct search_db *db, struct ctx *ctx, struct slice term,
                          struct slice *expression_out)
{
    struct slice *words = NULL;
    size_t count = 0;
    struct buf out;
    struct slice spread =
        search_words_spread(ctx->arena, slice_sub(term, 0, SEARCH_QUERY_BYTES_MAX));
    TRY(search_db_words(db, ctx->arena, spread, &words, &count));
    buf_init_arena(&out, ctx->arena, SIZE_MAX / 2);
    for (size_t i = 0; i < count && i < SEARCH_TERMS_MAX; i++) {
        buf_add(&out, i ? LIT(" AND \"") : LIT("\""));
        buf_add(&out, words[i]); /* letters and digits: no quote is among them */
        buf_add(&out, LIT("\" *"));
    }
    *expression_out = buf_slice(&out);
    return OK;
}

struct err search_people_find(struct search_db *db, struct ctx *ctx, struct slice term, size_t max,
                              struct search_candidates *candidates_out)
{
    static const char select[] =
        "SELECT whole(names), people.user, people.user_id, people.display_name, people.avatar_url,"
        " people.told_in FROM names CROSS JOIN people ON people.user = names.rowid"
        " WHERE names MATCH ?1";
    struct looking looking = {.ctx = ctx, .max = max, .out = candidates_out};
    struct slice expression;
    *candidates_out = (struct search_candidates){
        .items = arena_array(ctx->arena, max + 1, sizeof *candidates_out->items)};
    TRY(express(db, ctx, term, &expression));
    if (expression.len == 0) {
        return OK;
    }
    return search_db_run(db, &(struct search_sql){select, {search_text(expression)}},
                         take_candidate, &looking);
}

struct err search_people_get(struct search_db *db, struct ctx *ctx, uint64_t user,
                             struct search_person *person_out, bool *found_out)
{
    struct old_person old;
    TRY(load(db, ctx, user, &old));
    *person_out = old.person;
    *found_out = old.found;
    return OK;
}

struct room_list {
    struct arena *arena;
    uint64_t *items;
    size_t count, cap;
};

static struct err take_room(void *arg, const struct search_row *row, bool *stop_out)
{
    struct room_list *list = arg;
    (void)stop_out;
    if (list->count == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 64;
        list->items = arena_grow(list->arena, list->items, list->cap * sizeof *list->items,
                                 cap * sizeof *list->items);
        list->cap = cap;
    }
    list->items[list->count++] = (uint64_t)search_row_int(row, 0);
    return OK;
}

struct err search_rooms_open(struct search_db *db, struct ctx *ctx, uint64_t **rooms_out,
                             size_t *count_out)
{
    struct room_list list = {.arena = ctx->arena};
    TRY(search_db_run(db, &(struct search_sql){.text = "SELECT room FROM rooms ORDER BY room"},
                      take_room, &list));
    *rooms_out = list.items;
    *count_out = list.count;
    return OK;
}
