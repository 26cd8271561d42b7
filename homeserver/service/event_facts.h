/* What counting wants to know of an event, the same for all users: found once, kept with the row
 * (row_cache.h). */
#pragma once
#include "homeserver/room/push_eval.h"
#include "homeserver/service/rooms.h"

enum event_place {
    EVENT_IN_MAIN,   /* the main timeline */
    EVENT_IN_THREAD, /* names its thread itself */
    EVENT_HANGS,     /* where the event is that it relates to */
};

/* In one block of memory. */
struct event_facts {
    struct push_outlook outlook;
    enum event_place place;
    struct slice thread;   /* root; with EVENT_IN_THREAD */
    const uint16_t *words; /* hashes of the words of the body; with outlook.unless_named */
    size_t word_count;
};

/* Needs a content tree. `everybody`: push_rules_of_everybody. To be freed with mem_free. */
struct event_facts *event_facts_new(const struct push_rules *everybody, const struct event *event,
                                    size_t *bytes_out);

/* The first word of a name, to look for in bodies. */
struct facts_word {
    bool is_known; /* false: any body may hold the name */
    uint16_t hash;
};
struct facts_word event_facts_word_of(struct slice name);
/* False when the name is certainly not in the body as a word of its own. */
bool event_facts_may_name(const struct event_facts *facts, struct facts_word word);
