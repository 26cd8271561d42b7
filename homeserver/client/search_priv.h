/* A search under way: what was asked for, what was found, and writing it. */
#pragma once
#include "homeserver/client/rooms_priv.h"
#include "homeserver/search/search.h"
#include "homeserver/sync/filter.h"

enum { SEARCH_PAGE_DEFAULT = 10, SEARCH_PAGE_MAX = 100, SEARCH_CONTEXT_MAX = 50 };

/* Where a page begins: what next_batch says. */
struct search_from {
    struct search_place place;
    int64_t seen; /* results before it */
    char group;   /* 'r' only room `number`, 's' only sender `number`, 'a' all */
    uint64_t number;
};

struct search_options {
    struct slice term;
    enum search_order order;
    uint32_t keys;
    struct sync_event_filter filter;
    size_t limit;
    bool wants_context, wants_profiles, wants_state;
    size_t before, after; /* events of context */
    bool by_room, by_sender;
    struct search_from from;
};

/* A room with hits. */
struct search_visit {
    uint64_t number;
    struct room *room; /* NULL: nothing of it is shown */
    struct view_memo memo;
    bool is_shown; /* has results on this page */
};

struct search_result {
    const struct search_hit *hit;
    struct search_visit *visit;
    struct stored_event event;
};

/* The results of a group on this page. */
struct search_group {
    uint64_t number; /* of the room or sender */
    struct slice name;
    bool has_more;
};

struct search_groups {
    struct search_group *items;
    size_t count;
};

struct search_page {
    struct cs_room_call call;
    struct search_options options;
    struct search_hits hits;
    struct search_db *db;
    struct search_visit **visits;
    size_t visit_count, visit_cap;
    struct search_result *results;
    size_t result_count;
    int64_t visible_count; /* the page's and those after it */
    struct search_groups rooms, senders;
};

/* M_INVALID_PARAM, M_BAD_JSON, M_MISSING_PARAM. */
struct err cs_search_parse(struct search_page *page) MUST_USE;
struct slice cs_search_token(struct search_page *page, struct search_from from);
/* {"count": ..., "results": ...} */
struct err cs_search_write(struct search_page *page) MUST_USE;
