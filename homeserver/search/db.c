#include "homeserver/search/db.h"

#include "homeserver/base/mem.h"

#include <sqlite3.h>
#include <string.h>

enum { STATEMENTS_MAX = 64, STEPS_PER_LOOK = 1000, BUSY_MS = 10000, PHRASES_MAX = 128 };

struct statement {
    const char *text;
    sqlite3_stmt *prepared;
    bool busy;
};

struct search_db {
    sqlite3 *handle;
    fts5_api *words;
    struct statement statements[STATEMENTS_MAX];
    size_t statement_count;
    const struct now *now;
    int64_t until_mono_ms;
    int32_t fail_after;
    bool is_damaged;
    struct err failure;
    search_wanted_fn wanted;
    void *wanted_arg;
};

struct search_row {
    sqlite3_stmt *prepared;
};

static struct err error_of(struct search_db *db, int result)
{
    switch (result & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        db->is_damaged = true;
        return err_make(ERR_CORRUPT, "the search index is damaged");
    case SQLITE_INTERRUPT:
        return err_make(ERR_TIMEOUT, "the search took too long");
    default:
        return err_make(ERR_IO, sqlite3_errstr(result));
    }
}

/* --- functions of full text queries --- */

/* How often each phrase occurs, weighed against the length of the text. Counts of other rows play
 * no part, so that a row keeps its rank from one page to the next. */
static void closeness(const Fts5ExtensionApi *api, Fts5Context *fts, sqlite3_context *out,
                      int value_count, sqlite3_value **values)
{
    double times[PHRASES_MAX] = {0};
    double sum = 0;
    int count = 0;
    int size = 0;
    (void)value_count;
    (void)values;
    int result = api->xInstCount(fts, &count);
    result = result ? result : api->xColumnSize(fts, 0, &size);
    for (int i = 0; i < count && result == SQLITE_OK; i++) {
        int phrase = 0;
        int column = 0;
        int offset = 0;
        result = api->xInst(fts, i, &phrase, &column, &offset);
        times[phrase < PHRASES_MAX ? phrase : PHRASES_MAX - 1] += 1;
    }
    for (int i = 0; i < api->xPhraseCount(fts) && i < PHRASES_MAX; i++) {
        sum += times[i] * 2.2 / (times[i] + 1.2 * (0.25 + 0.75 * size / 20));
    }
    if (result != SQLITE_OK) {
        sqlite3_result_error_code(out, result);
        return;
    }
    sqlite3_result_int64(out, (sqlite3_int64)(sum * 1000) + 1);
}

static void whole(const Fts5ExtensionApi *api, Fts5Context *fts, sqlite3_context *out,
                  int value_count, sqlite3_value **values)
{
    bool has[PHRASES_MAX] = {false};
    bool all = true;
    int count = 0;
    (void)value_count;
    (void)values;
    int result = api->xInstCount(fts, &count);
    for (int i = 0; i < count && result == SQLITE_OK; i++) {
        int phrase = 0;
        int column = 0;
        int offset = 0;
        result = api->xInst(fts, i, &phrase, &column, &offset);
        if (phrase < PHRASES_MAX && column == 0) {
            has[phrase] = true;
        }
    }
    for (int i = 0; i < api->xPhraseCount(fts) && i < PHRASES_MAX; i++) {
        all = all && has[i];
    }
    if (result != SQLITE_OK) {
        sqlite3_result_error_code(out, result);
        return;
    }
    sqlite3_result_int(out, all);
}

static void is_wanted(sqlite3_context *out, int value_count, sqlite3_value **values)
{
    const struct search_db *db = sqlite3_user_data(out);
    (void)value_count;
    sqlite3_result_int(out,
                       !db->wanted || db->wanted(db->wanted_arg, sqlite3_value_int64(values[0])));
}

static int add_functions(struct search_db *db)
{
    sqlite3_stmt *statement = NULL;
    int result = sqlite3_prepare_v2(db->handle, "SELECT fts5(?1)", -1, &statement, NULL);
    if (result == SQLITE_OK) {
        result = sqlite3_bind_pointer(statement, 1, &db->words, "fts5_api_ptr", NULL);
        sqlite3_step(statement);
    }
    sqlite3_finalize(statement);
    if (result == SQLITE_OK && !db->words) {
        result = SQLITE_ERROR;
    }
    if (result == SQLITE_OK) {
        result = db->words->xCreateFunction(db->words, "closeness", NULL, closeness, NULL);
    }
    if (result == SQLITE_OK) {
        result = db->words->xCreateFunction(db->words, "whole", NULL, whole, NULL);
    }
    return result ? result
                  : sqlite3_create_function(db->handle, "wanted", 1, SQLITE_UTF8, db, is_wanted,
                                            NULL, NULL);
}

