#include "homeserver/search/find.h"

#include "homeserver/search/words.h"

#include <stdlib.h>

/* A query for few rooms reads their parts of the index, one for many reads it once. */
enum { ROOMS_APART_MAX = 4, PREFIX_LETTERS_MIN = 3 };

struct finding {
    const struct search_query *query;
    struct search_hit *heap; /* the worst of the best first */
    size_t count;
    bool has_more;
};

struct search_place search_place_of(enum search_order order, const struct search_hit *hit)
{
    return (struct search_place){hit->id, order == SEARCH_BY_RANK ? hit->score : hit->ts_ms};
}

/* Whether a comes before b: the larger key, of equal ones the larger id. */
static bool is_before(struct search_place a, struct search_place b)
{
    return a.key != b.key ? a.key > b.key : a.id > b.id;
}

static bool hit_is_before(const struct finding *finding, size_t a, size_t b)
{
    enum search_order order = finding->query->order;
    return is_before(search_place_of(order, &finding->heap[a]),
                     search_place_of(order, &finding->heap[b]));
}

/* --- the best so far, as a heap --- */

static void swap(struct finding *finding, size_t a, size_t b)
{
    struct search_hit hit = finding->heap[a];
    finding->heap[a] = finding->heap[b];
    finding->heap[b] = hit;
}

static void sink(struct finding *finding, size_t count)
{
    for (size_t at = 0; 2 * at + 1 < count;) {
        size_t child = 2 * at + 1;
        if (child + 1 < count && hit_is_before(finding, child, child + 1)) {
            child++;
        }
        if (!hit_is_before(finding, at, child)) {
            return;
        }
        swap(finding, at, child);
        at = child;
    }
}

static void rise(struct finding *finding)
{
    for (size_t at = finding->count - 1; at > 0;) {
        size_t parent = (at - 1) / 2;
        if (!hit_is_before(finding, parent, at)) {
            return;
        }
        swap(finding, at, parent);
        at = parent;
    }
}

static void add_hit(struct finding *finding, const struct search_hit *hit)
{
    enum search_order order = finding->query->order;
    if (finding->count < SEARCH_HITS_MAX) {
        finding->heap[finding->count++] = *hit;
        rise(finding);
        return;
    }
    finding->has_more = true;
    if (is_before(search_place_of(order, hit), search_place_of(order, &finding->heap[0]))) {
        finding->heap[0] = *hit;
        sink(finding, finding->count);
    }
}

/* The worst goes to the end, again and again. */
static void sort_heap(struct finding *finding)
{
    for (size_t left = finding->count; left > 1; left--) {
        swap(finding, 0, left - 1);
        sink(finding, left - 1);
    }
}

/* --- rows --- */

static bool has_number(const uint64_t *items, size_t count, uint64_t number)
{
    for (size_t i = 0; i < count; i++) {
        if (items[i] == number) {
            return true;
        }
    }
    return false;
}

static int by_room(const void *a, const void *b)
{
    uint64_t left = ((const struct search_room *)a)->room;
    uint64_t right = ((const struct search_room *)b)->room;
    return left < right ? -1 : left > right;
}

/* Called for each row before anything else is looked up. */
static bool is_in_rooms(void *arg, int64_t id)
{
    const struct search_query *query = arg;
    struct search_room key = {.room = search_id_room(id)};
    const struct search_room *room =
        bsearch(&key, query->rooms, query->room_count, sizeof *query->rooms, by_room);
    return room && search_id_number(id) <= room->upto;
}

/* Whether a hit's row has to be looked at. */
static bool is_filtered(const struct search_query *query)
{
    return query->keys != SEARCH_DOC_KEYS || query->url != SEARCH_URL_ANY || query->senders ||
           query->not_sender_count;
}

static bool takes(const struct search_query *query, const struct search_hit *hit, uint32_t flags)
{
    bool has_url = (flags & SEARCH_DOC_URL) != 0;
    if (!(flags & query->keys) ||
        (query->url != SEARCH_URL_ANY && has_url != (query->url == SEARCH_URL_WITH))) {
        return false;
    }
    if (query->senders && !has_number(query->senders, query->sender_count, hit->sender)) {
        return false;
    }
    return !has_number(query->not_senders, query->not_sender_count, hit->sender);
}

static struct err take_row(void *arg, const struct search_row *row, bool *stop_out)
{
    struct finding *finding = arg;
    const struct search_query *query = finding->query;
    struct search_hit hit = {.id = search_row_int(row, 0),
                             .score = search_row_int(row, 1),
                             .ts_ms = search_row_int(row, 2),
                             .sender = (uint64_t)search_row_int(row, 3)};
    (void)stop_out;
    bool is_next =
        query->after.id == 0 || is_before(query->after, search_place_of(query->order, &hit));
    if (is_next && (!is_filtered(query) || takes(query, &hit, (uint32_t)search_row_int(row, 4)))) {
        add_hit(finding, &hit);
    }
    return OK;
}

/* --- the query --- */

