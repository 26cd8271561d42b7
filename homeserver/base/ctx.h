/* What one job carries: its memory, its clock, its log fields, and the newest write it made. */
#pragma once
#include "homeserver/base/arena.h"
#include "homeserver/base/log.h"
#include "homeserver/base/now.h"

struct ctx {
    struct arena *arena; /* results of every call that takes this ctx live here */
    const struct now *now;
    struct log *log;
    struct slice req;        /* request id for log lines; empty outside requests */
    uint64_t write_ticket;   /* newest store write of this job (store.h); 0 = none. The reply leaves
                                only when it is durable. */
    int64_t deadline_mono_ms; /* 0 = none */
};
