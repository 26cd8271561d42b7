/* What is kept in memory of a user's preferences. */
#pragma once
#include "homeserver/base/map.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/user_rows.h"

#include <pthread.h>

enum { PREFS_USERS_MAX = 20000, COUNTS_MAX = 100000 };

/* Compiled rules with the references to them; freed when the last is gone. */
struct rules_entry {
    struct arena *arena_owned; /* NULL: the rules are those of everybody */
    const struct push_rules *rules;
    size_t refs; /* under hs_prefs.lock */
};

struct prefs_user {
    bool has_ignored;
    struct map *ignored_owned; /* user id -> 1; NULL = nobody */
    struct rules_entry *rules;
    uint64_t ignored_version; /* another one whenever the ignored users change */
};

struct hs_prefs {
    struct hs *hs;
    pthread_mutex_t lock; /* rank 40: everything below */
    struct map *users;    /* number -> struct prefs_user * */
    uint64_t version;     /* grows with each change of rules or ignored users */
    struct map *counts;   /* user and room -> struct count_cache * (counts.c) */
    size_t unread_kept;   /* events in all of them */
    struct map *counting; /* keys of those that a job has taken out */
    pthread_cond_t back;  /* one is no longer out */
};

/* Forgets what account data of this type said. */
void prefs_forget(struct hs *hs, uint64_t user, struct slice type);
/* False when the user certainly ignores nobody. */
struct err prefs_ignores_anybody(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 bool *any_out) MUST_USE;
/* The thread an event counts for: its root (empty = main), and the event that it hangs on in the
 * end, following relations: itself when it has none. */
struct thread_place {
    struct slice root, anchor;
};
struct err counts_thread_of(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct stored_event *event,
                            struct thread_place *place_out) MUST_USE;
/* Counting depends on it. */
uint64_t prefs_ignored_version(struct hs *hs, uint64_t user);
void counts_free_all(struct hs_prefs *prefs);