static struct err express(struct search_db *db, struct ctx *ctx, struct slice term,
                          struct search_hits *hits, struct slice *expression_out)
{
    struct search_terms terms;
    struct search_phrase phrases[SEARCH_TERMS_MAX] = {0};
    search_words_parse(slice_sub(term, 0, SEARCH_QUERY_BYTES_MAX), &terms);
    hits->words = NULL;
    hits->word_count = 0;
    for (size_t i = 0; i < terms.count; i++) {
        struct slice *words = NULL;
        size_t count = 0;
        struct slice spread = search_words_spread(ctx->arena, terms.items[i].text);
        TRY(search_db_words(db, ctx->arena, spread, &words, &count));
        phrases[i] = (struct search_phrase){words, count,
                                            .is_exact = terms.items[i].is_phrase || count != 1 ||
                                                        words[0].len < PREFIX_LETTERS_MIN,
                                            .is_excluded = terms.items[i].is_excluded};
        if (!terms.items[i].is_excluded) {
            hits->words =
                arena_grow(ctx->arena, hits->words, hits->word_count * sizeof *hits->words,
                           (hits->word_count + count) * sizeof *hits->words);
            for (size_t j = 0; j < count; j++) {
                hits->words[hits->word_count++] = words[j];
            }
        }
    }
    *expression_out = search_words_expression(ctx->arena, phrases, terms.count);
    return OK;
}

/* What is looked up of each hit, which is what a common word costs: the rank takes its length, time
 * and filters take its row. */
static const char *select_for(const struct search_query *query)
{
    static const char by_time[] =
        "SELECT words.rowid, 0, docs.ts, docs.sender, docs.flags"
        " FROM words CROSS JOIN docs ON docs.id = words.rowid"
        " WHERE words MATCH ?1 AND words.rowid BETWEEN ?2 AND ?3 AND wanted(words.rowid)"
        " ORDER BY words.rowid DESC";
    static const char by_rank[] =
        "SELECT rowid, closeness(words), 0, 0, 0 FROM words"
        " WHERE words MATCH ?1 AND rowid BETWEEN ?2 AND ?3 AND wanted(rowid) ORDER BY rowid DESC";
    static const char by_rank_filtered[] =
        "SELECT words.rowid, closeness(words), docs.ts, docs.sender, docs.flags"
        " FROM words CROSS JOIN docs ON docs.id = words.rowid"
        " WHERE words MATCH ?1 AND words.rowid BETWEEN ?2 AND ?3 AND wanted(words.rowid)"
        " ORDER BY words.rowid DESC";
    if (query->order == SEARCH_BY_TIME) {
        return by_time;
    }
    return is_filtered(query) ? by_rank_filtered : by_rank;
}

static struct err read_span(struct search_db *db, struct finding *finding, struct slice expression,
                            size_t first, size_t last)
{
    const struct search_query *query = finding->query;
    struct search_sql sql = {.text = select_for(query)};
    int64_t from = 0;
    int64_t to = 0;
    if (!search_id_of(query->rooms[first].room, -(INT64_C(1) << 34), &from) ||
        !search_id_of(query->rooms[last].room, query->rooms[last].upto, &to)) {
        return OK;
    }
    sql.values[0] = search_text(expression);
    sql.values[1] = search_int(from);
    sql.values[2] = search_int(to);
    return search_db_run(db, &sql, take_row, finding);
}

static struct err read_rooms(struct search_db *db, struct finding *finding, struct slice expression)
{
    size_t count = finding->query->room_count;
    if (count > ROOMS_APART_MAX) {
        return read_span(db, finding, expression, 0, count - 1);
    }
    for (size_t i = 0; i < count; i++) {
        TRY(read_span(db, finding, expression, i, i));
    }
    return OK;
}

struct err search_find(struct search_db *db, struct ctx *ctx, const struct search_query *query,
                       struct search_hits *hits_out)
{
    struct slice expression;
    struct finding finding = {.query = query};
    *hits_out = (struct search_hits){0};
    TRY(express(db, ctx, query->term, hits_out, &expression));
    if (expression.len == 0 || query->room_count == 0) {
        return OK;
    }
    finding.heap = arena_array(ctx->arena, SEARCH_HITS_MAX, sizeof *finding.heap);
    search_db_limit(db, ctx->now, query->until_mono_ms);
    search_db_filter(db, is_in_rooms, (void *)(uintptr_t)query);
    struct err err = read_rooms(db, &finding, expression);
    search_db_filter(db, NULL, NULL);
    search_db_limit(db, ctx->now, 0);
    bool is_late = err.code == ERR_TIMEOUT;
    if (err.code != 0 && !is_late) {
        return err;
    }
    sort_heap(&finding);
    hits_out->expression = expression;
    hits_out->items = finding.heap;
    hits_out->count = finding.count;
    hits_out->has_more = finding.has_more || (is_late && finding.count > 0);
    return OK;
}

static struct err take_score(void *arg, const struct search_row *row, bool *stop_out)
{
    *stop_out = true;
    *(int64_t *)arg = search_row_int(row, 0);
    return OK;
}

struct err search_score(struct search_db *db, const struct search_hits *hits, int64_t id,
                        int64_t *score_out)
{
    static const char select[] =
        "SELECT closeness(words) FROM words WHERE words MATCH ?1 AND rowid = ?2";
    *score_out = 0;
    return search_db_run(
        db, &(struct search_sql){select, {search_text(hits->expression), search_int(id)}},
        take_score, score_out);
}
