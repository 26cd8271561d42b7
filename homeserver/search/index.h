/* The index of texts, a file that derives from the rooms' logs and can be made anew at any time:
 * one row for each event that is looked for by words. One thread writes; what it hands over is seen
 * by readers and is on the disk after search_index_flush.
 *
 * A row's id is its room and its number there, so that the rows of a room are neighbours and a
 * search passes over those of other rooms. */
#pragma once
#include "homeserver/search/db.h"

struct search_index;

enum search_doc_flag {
    SEARCH_DOC_BODY = 1,
    SEARCH_DOC_NAME = 2,
    SEARCH_DOC_TOPIC = 4,
    SEARCH_DOC_KEYS = SEARCH_DOC_BODY | SEARCH_DOC_NAME | SEARCH_DOC_TOPIC,
    SEARCH_DOC_URL = 8, /* the content has a url */
};

struct search_doc {
    uint64_t room;
    int64_t number;
    int64_t ts_ms; /* origin_server_ts */
    uint64_t sender;
    uint32_t flags;
    int64_t edit; /* the event that the text comes from, if another one; 0 = none */
    struct slice text;
};

/* Of an event; false for numbers that no room reaches. */
bool search_id_of(uint64_t room, int64_t number, int64_t *id_out);
uint64_t search_id_room(int64_t id);
int64_t search_id_number(int64_t id);

/* What the file remembers beside the rows. */
enum search_mark {
    SEARCH_MARK_POSITION,   /* of the stream: what came up to here is in the file */
    SEARCH_MARK_SWEPT_ROOM, /* the walk through all rooms: the room at hand; -1 = done */
    SEARCH_MARK_SWEPT_TO,   /* and the number in it up to which it is done */
    SEARCH_MARK_TEXTS,      /* whether texts are taken in: the setting */
};

/* Opens or makes the file. One that is damaged is set aside (".damaged"), one of another version
 * removed; is_new_out tells that the index is empty. */
struct err search_index_open(struct slice path, struct log *log, struct search_index **index_out,
                             bool *is_new_out) MUST_USE;
/* Moves the file out of the way. */
void search_index_set_aside(struct slice path);
/* Removes it. */
void search_index_remove(struct slice path);
void search_index_close(struct search_index **index);
/* The writer's connection. */
struct search_db *search_index_db(struct search_index *index);

/* Replaces the row of the event. */
struct err search_index_put(struct search_index *index, const struct search_doc *doc) MUST_USE;
struct err search_index_drop(struct search_index *index, uint64_t room, int64_t number) MUST_USE;
/* Drops all rows of a room. */
struct err search_index_drop_room(struct search_index *index, uint64_t room) MUST_USE;
/* The event whose row got its text from this edit. */
struct err search_index_edited(struct search_index *index, uint64_t room, int64_t edit,
                               int64_t *number_out, bool *found_out) MUST_USE;
/* The first room above this one that has rows. */
struct err search_index_next_room(struct search_index *index, uint64_t after, uint64_t *room_out,
                                  bool *found_out) MUST_USE;
struct err search_index_get_mark(struct search_index *index, enum search_mark mark,
                                 int64_t *value_out) MUST_USE;
struct err search_index_set_mark(struct search_index *index, enum search_mark mark,
                                 int64_t value) MUST_USE;
/* Begins the transaction that the next flush ends, for writers of other tables. */
struct err search_index_begin(struct search_index *index) MUST_USE;
/* Whether there is something to flush. */
bool search_index_is_dirty(const struct search_index *index);
/* Commits. After an error nothing since the last flush is in the file: the caller begins the walk
 * through the rooms anew. */
struct err search_index_flush(struct search_index *index) MUST_USE;
/* Empties the index. */
struct err search_index_wipe(struct search_index *index) MUST_USE;
