#include "homeserver/search/index.h"

#include "homeserver/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BATCH_MAX = 2000, BATCH_BYTES_MAX = 8 << 20, NUMBER_BITS = 36 };
#define VERSION 1
#define NUMBER_OFFSET (INT64_C(1) << (NUMBER_BITS - 1))

static const char out_of_words[] = "INSERT INTO words(words, rowid, text) VALUES('delete', ?1, ?2)";

/* A row to write, or to delete. Rows are written in order of their ids: the index keeps what comes
 * in another order in pieces that it must merge. */
struct pending {
    int64_t id;
    size_t order;
    bool is_drop;
    struct search_doc doc;
};

struct search_index {
    struct search_db *db;
    struct log *log;
    struct arena *arena; /* of what is pending */
    struct pending *items;
    size_t count;
};

static const char schema[] =
    "BEGIN;"
    "CREATE TABLE marks(mark INTEGER PRIMARY KEY, value INTEGER NOT NULL);"
    "CREATE TABLE rooms(room INTEGER PRIMARY KEY);" /* those whose members everybody may find */
    "CREATE TABLE docs(id INTEGER PRIMARY KEY, ts INTEGER NOT NULL, sender INTEGER NOT NULL,"
    " flags INTEGER NOT NULL, edit INTEGER, text TEXT NOT NULL);"
    "CREATE INDEX docs_by_edit ON docs(edit) WHERE edit IS NOT NULL;"
    "CREATE VIRTUAL TABLE words USING fts5(text, content='docs', content_rowid='id',"
    " tokenize=\"" SEARCH_TOKENIZER "\");"
    "CREATE TABLE people(user INTEGER PRIMARY KEY, user_id TEXT NOT NULL, name TEXT,"
    " display_name TEXT, avatar_url TEXT, told_in INTEGER NOT NULL);"
    "CREATE VIRTUAL TABLE names USING fts5(user_id, name, content='people', content_rowid='user',"
    " prefix='1 2 3', tokenize=\"" SEARCH_TOKENIZER "\");"
    "PRAGMA user_version=1;"
    "COMMIT;";

/* --- ids --- */

bool search_id_of(uint64_t room, int64_t number, int64_t *id_out)
{
    *id_out = 0;
    if (room >= UINT64_C(1) << (63 - NUMBER_BITS) || number < -NUMBER_OFFSET ||
        number >= NUMBER_OFFSET) {
        return false;
    }
    *id_out = (int64_t)(room << NUMBER_BITS) + number + NUMBER_OFFSET;
    return true;
}

uint64_t search_id_room(int64_t id)
{
    return (uint64_t)id >> NUMBER_BITS;
}

int64_t search_id_number(int64_t id)
{
    return (id & ((INT64_C(1) << NUMBER_BITS) - 1)) - NUMBER_OFFSET;
}

/* --- opening --- */

static void remove_file(struct arena *arena, struct slice path, const char *suffix)
{
    unlink(arena_printf(arena, "%.*s%s", (int)path.len, path.ptr, suffix).ptr);
}

void search_index_remove(struct slice path)
{
    struct arena *arena = arena_new();
    remove_file(arena, path, "");
    remove_file(arena, path, "-wal");
    remove_file(arena, path, "-shm");
    arena_free(&arena);
}

void search_index_set_aside(struct slice path)
{
    struct arena *arena = arena_new();
    rename(arena_cstr(arena, path),
           arena_printf(arena, "%.*s.damaged", (int)path.len, path.ptr).ptr);
    arena_free(&arena);
    search_index_remove(path);
}

/* Reads a row of each table: what is damaged at its top shows here, the rest when it is met. */
static struct err look_around(struct search_db *db)
{
    static const char *const looks[] = {"SELECT count(*) FROM marks", "SELECT id FROM docs LIMIT 1",
                                        "SELECT rowid FROM words WHERE words MATCH 'a' LIMIT 1",
                                        "SELECT user FROM people LIMIT 1",
                                        "SELECT rowid FROM names WHERE names MATCH 'a' LIMIT 1"};
    for (size_t i = 0; i < COUNT_OF(looks); i++) {
        TRY(search_db_run(db, &(struct search_sql){.text = looks[i]}, NULL, NULL));
    }
    return OK;
}

static struct err open_file(struct slice path, struct search_db **db_out, int64_t *version_out)
{
    bool found = false;
    TRY(search_db_open(path, SEARCH_DB_WRITES, db_out));
    struct err err = search_db_number(*db_out, &(struct search_sql){.text = "PRAGMA user_version"},
                                      version_out, &found);
    if (err.code == 0 && *version_out == VERSION) {
        err = look_around(*db_out);
    }
    if (err.code != 0) {
        search_db_close(db_out);
    }
    return err;
}

static struct err open_or_make(struct slice path, struct log *log, struct search_db **db_out,
                               bool *is_new_out)
{
    int64_t version = 0;
    struct err err = open_file(path, db_out, &version);
    if (err.code == ERR_CORRUPT) {
        log_warn(log, "search_index_damaged", .note = path, .err = slice_of(err.text));
        search_index_set_aside(path);
        err = open_file(path, db_out, &version);
    }
    TRY(err);
    *is_new_out = version != VERSION;
    if (version != 0 && version != VERSION) {
        search_db_close(db_out);
        search_index_remove(path);
        TRY(open_file(path, db_out, &version));
    }
    return version == VERSION ? OK : search_db_script(*db_out, schema);
}

