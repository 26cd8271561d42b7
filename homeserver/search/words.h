/* Texts and queries for a full text index, as pure functions. */
#pragma once
#include "homeserver/base/buf.h"

enum { SEARCH_TEXT_BYTES_MAX = 32768, SEARCH_QUERY_BYTES_MAX = 1024, SEARCH_TERMS_MAX = 32 };

/* The text as it is indexed, in the arena: characters of scripts that put no spaces between words,
 * and pictures, stand alone; what is no UTF-8 or beyond SEARCH_TEXT_BYTES_MAX is left out. */
struct slice search_words_spread(struct arena *arena, struct slice text);
/* Markup taken off a formatted text. */
struct slice search_words_of_html(struct arena *arena, struct slice html);

struct search_term {
    struct slice text; /* borrowed from the query */
    bool is_phrase;    /* stood in quotes */
    bool is_excluded;  /* had a minus before it */
};
struct search_terms {
    struct search_term items[SEARCH_TERMS_MAX];
    size_t count;
};
/* Cuts a query at white space and quotes; every text is a query. Terms beyond the maximum are left
 * out. */
void search_words_parse(struct slice query, struct search_terms *terms_out);

/* One term for the index: its words in order (of search_db_words). */
struct search_phrase {
    const struct slice *words;
    size_t count;
    bool is_exact; /* no longer words with this beginning */
    bool is_excluded;
};
/* The expression that finds what has all phrases and none of those excluded, in the arena; empty
 * when nothing is asked for. Nothing in a word has a meaning of its own. */
struct slice search_words_expression(struct arena *arena, const struct search_phrase *phrases,
                                     size_t count);
