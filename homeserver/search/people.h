/* The user directory's part of the index: whom somebody could look for, under their names; and the
 * rooms whose members everybody may find. Who may find whom is judged when they are looked for. */
#pragma once
#include "homeserver/search/index.h"

struct search_person {
    uint64_t user;
    struct slice user_id;
    struct slice display_name, avatar_url; /* ptr NULL = not set */
    /* The room whose members know these names; 0 = everybody may know them. */
    uint64_t told_in;
};

/* Replaces what is known. What only the members of a room know does not take the place of what
 * everybody may know. */
struct err search_people_put(struct search_index *index, struct ctx *ctx,
                             const struct search_person *person) MUST_USE;
struct err search_people_drop(struct search_index *index, struct ctx *ctx, uint64_t user) MUST_USE;
struct err search_rooms_set_open(struct search_index *index, uint64_t room, bool is_open) MUST_USE;

struct search_candidate {
    struct search_person person;
    bool by_id; /* the term fits the user id alone */
};
struct search_candidates {
    struct search_candidate *items;
    size_t count;
    bool has_more;
};
/* People with all words of the term at the beginning of words of their id or name; at most `max`,
 * and room for one more. */
struct err search_people_find(struct search_db *db, struct ctx *ctx, struct slice term, size_t max,
                              struct search_candidates *candidates_out) MUST_USE;
/* One user, if they are known. */
struct err search_people_get(struct search_db *db, struct ctx *ctx, uint64_t user,
                             struct search_person *person_out, bool *found_out) MUST_USE;
/* Rooms whose members everybody may find, ascending. */
struct err search_rooms_open(struct search_db *db, struct ctx *ctx, uint64_t **rooms_out,
                             size_t *count_out) MUST_USE;