struct err search_index_open(struct slice path, struct log *log, struct search_index **index_out,
                             bool *is_new_out)
{
    struct search_db *db = NULL;
    struct err err = open_or_make(path, log, &db, is_new_out);
    if (err.code != 0) {
        search_db_close(&db);
        return err;
    }
    struct search_index *index = mem_alloc(sizeof *index);
    *index = (struct search_index){.db = db, .log = log, .arena = arena_new()};
    index->items = mem_alloc(BATCH_MAX * sizeof *index->items);
    *index_out = index;
    return OK;
}

void search_index_close(struct search_index **index)
{
    struct search_index *i = *index;
    if (!i) {
        return;
    }
    search_db_close(&i->db);
    arena_free(&i->arena);
    mem_free(i->items);
    mem_free(i);
    *index = NULL;
}

struct search_db *search_index_db(struct search_index *index)
{
    return index->db;
}

/* --- writing --- */

static struct err run(struct search_index *index, const struct search_sql *sql)
{
    return search_db_run(index->db, sql, NULL, NULL);
}

struct err search_index_begin(struct search_index *index)
{
    return search_db_is_writing(index->db)
               ? OK
               : run(index, &(struct search_sql){.text = "BEGIN IMMEDIATE"});
}

struct old_row {
    struct arena *arena;
    struct search_doc doc;
    bool found;
};

static struct err take_old(void *arg, const struct search_row *row, bool *stop_out)
{
    struct old_row *old = arg;
    *stop_out = true;
    old->found = true;
    old->doc.ts_ms = search_row_int(row, 0);
    old->doc.sender = (uint64_t)search_row_int(row, 1);
    old->doc.flags = (uint32_t)search_row_int(row, 2);
    old->doc.edit = search_row_int(row, 3);
    old->doc.text = arena_copy(old->arena, search_row_text(row, 4));
    return OK;
}

static struct err delete_row(struct search_index *index, int64_t id, struct slice text)
{
    TRY(run(index, &(struct search_sql){out_of_words, {search_int(id), search_text(text)}}));
    return run(index, &(struct search_sql){"DELETE FROM docs WHERE id = ?1", {search_int(id)}});
}

static struct err insert_row(struct search_index *index, int64_t id, int64_t edit,
                             const struct search_doc *doc)
{
    static const char into_docs[] =
        "INSERT INTO docs(id, ts, sender, flags, edit, text) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
    static const char into_words[] = "INSERT INTO words(rowid, text) VALUES(?1, ?2)";
    TRY(run(index, &(struct search_sql){into_docs,
                                        {search_int(id), search_int(doc->ts_ms),
                                         search_int((int64_t)doc->sender), search_int(doc->flags),
                                         edit ? search_int(edit) : search_text((struct slice){0}),
                                         search_text(doc->text)}}));
    return run(index, &(struct search_sql){into_words, {search_int(id), search_text(doc->text)}});
}

static bool is_same(const struct search_doc *old, const struct search_doc *new, int64_t edit)
{
    return old->ts_ms == new->ts_ms && old->sender == new->sender && old->flags == new->flags &&
           old->edit == edit &&slice_eq(old->text, new->text);
}

static struct err write_one(struct search_index *index, struct arena *arena,
                            const struct pending *pending)
{
    static const char select[] = "SELECT ts, sender, flags, edit, text FROM docs WHERE id = ?1";
    struct old_row old = {.arena = arena};
    int64_t edit = 0;
    TRY(search_db_run(index->db, &(struct search_sql){select, {search_int(pending->id)}}, take_old,
                      &old));
    if (pending->doc.edit && !search_id_of(pending->doc.room, pending->doc.edit, &edit)) {
        edit = 0;
    }
    if (old.found && !pending->is_drop && is_same(&old.doc, &pending->doc, edit)) {
        return OK;
    }
    if (old.found) {
        TRY(delete_row(index, pending->id, old.doc.text));
    }
    return pending->is_drop ? OK : insert_row(index, pending->id, edit, &pending->doc);
}

static int by_id(const void *a, const void *b)
{
    const struct pending *left = a;
    const struct pending *right = b;
    if (left->id != right->id) {
        return left->id < right->id ? -1 : 1;
    }
    return left->order < right->order ? -1 : left->order > right->order;
}

/* What is pending goes into the transaction; of two rows with one id the later. */
static struct err write_pending(struct search_index *index)
{
    if (index->count == 0) {
        return OK;
    }
    struct arena *arena = arena_new();
    qsort(index->items, index->count, sizeof *index->items, by_id);
    struct err err = search_index_begin(index);
    for (size_t i = 0; i < index->count && err.code == 0; i++) {
        if (i + 1 == index->count || index->items[i + 1].id != index->items[i].id) {
            err = write_one(index, arena, &index->items[i]);
            arena_reset(arena);
        }
    }
    arena_free(&arena);
    index->count = 0;
    arena_reset(index->arena);
    return err;
}

