/* The commit thread: makes written tickets durable, many with one flush of the log. Private to
 * store/. Lock rank: leaf; no callback runs under it. */
#pragma once
#include "store/kv.h"

struct commit;

struct commit *commit_start(struct kv *kv, struct log *log);
/* Flushes what is written, answers who waits, joins the thread. */
void commit_stop(struct commit **commit);
/* Call after a write has returned: its ticket. */
uint64_t commit_next_ticket(struct commit *commit);
/* ERR_IO once a flush has failed: nothing more is written. */
struct err commit_check(struct commit *commit) MUST_USE;
void commit_when(struct commit *commit, uint64_t ticket, store_durable_fn fn, void *arg);
void commit_listen(struct commit *commit, store_durable_fn fn, void *arg);
uint64_t commit_durable(struct commit *commit);
uint64_t commit_newest(struct commit *commit);
uint64_t commit_flush_count(struct commit *commit);
