/* Any text is a query and a text: it is cut into words, and the expression made of it runs. */
#include "homeserver/search/find.h"
#include "homeserver/search/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char name[] = "/tmp/myelin-search-fuzz.db";
    static struct search_index *index;
    struct slice text = {(const char *)data, size};
    struct search_room room = {1, SEARCH_UPTO_ALL};
    struct search_query query = {
        .term = text, .keys = SEARCH_DOC_KEYS, .rooms = &room, .room_count = 1};
    struct search_hits hits;
    struct now now = now_system();
    struct ctx ctx = {.arena = arena_new(), .now = &now};
    bool is_new = false;
    if (!index) {
        search_index_remove(slice_of(name));
        ASSERT(search_index_open(slice_of(name), NULL, &index, &is_new).code == 0);
    }
    struct search_doc doc = {.room = 1, .number = 1, .flags = SEARCH_DOC_BODY};
    doc.text = search_words_spread(ctx.arena, text);
    ASSERT(search_index_put(index, &doc).code == 0);
    ASSERT(search_index_flush(index).code == 0);
    ASSERT(search_find(search_index_db(index), &ctx, &query, &hits).code == 0);
    ASSERT(hits.count <= 1);
    arena_free(&ctx.arena);
    return 0;
}
