/* Whether everything that derives from the logs is what a rebuild from them gives, and making it
 * so. One pass computes what each derived row should be; a check reports what differs, a rebuild
 * (rebuild.h) also writes it. Nothing else may use the store meanwhile. */
#pragma once
#include "homeserver/service/hs.h"

/* One entry for each row of check.def. */
enum check_index {
#define CHECK(NAME, name, what) CHECK_##NAME,
#include "homeserver/service/check.def"
#undef CHECK
    CHECK_COUNT
};

/* Something that is not as it should be. Slices live during the call that reports it. */
struct check_difference {
    enum check_index index;
    struct slice room_id;  /* empty: not of one room */
    struct slice event_id; /* empty: not of one event */
    int64_t number;        /* of the event in its room */
    struct slice key;      /* of the row: bytes */
    const char *what;      /* "is missing", "differs", ... */
    bool healed;
};

struct check_options {
    bool deep; /* also the events themselves: canonical form, hashes, ids, own signatures */
    /* Called for each difference; may be NULL. */
    void (*report)(void *arg, const struct check_difference *difference);
    /* Called after each room; may be NULL. */
    void (*progress)(void *arg, uint64_t rooms_done, uint64_t rooms);
    void *arg;
};

struct check_tally {
    uint64_t rows;        /* compared */
    uint64_t differences; /* found */
    uint64_t healed;
};

struct check_result {
    struct check_tally of[CHECK_COUNT];
    uint64_t rooms, events, users;
    uint64_t differences, healed; /* altogether */
};

/* The short name of an index, and what it is. */
const char *check_index_name(enum check_index index);
const char *check_index_text(enum check_index index);

/* Checks everything; writes nothing, so a store that is open for reading only will do. Errors:
 * ERR_IO when the store cannot be read; differences are no errors. */
struct err hs_check(struct hs *hs, struct ctx *ctx, const struct check_options *options,
                    struct check_result *result_out) MUST_USE;
