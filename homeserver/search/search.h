/* The search index of a server: a file that follows what happens (a consumer of the stream, and of
 * hs_news), walks through all history when it is new, and is asked by readers meanwhile.
 *
 * The file is derived: it is made anew when it is missing, damaged, of another version, or older
 * than the store believes. Spec: client-server, "Server Side Search", "User Directory". */
#pragma once
#include "homeserver/search/find.h"
#include "homeserver/search/people.h"
#include "homeserver/service/hs.h"

/* Opens the file search.db of the folder; before requests arrive. Sets hs->news. */
struct err search_new(struct hs *hs, struct slice folder, struct search **search_out) MUST_USE;
struct err search_start(struct search *search) MUST_USE;
/* Writes what is pending. Before the positions close. */
void search_stop(struct search *search);
/* Stops as a crash would (tests). */
void search_abandon(struct search *search);
void search_free(struct search **search);

/* Waits until what was published by now is in the index, so that whoever has seen an event finds
 * it; two seconds at most. */
void search_catch_up(struct search *search);
/* A reader's connection, for one job and until ctx_finish; it may wait for one. */
struct err search_reader(struct search *search, struct ctx *ctx,
                         struct search_db **db_out) MUST_USE;

/* Empties the index and walks through everything again, beside what is served. Any thread. */
void search_rebuild(struct search *search);

/* Removes the file of a folder that no server uses: the next start makes it anew. */
void search_remove(struct slice folder);

/* Size of the file of a folder; 0 = there is none. */
int64_t search_file_bytes(struct slice folder);

/* What the library holds in memory, for all files. */
uint64_t search_memory_bytes(void);

struct search_progress {
    bool is_walking; /* history is not in the index whole yet */
    uint64_t rooms, rooms_done;
    int64_t bytes; /* of the file */
};
void search_get_progress(struct search *search, struct search_progress *progress_out);
/* Blocks until the index has all that was published by now (tests). */
void search_settle(struct search *search);
