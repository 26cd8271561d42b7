/* Which member events a device has been sent lately, so that lazy loading need not repeat them. A
 * member counts as known to a client only from the position on with which it was sent: a client
 * that repeats an older `since` gets it again. Bounded; forgetting only means sending more. Spec:
 * client-server, "Lazy-loading room members". */
#pragma once
#include "homeserver/base/slice.h"

struct sync_lazy;

struct sync_lazy *sync_lazy_new(size_t entries_max);
void sync_lazy_free(struct sync_lazy **lazy);

struct sync_lazy_key {
    uint64_t user;
    struct slice device_id;
    uint64_t room;
    int64_t member_event; /* number */
};
/* Whether a client that is at `since` has this member event. */
bool sync_lazy_has(struct sync_lazy *lazy, const struct sync_lazy_key *key, uint64_t since);
/* The member event goes out in the answer that ends at `upto`. */
void sync_lazy_sent(struct sync_lazy *lazy, const struct sync_lazy_key *key, uint64_t upto);
