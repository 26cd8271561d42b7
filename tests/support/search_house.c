#include "tests/support/search_house.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void must(struct err err)
{
    if (err.code != 0) {
        fprintf(stderr, "search_house: %s\n", err.text);
    }
    ASSERT(err.code == 0);
}

void search_house_start(struct search_house *h)
{
    struct hs *hs = &h->house.hs;
    must(search_new(hs, slice_of(h->folder), &hs->search));
    must(search_start(hs->search));
    search_settle(hs->search);
}

void search_house_stop(struct search_house *h)
{
    house_next_job(&h->house); /* gives readers back */
    search_stop(h->house.hs.search);
    search_free(&h->house.hs.search);
}

void search_house_crash(struct search_house *h)
{
    house_next_job(&h->house);
    search_abandon(h->house.hs.search);
    search_free(&h->house.hs.search);
}

void search_house_open(struct search_house *h, void (*configure)(struct conf *conf))
{
    house_open(&h->house);
    if (configure) {
        configure(&h->house.conf);
    }
    snprintf(h->folder, sizeof h->folder, "/tmp/myelin-search-XXXXXX");
    ASSERT(mkdtemp(h->folder) != NULL);
    snprintf(h->path, sizeof h->path, "%s/search.db", h->folder);
    search_house_start(h);
}

void search_house_close(struct search_house *h)
{
    search_house_stop(h);
    search_remove(slice_of(h->folder));
    char damaged[128];
    snprintf(damaged, sizeof damaged, "%s.damaged", h->path);
    unlink(damaged);
    rmdir(h->folder);
    house_close(&h->house);
}

void search_house_settle(struct search_house *h)
{
    house_settle(&h->house);
    search_settle(h->house.hs.search);
}

size_t search_house_count(struct search_house *h, const struct room *room, const char *term)
{
    struct search_db *db = NULL;
    struct search_hits hits;
    struct search_room where = {hs_room_info(room).number, SEARCH_UPTO_ALL};
    struct search_query query = {
        .term = slice_of(term), .keys = SEARCH_DOC_KEYS, .rooms = &where, .room_count = 1};
    struct ctx ctx = {.arena = arena_new(), .now = &h->house.now};
    search_house_settle(h);
    must(search_reader(h->house.hs.search, &ctx, &db));
    must(search_find(db, &ctx, &query, &hits));
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return hits.count;
}

const char *search_house_person(struct search_house *h, const struct guest *guest, const char *term)
{
    struct search_db *db = NULL;
    struct search_candidates found;
    const char *name = NULL;
    struct ctx ctx = {.arena = arena_new(), .now = &h->house.now};
    search_house_settle(h);
    must(search_reader(h->house.hs.search, &ctx, &db));
    must(search_people_find(db, &ctx, slice_of(term), 100, &found));
    for (size_t i = 0; i < found.count; i++) {
        const struct search_person *person = &found.items[i].person;
        if (person->user == guest->actor.user) {
            struct slice text = person->display_name.ptr ? person->display_name : LIT("");
            name = arena_cstr(h->house.ctx.arena, text);
        }
    }
    ctx_finish(&ctx);
    arena_free(&ctx.arena);
    return name;
}
