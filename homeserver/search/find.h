/* Looking for texts: the events whose words fit a query, in the order that was asked for. Who may
 * see them is the caller's to judge. */
#pragma once
#include "homeserver/search/index.h"

/* A room to look in, and its events up to which. */
struct search_room {
    uint64_t room;
    int64_t upto;
};

#define SEARCH_UPTO_ALL ((INT64_C(1) << 35) - 1)

struct search_hit {
    int64_t id;      /* search_id_room, search_id_number */
    int64_t score;   /* in thousandths; higher is closer. By rank alone (see search_score) */
    int64_t ts_ms;   /* by time alone */
    uint64_t sender; /* 0 = was not looked up */
};
/* From where on: what comes after this one; {0} = from the first. */
struct search_place {
    int64_t id, key; /* key: score or time, as the order has it */
};

enum search_order { SEARCH_BY_RANK, SEARCH_BY_TIME };

struct search_query {
    struct slice term;
    enum search_order order;
    struct search_room *rooms; /* sorted by number */
    size_t room_count;
    uint32_t keys; /* of SEARCH_DOC_KEYS */
    enum { SEARCH_URL_ANY, SEARCH_URL_WITH, SEARCH_URL_WITHOUT } url;
    const uint64_t *senders, *not_senders; /* senders NULL = all */
    size_t sender_count, not_sender_count;
    struct search_place after;
    int64_t until_mono_ms; /* gives what was found by then */
};

enum { SEARCH_HITS_MAX = 1000 };
struct search_hits {
    struct search_hit *items; /* best first; at most SEARCH_HITS_MAX */
    size_t count;
    bool has_more;       /* others come after them, or time ran out */
    struct slice *words; /* of the query, folded: to be highlighted */
    size_t word_count;
    struct slice expression;
};
struct err search_find(struct search_db *db, struct ctx *ctx, const struct search_query *query,
                       struct search_hits *hits_out) MUST_USE;
/* The score of a hit, whatever the order. */
struct err search_score(struct search_db *db, const struct search_hits *hits, int64_t id,
                        int64_t *score_out) MUST_USE;
/* The place of a hit in an order. */
struct search_place search_place_of(enum search_order order, const struct search_hit *hit);
