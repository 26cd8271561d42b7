/* Connections of sliding sync: what each has been told, in memory, bounded. One is known by its
 * user, device and conn_id. It holds the state that the client is known to have (`had`) and the
 * answers given since. One of those becomes it when the client comes back with its pos.
 *
 * One request at a time works on a connection: it is taken and put back. One mutex protects the
 * table; it is held for lookups only (rank: leaf). Spec: MSC4186, "Connections". */
#pragma once
#include "homeserver/base/ctx.h"

enum {
    SLIDING_CONNS_PER_DEVICE_MAX = 8,
    SLIDING_CONNS_BYTES_MAX = 48 << 20,
    SLIDING_CONFIGS_MAX = 200, /* different required_state of one connection's rooms */
    SLIDING_GIVEN_MAX = 6,     /* answers that may be on their way */
    SLIDING_ALL_EVENTS = UINT16_MAX,
};

/* What was told of a room. Positions say up to where; 0 = not yet. */
struct sliding_sent {
    uint64_t room;
    uint64_t pos;
    uint64_t account_pos, receipts_pos, typing_pos, profiles_pos;
    uint32_t notify, highlight;
    uint16_t config; /* of the connection's, by index; a room that is left keeps its last one */
    /* The client has the newest events, as many as this: SLIDING_ALL_EVENTS = all there are. */
    uint16_t timeline_limit;
    bool is_dm, is_joined;
    bool forget; /* in a change: the room is told of no more */
};

/* All that an answer says or settles but for rooms. */
struct sliding_mark {
    uint64_t seq; /* 0 = before the first answer */
    uint64_t pos; /* stream position up to which was looked */
    uint64_t fingerprint;
    uint64_t list_version;
    uint64_t account_pos; /* of global account data; 0 = none was told */
    uint64_t fields_hash; /* which fields of profiles were told; 0 = none */
    char *lists_owned;    /* the member `lists` of the answer */
    size_t lists_len;
};

/* An answer that the client may have. */
struct sliding_given {
    struct sliding_mark mark;           /* seq 0 = none */
    struct sliding_sent *changes_owned; /* by room number */
    size_t change_count;
};

struct sliding_conn {
    uint64_t epoch;  /* never the same again, also not after a restart */
    uint64_t lazy;   /* names its sent members in the cache of lazy.h */
    uint64_t serial; /* counts requests: one that is not the newest has nothing to say */
    struct sliding_mark had;
    /* The newest answers since, newest first. Which of them the client has is not known: it may
     * have taken a request back and sent another, or one that waited ran out of time while it was
     * woken.
     */
    struct sliding_given given[SLIDING_GIVEN_MAX];
    uint64_t seq;                    /* last one given out */
    struct sliding_sent *sent_owned; /* by room number */
    size_t sent_count, sent_cap;
    struct slice *configs_owned; /* texts, each with memory of its own */
    size_t config_count;
    /* of sliding_conns.c */
    char *key_owned;
    size_t key_len, device_len; /* the key begins with what names the device */
    size_t bytes;
    struct sliding_conn *newer, *older;
    bool taken;
};

struct sliding_conns;

struct sliding_conns *sync_sliding_conns_new(uint64_t first_epoch);
void sync_sliding_conns_free(struct sliding_conns **conns);

struct sliding_key {
    uint64_t user;
    struct slice device_id, conn_id;
};
/* Waits until nobody else has it; on a loop ERR_WAITS instead. NULL: there is none. */
struct err sync_sliding_take(struct sliding_conns *conns, const struct ctx *ctx,
                             const struct sliding_key *key,
                             struct sliding_conn **conn_out) MUST_USE;
/* A new one, in place of the one that was there. */
struct sliding_conn *sync_sliding_begin(struct sliding_conns *conns, const struct sliding_key *key);
void sync_sliding_put_back(struct sliding_conns *conns, struct sliding_conn *conn);

/* --- with a connection taken --- */
/* The client has the answer `seq`: it is what was told from now on. False: never given out, or
 * too long ago. */
bool sync_sliding_acknowledge(struct sliding_conn *conn, uint64_t seq);
const struct sliding_sent *sync_sliding_sent(const struct sliding_conn *conn, uint64_t room);
/* Index of a text among the configs, added when new. False: there are too many. */
bool sync_sliding_config(struct sliding_conn *conn, struct slice text, uint16_t *index_out);
/* The answer: `mark` but for seq, which is given out, and lists; changes in any order, copied. */
uint64_t sync_sliding_answer(struct sliding_conn *conn, const struct sliding_mark *mark,
                             struct slice lists, const struct sliding_sent *changes, size_t count);

/* --- pos --- */
/* "s<position>_<position>_<epoch>_<seq>_<owner>": a sync token (token.h) with three more fields. */
struct sliding_pos {
    uint64_t pos, epoch, seq;
};
struct slice sync_sliding_pos_encode(struct arena *arena, const struct sliding_key *key,
                                     struct sliding_pos pos);
/* M_UNKNOWN_POS when it is none of this user, device and connection. */
struct err sync_sliding_pos_parse(struct slice text, const struct sliding_key *key,
                                  struct sliding_pos *pos_out) MUST_USE;
