/* Which profile fields changed lately, by stream position: in memory, since the server started, a
 * bounded number. Who looks back further reads the profiles themselves. The change that is
 * published (CHANGE_PROFILE) wakes those who share a room. Thread safe; the lock is a leaf. */
#pragma once
#include "homeserver/service/hs.h"

struct profile_log;

/* Complete for what comes after `since`. */
struct profile_log *profile_log_new(uint64_t since);
void profile_log_free(struct profile_log **log);
void profile_log_add(struct profile_log *log, uint64_t pos, uint64_t user, struct slice field);

struct profile_change {
    uint64_t pos;
    uint64_t user;
    struct slice field;
};
struct profile_changes {
    struct profile_change *items; /* as they came, in ctx's arena */
    size_t count;
    bool complete; /* none after `since` was forgotten */
};
/* Changes after `since`, up to `upto`. */
struct profile_changes hs_profile_changes(struct hs *hs, struct ctx *ctx, uint64_t since,
                                          uint64_t upto);
/* Notes and publishes what the job has written. */
void hs_profile_publish(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice field);
