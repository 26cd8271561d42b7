/* A house with a search index, which is a file in a folder of its own. */
#pragma once
#include "homeserver/search/search.h"
#include "tests/support/house.h"

struct search_house {
    struct house house;
    char folder[64];
    char path[96];
};

/* With settings changed by `configure` (may be NULL) before anything starts. */
void search_house_open(struct search_house *h, void (*configure)(struct conf *conf));
void search_house_close(struct search_house *h);
/* The index is stopped and started again, as the server's end and next start would. */
void search_house_stop(struct search_house *h);
void search_house_crash(struct search_house *h);
void search_house_start(struct search_house *h);
/* Everything that happened is in the index. */
void search_house_settle(struct search_house *h);

/* How many texts of the room fit the term. */
size_t search_house_count(struct search_house *h, const struct room *room, const char *term);
/* Display name under which a user is found by this term; "" = found without one; NULL = not
 * found. */
const char *search_house_person(struct search_house *h, const struct guest *guest,
                                const char *term);
