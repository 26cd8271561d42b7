/* When each delayed event is due, and who is busy with it. Times are monotonic, so that a change of
 * the wall clock neither hurries nor delays anything. Entries of one room are sent one at a time
 * and in order; each is in one hand at a time: the queue's, while it is sent, or a request's that
 * took it. One mutex, a leaf. */
#pragma once
#include "homeserver/base/log.h"
#include "homeserver/base/now.h"
#include "homeserver/base/workers.h"

struct hs_delayed;

struct delayed_queue_config {
    const struct now *now;
    struct log *log;
    /* Sends one, on the pool of delayed_queue_start (or in delayed_queue_run). 0 when it is done
     * with; else it is due again after this time. */
    int64_t (*due)(void *arg, struct slice delay_id);
    void *arg;
};

struct hs_delayed *delayed_queue_new(const struct delayed_queue_config *config);
void delayed_queue_free(struct hs_delayed **queue);
void delayed_queue_start(struct hs_delayed *queue, struct workers *workers);
/* The thread has ended and no sending begins any more when this returns. */
void delayed_queue_stop(struct hs_delayed *queue);
/* Without a thread: sends what is due now, in the caller. */
void delayed_queue_run(struct hs_delayed *queue);

/* Due after this time (0 and less: at once). An entry that is there already stays as it is. */
void delayed_queue_add(struct hs_delayed *queue, struct slice delay_id, struct slice room_id,
                       int64_t after_ms);
/* Takes it out of the queue's hand; waits while it is in another's. Does nothing when there is no
 * such entry, as do the three below. */
void delayed_queue_take(struct hs_delayed *queue, struct slice delay_id);
void delayed_queue_give_back(struct hs_delayed *queue, struct slice delay_id);
void delayed_queue_put_off(struct hs_delayed *queue, struct slice delay_id, int64_t after_ms);
void delayed_queue_end(struct hs_delayed *queue, struct slice delay_id);