/* --- connections --- */

static int look_at_clock(void *arg)
{
    const struct search_db *db = arg;
    return db->until_mono_ms && now_mono_ms(db->now) > db->until_mono_ms;
}

/* What is deleted is overwritten; a commit is on the disk when it returns, because what was indexed
 * is not handed over again. */
static const char setup_of_writer[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                                      "PRAGMA secure_delete=ON; PRAGMA cache_size=-4096;"
                                      "PRAGMA journal_size_limit=4194304";
static const char setup_of_reader[] = "PRAGMA query_only=1; PRAGMA cache_size=-4096";

struct err search_db_open(struct slice path, enum search_db_access access,
                          struct search_db **db_out)
{
    struct search_db *db = mem_alloc(sizeof *db);
    struct arena *arena = arena_new();
    bool writes = access == SEARCH_DB_WRITES;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (writes ? SQLITE_OPEN_CREATE : 0);
    int result = sqlite3_open_v2(arena_cstr(arena, path), &db->handle, flags, NULL);
    arena_free(&arena);
    if (result == SQLITE_OK) {
        sqlite3_busy_timeout(db->handle, BUSY_MS);
        sqlite3_progress_handler(db->handle, STEPS_PER_LOOK, look_at_clock, db);
        const char *setup = writes ? setup_of_writer : setup_of_reader;
        result = sqlite3_exec(db->handle, setup, NULL, NULL, NULL);
    }
    result = result ? result : add_functions(db);
    if (result != SQLITE_OK) {
        struct err err = error_of(db, result);
        search_db_close(&db);
        return err;
    }
    *db_out = db;
    return OK;
}

void search_db_close(struct search_db **db)
{
    struct search_db *d = *db;
    if (!d) {
        return;
    }
    for (size_t i = 0; i < d->statement_count; i++) {
        sqlite3_finalize(d->statements[i].prepared);
    }
    sqlite3_close(d->handle);
    mem_free(d);
    *db = NULL;
}

void search_db_limit(struct search_db *db, const struct now *now, int64_t until_mono_ms)
{
    db->now = now;
    db->until_mono_ms = until_mono_ms;
}

void search_db_filter(struct search_db *db, search_wanted_fn wanted, void *arg)
{
    db->wanted = wanted;
    db->wanted_arg = arg;
}

bool search_db_is_damaged(const struct search_db *db)
{
    return db->is_damaged;
}

struct err search_db_take_failure(struct search_db *db)
{
    struct err failure = db->failure;
    db->failure = OK;
    return failure;
}

void search_db_release(struct search_db *db)
{
    sqlite3_db_release_memory(db->handle);
}

uint64_t search_db_memory_bytes(void)
{
    return (uint64_t)sqlite3_memory_used();
}

bool search_db_is_writing(const struct search_db *db)
{
    return sqlite3_get_autocommit(db->handle) == 0;
}

void search_db_fail_after(struct search_db *db, int32_t statements)
{
    db->fail_after = statements;
}

/* --- statements --- */

struct search_value search_int(int64_t number)
{
    return (struct search_value){.kind = SEARCH_INT, .number = number};
}

struct search_value search_text(struct slice text)
{
    return (struct search_value){.kind = text.ptr ? SEARCH_TEXT : SEARCH_NULL, .text = text};
}

static struct err prepare(struct search_db *db, const char *text, struct statement **statement_out)
{
    for (size_t i = 0; i < db->statement_count; i++) {
        if (db->statements[i].text == text && !db->statements[i].busy) {
            *statement_out = &db->statements[i];
            return OK;
        }
    }
    ASSERT(db->statement_count < STATEMENTS_MAX);
    struct statement *statement = &db->statements[db->statement_count];
    int result = sqlite3_prepare_v3(db->handle, text, -1, SQLITE_PREPARE_PERSISTENT,
                                    &statement->prepared, NULL);
    if (result != SQLITE_OK) {
        return error_of(db, result);
    }
    statement->text = text;
    db->statement_count++;
    *statement_out = statement;
    return OK;
}

static int bind_all(sqlite3_stmt *prepared, const struct search_sql *sql)
{
    int result = SQLITE_OK;
    for (int i = 0; i < SEARCH_VALUES_MAX && result == SQLITE_OK; i++) {
        const struct search_value *value = &sql->values[i];
        switch (value->kind) {
        case SEARCH_END:
            return result;
        case SEARCH_NULL:
            result = sqlite3_bind_null(prepared, i + 1);
            break;
        case SEARCH_INT:
            result = sqlite3_bind_int64(prepared, i + 1, value->number);
            break;
        case SEARCH_TEXT:
            result = sqlite3_bind_text64(prepared, i + 1, value->text.ptr, value->text.len,
                                         SQLITE_STATIC, SQLITE_UTF8);
            break;
        }
    }
    return result;
}

static struct err step_all(struct search_db *db, struct statement *statement, search_row_fn visit,
                           void *arg)
{
    const struct search_row row = {statement->prepared};
    bool stop = false;
    int result = SQLITE_ROW;
    while (!stop) {
        result = sqlite3_step(statement->prepared);
        if (result != SQLITE_ROW) {
            return result == SQLITE_DONE ? OK : error_of(db, result);
        }
        if (visit) {
            TRY(visit(arg, &row, &stop));
        }
    }
    return OK;
}

static struct err run(struct search_db *db, const struct search_sql *sql, search_row_fn visit,
                      void *arg)
{
    struct statement *statement = NULL;
    if (db->fail_after && --db->fail_after == 0) {
        return err_make(ERR_IO, "a failure that was asked for");
    }
    TRY(prepare(db, sql->text, &statement));
    statement->busy = true;
    int result = bind_all(statement->prepared, sql);
    struct err err = result ? error_of(db, result) : step_all(db, statement, visit, arg);
    sqlite3_reset(statement->prepared);
    sqlite3_clear_bindings(statement->prepared);
    statement->busy = false;
    return err;
}

struct err search_db_run(struct search_db *db, const struct search_sql *sql, search_row_fn visit,
                         void *arg)
{
    struct err err = run(db, sql, visit, arg);
    db->failure = db->failure.code ? db->failure : err;
    return err;
}

struct number {
    int64_t value;
    bool found;
};

static struct err take_number(void *arg, const struct search_row *row, bool *stop_out)
{
    struct number *number = arg;
    number->value = search_row_int(row, 0);
    number->found = true;
    *stop_out = true;
    return OK;
}

struct err search_db_number(struct search_db *db, const struct search_sql *sql, int64_t *number_out,
                            bool *found_out)
{
    struct number number = {0};
    TRY(search_db_run(db, sql, take_number, &number));
    *number_out = number.value;
    *found_out = number.found;
    return OK;
}

struct err search_db_script(struct search_db *db, const char *text)
{
    int result = sqlite3_exec(db->handle, text, NULL, NULL, NULL);
    return result ? error_of(db, result) : OK;
}

int64_t search_row_int(const struct search_row *row, int column)
{
    return sqlite3_column_int64(row->prepared, column);
}

struct slice search_row_text(const struct search_row *row, int column)
{
    const char *text = (const char *)sqlite3_column_text(row->prepared, column);
    return (struct slice){text, text ? (size_t)sqlite3_column_bytes(row->prepared, column) : 0};
}

/* --- words --- */

enum { WORDS_MAX = 256 };

struct word_list {
    struct arena *arena;
    struct slice *items;
    size_t count;
};

static int take_word(void *arg, int flags, const char *text, int len, int from, int to)
{
    struct word_list *list = arg;
    (void)flags;
    (void)from;
    (void)to;
    if (list->count < WORDS_MAX) {
        list->items[list->count++] = arena_copy(list->arena, (struct slice){text, (size_t)len});
    }
    return SQLITE_OK;
}

struct err search_db_words(struct search_db *db, struct arena *arena, struct slice text,
                           struct slice **words_out, size_t *count_out)
{
    const char *options[] = {"remove_diacritics", "2", "categories", "L* N* Co So"};
    struct word_list list = {.arena = arena,
                             .items = arena_array(arena, WORDS_MAX, sizeof *list.items)};
    fts5_tokenizer tokenizer;
    Fts5Tokenizer *made = NULL;
    void *context = NULL;
    int result = db->words->xFindTokenizer(db->words, "unicode61", &context, &tokenizer);
    if (result == SQLITE_OK) {
        result = tokenizer.xCreate(context, options, COUNT_OF(options), &made);
    }
    if (result == SQLITE_OK) {
        result = tokenizer.xTokenize(made, &list, FTS5_TOKENIZE_QUERY, text.ptr ? text.ptr : "",
                                     (int)text.len, take_word);
        tokenizer.xDelete(made);
    }
    *words_out = list.items;
    *count_out = list.count;
    return result ? error_of(db, result) : OK;
}
