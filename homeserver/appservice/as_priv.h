/* Inside of what is sent to application services. `lock` guards the queues; what the tail's thread
 * and the sending jobs read from the store or write there, they do without it. */
#pragma once
#include "homeserver/appservice/appservice.h"
#include "homeserver/appservice/ask.h"
#include "homeserver/appservice/interest.h"
#include "homeserver/appservice/rows.h"
#include "homeserver/base/stats.h"
#include "homeserver/service/tail.h"

#include <pthread.h>

/* Something that is not durable; a newer one with the same key takes its place. */
struct as_passing {
    struct as_passing *next;
    struct slice key, json;
    char bytes[];
};

enum as_queue_state { AS_IDLE, AS_SENDING, AS_WAITING };

/* What goes to one service. Queues live until the end, as jobs may run; one whose service is not in
 * the table any more has service NULL. */
struct as_queue {
    struct as *as;
    struct slice id_owned;
    const struct appservice *service;
    enum as_queue_state state;
    bool has_work; /* rows or ephemeral data may wait */
    bool is_forced;
    uint32_t failures;
    int64_t next_try_ms; /* wall */
    int64_t seen_mono_ms;
    struct as_passing *first, *last;
    size_t passing_count;
};

struct as {
    struct hs *hs;
    struct as_port port;
    struct hs_tail *tail;
    struct as_interest *interest;         /* the tail's */
    const struct appservice_table *table; /* the tail's: what `by_index` goes with */
    struct as_queue *by_index[APPSERVICES_MAX];

    pthread_mutex_t lock; /* all below, and the queues */
    pthread_cond_t calm;
    pthread_cond_t stops; /* is_stopping was set; of the monotonic clock */
    struct as_queue *queues[APPSERVICES_MAX * 4];
    size_t queue_count;
    size_t sending;
    bool is_stopping;
    uint64_t safe_pos; /* every event up to here has its rows: what stands above waits */
    uint64_t lost_upto;
};

/* --- queue.c --- */
/* Makes a queue for each service of the table. Lock held. */
void as_queues_match(struct as *as, const struct appservice_table *table);
struct as_queue *as_queue_find(struct as *as, struct slice id);
/* Something waits. Takes the lock. */
void as_queue_wake(struct as_queue *queue);
/* Gives idle and due queues to the waiting pool; when the next one is due (wall ms; 0 = none). */
int64_t as_pump(struct as *as);
/* Lock held. */
void as_pass(struct as_queue *queue, struct slice key, struct slice json);
void as_passing_drop(struct as_queue *queue);
/* Takes what passes, as JSON values with commas between. Takes the lock. */
struct slice as_passing_take(struct as_queue *queue, struct ctx *ctx, size_t *count_out);

/* --- names.c --- */
/* Registers the questions that services ask through hs_appservice_port. */
void as_names_hook(struct as *as);

/* --- tail_side.c --- */
extern const struct hs_tail_port as_tail_port;

/* --- compose.c --- */
/* Makes the next transaction of the rows that wait and of what passes, and the update that takes
 * them out; found false: nothing is to be sent (the update may be there all the same). `more`:
 * something was left for another transaction. */
struct as_making {
    struct as *as;
    const struct appservice *service;
    struct slice passing; /* JSON values with commas between */
    size_t passing_count;
};
struct as_made {
    struct as_txn txn;
    struct store_update *update;
    bool found, more;
};
struct err as_compose(const struct as_making *making, struct ctx *ctx,
                      struct as_made *made_out) MUST_USE;

/* --- send.c --- */
void as_send_job(void *queue);
