/* A database file of SQLite, for derived data that is looked up by words: statements with values
 * go in, rows come out one by one. db.c alone knows the library.
 *
 * A connection belongs to one thread at a time. One of them writes, the others read beside it (the
 * file is in WAL mode). Errors: ERR_CORRUPT when the file is damaged, ERR_TIMEOUT when the limit of
 * time was reached, ERR_IO otherwise. */
#pragma once
#include "homeserver/base/ctx.h"

struct search_db;
struct search_row; /* the row at hand */

enum search_db_access { SEARCH_DB_WRITES, SEARCH_DB_READS };
struct err search_db_open(struct slice path, enum search_db_access access,
                          struct search_db **db_out) MUST_USE;
void search_db_close(struct search_db **db);

struct search_value {
    enum { SEARCH_END, SEARCH_NULL, SEARCH_INT, SEARCH_TEXT } kind;
    int64_t number;
    struct slice text; /* borrowed during the call */
};
struct search_value search_int(int64_t number);
struct search_value search_text(struct slice text);

enum { SEARCH_VALUES_MAX = 8 };
struct search_sql {
    const char *text; /* one statement, static: it is kept prepared by its address */
    struct search_value values[SEARCH_VALUES_MAX]; /* of ?1 ...; SEARCH_END ends them */
};

/* Called for each row; setting *stop_out ends the statement. */
typedef struct err (*search_row_fn)(void *arg, const struct search_row *row, bool *stop_out);
/* Runs a statement. `visit` may be NULL. */
struct err search_db_run(struct search_db *db, const struct search_sql *sql, search_row_fn visit,
                         void *arg) MUST_USE;
/* The first column of the first row as a number; found false: no row. */
struct err search_db_number(struct search_db *db, const struct search_sql *sql, int64_t *number_out,
                            bool *found_out) MUST_USE;
/* Several statements without values (a schema). */
struct err search_db_script(struct search_db *db, const char *text) MUST_USE;
int64_t search_row_int(const struct search_row *row, int column);
/* Until `visit` returns. ptr NULL = not set. */
struct slice search_row_text(const struct search_row *row, int column);

/* Statements give up when this time (monotonic) has passed; 0 = no limit. */
void search_db_limit(struct search_db *db, const struct now *now, int64_t until_mono_ms);
/* Answers `wanted(id)` of a statement; NULL: everything is. */
typedef bool (*search_wanted_fn)(void *arg, int64_t id);
void search_db_filter(struct search_db *db, search_wanted_fn wanted, void *arg);
/* The file was found to be damaged. */
bool search_db_is_damaged(const struct search_db *db);
/* The first error of a statement since the last call: what belongs together may be half there. */
struct err search_db_take_failure(struct search_db *db);
/* Gives back what is kept of the file in memory, as far as nothing is being written. */
void search_db_release(struct search_db *db);
/* What all connections hold in memory. */
uint64_t search_db_memory_bytes(void);
/* Whether a transaction is open. */
bool search_db_is_writing(const struct search_db *db);
/* The k-th statement from now on fails (k > 0), for tests; 0 = none. */
void search_db_fail_after(struct search_db *db, int32_t statements);

/* The words of a text as the full text index cuts them, folded. */
struct err search_db_words(struct search_db *db, struct arena *arena, struct slice text,
                           struct slice **words_out, size_t *count_out) MUST_USE;

/* Functions of full text queries, of the row at hand:
 *   closeness(table)  how well it fits, a positive integer: words that occur often in a short text
 *   whole(table)      whether every phrase of the query occurs in the first column */
/* The tokenizer that the index uses, for its schema (inside double quotes). */
#define SEARCH_TOKENIZER "unicode61 remove_diacritics 2 categories 'L* N* Co So'"