static struct err add(struct search_index *index, struct pending pending)
{
    pending.doc.text = arena_copy(index->arena, pending.doc.text);
    pending.order = index->count;
    index->items[index->count++] = pending;
    return index->count == BATCH_MAX || arena_used_bytes(index->arena) > BATCH_BYTES_MAX
               ? write_pending(index)
               : OK;
}

struct err search_index_put(struct search_index *index, const struct search_doc *doc)
{
    struct pending pending = {.doc = *doc};
    return search_id_of(doc->room, doc->number, &pending.id) ? add(index, pending) : OK;
}

struct err search_index_drop(struct search_index *index, uint64_t room, int64_t number)
{
    struct pending pending = {.is_drop = true};
    return search_id_of(room, number, &pending.id) ? add(index, pending) : OK;
}

struct err search_index_edited(struct search_index *index, uint64_t room, int64_t edit,
                               int64_t *number_out, bool *found_out)
{
    int64_t id = 0;
    *found_out = false;
    *number_out = 0;
    if (!search_id_of(room, edit, &id)) {
        return OK;
    }
    TRY(write_pending(index));
    TRY(search_db_number(
        index->db, &(struct search_sql){"SELECT id FROM docs WHERE edit = ?1", {search_int(id)}},
        &id, found_out));
    *number_out = search_id_number(id);
    return OK;
}

struct dropping {
    struct search_index *index;
};

static struct err drop_words(void *arg, const struct search_row *row, bool *stop_out)
{
    const struct dropping *dropping = arg;
    (void)stop_out;
    return run(dropping->index, &(struct search_sql){out_of_words,
                                                     {search_int(search_row_int(row, 0)),
                                                      search_text(search_row_text(row, 1))}});
}

struct err search_index_drop_room(struct search_index *index, uint64_t room)
{
    struct dropping dropping = {index};
    int64_t from = 0;
    int64_t to = 0;
    if (!search_id_of(room, -NUMBER_OFFSET, &from) || !search_id_of(room, NUMBER_OFFSET - 1, &to)) {
        return OK;
    }
    TRY(write_pending(index));
    TRY(search_index_begin(index));
    TRY(search_db_run(index->db,
                      &(struct search_sql){"SELECT id, text FROM docs WHERE id BETWEEN ?1 AND ?2",
                                           {search_int(from), search_int(to)}},
                      drop_words, &dropping));
    return run(index, &(struct search_sql){"DELETE FROM docs WHERE id BETWEEN ?1 AND ?2",
                                           {search_int(from), search_int(to)}});
}

struct err search_index_next_room(struct search_index *index, uint64_t after, uint64_t *room_out,
                                  bool *found_out)
{
    int64_t id = 0;
    *found_out = false;
    if (!search_id_of(after, NUMBER_OFFSET - 1, &id)) {
        return OK;
    }
    TRY(search_db_number(
        index->db,
        &(struct search_sql){"SELECT id FROM docs WHERE id > ?1 ORDER BY id LIMIT 1",
                             {search_int(id)}},
        &id, found_out));
    *room_out = search_id_room(id);
    return OK;
}

struct err search_index_get_mark(struct search_index *index, enum search_mark mark,
                                 int64_t *value_out)
{
    bool found = false;
    return search_db_number(index->db,
                            &(struct search_sql){"SELECT value FROM marks WHERE mark = ?1",
                                                 {search_int((int64_t)mark)}},
                            value_out, &found);
}

struct err search_index_set_mark(struct search_index *index, enum search_mark mark, int64_t value)
{
    static const char set[] = "INSERT OR REPLACE INTO marks(mark, value) VALUES(?1, ?2)";
    TRY(search_index_begin(index));
    return run(index, &(struct search_sql){set, {search_int((int64_t)mark), search_int(value)}});
}

bool search_index_is_dirty(const struct search_index *index)
{
    return index->count > 0 || search_db_is_writing(index->db);
}

struct err search_index_flush(struct search_index *index)
{
    struct err err = write_pending(index);
    struct err failure = search_db_take_failure(index->db);
    err = err.code ? err : failure;
    if (err.code == 0 && search_db_is_writing(index->db)) {
        err = run(index, &(struct search_sql){.text = "COMMIT"});
    }
    if (err.code != 0 && search_db_is_writing(index->db)) {
        struct err undone = run(index, &(struct search_sql){.text = "ROLLBACK"});
        (void)undone; /* the first error counts */
    }
    return err;
}

struct err search_index_wipe(struct search_index *index)
{
    static const char *const steps[] = {
        "DELETE FROM marks",  "DELETE FROM rooms",
        "DELETE FROM docs",   "INSERT INTO words(words) VALUES('delete-all')",
        "DELETE FROM people", "INSERT INTO names(names) VALUES('delete-all')"};
    index->count = 0;
    arena_reset(index->arena);
    TRY(search_index_begin(index));
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        TRY(run(index, &(struct search_sql){.text = steps[i]}));
    }
    return search_index_flush(index);
}
