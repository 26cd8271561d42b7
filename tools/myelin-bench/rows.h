/* The rows of the table: each sets its stage on the server under test, measures, and reports. */
#pragma once
#include "tools/myelin-bench/report.h"
#include "tools/myelin-bench/target.h"

enum row_size {
    ROW_USUAL, /* what a comparison can wait for */
    ROW_FULL,  /* with the large rooms and counts */
};

struct row_options {
    double seconds;     /* of each timed part */
    size_t clients;     /* that send at once */
    double rate;        /* messages a second in the delivery rows */
    double peer_rate;   /* the same for the server compared with */
    size_t connections; /* idle ones; 0 = as many as descriptors allow */
    size_t sync_users, sync_rooms, sync_members, sync_events;
    enum row_size size;
    size_t members;      /* of the room of fed-join-large; 0 = by the server */
    size_t destinations; /* of fed-destinations; 0 = by the server */
    /* PEM files and first port of the servers that fed-destinations plays; empty = none */
    struct slice made_up_certificate, made_up_key;
    uint16_t made_up_port;
    const char *scratch; /* folder for the rows that use the store directly */
};

struct row_run {
    struct target *target; /* NULL for the rows that need no server */
    struct report *report;
    const struct row_options *options;
};

typedef struct err (*row_fn)(struct row_run *run);

struct err row_fresh(struct row_run *run);           /* start and memory of a fresh server */
struct err row_sends_own(struct row_run *run);       /* durable sends, a room each */
struct err row_sends_shared(struct row_run *run);    /* durable sends, four rooms */
struct err row_delivery_poll(struct row_run *run);   /* to the other client's long poll */
struct err row_delivery_stream(struct row_run *run); /* to the other client's stream */
struct err row_fanout(struct row_run *run);          /* one message into a room of parked clients */
struct err row_idle_poll(struct row_run *run);       /* memory of parked polls */
struct err row_idle_stream(struct row_run *run);     /* memory of idle streams */
struct err row_initial_sync(struct row_run *run);    /* first syncs at once */
struct err row_sync_idle(struct row_run *run);       /* sync with nothing new */
struct err row_sliding(struct row_run *run);         /* sliding sync of 2,000 rooms */
struct err row_costs(struct row_run *run);           /* CPU of registration, creation, join */
struct err row_loaded(struct row_run *run);       /* memory after the load; start with that data */
struct err row_million(struct row_run *run);      /* start with 1,000,000 events */
struct err row_fed_delivery(struct row_run *run); /* send on A to sync on B */
struct err row_fed_burst(struct row_run *run);    /* events per second between servers */
struct err row_fed_join(struct row_run *run);     /* joining a small room elsewhere */
struct err row_fed_join_large(struct row_run *run);   /* joining a room of 50,000 members */
struct err row_fed_destinations(struct row_run *run); /* one message to 1,000 servers */
struct err row_purge(struct row_run *run);            /* purge of a big room */
struct err row_state_size(struct row_run *run);       /* state storage beside event JSON */
struct err row_resolve(struct row_run *run);          /* state resolution in a big room */
