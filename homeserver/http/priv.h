/* What the files of this folder share: the server, its loops, and connections. */
#pragma once
#include "homeserver/base/loop.h"
#include "homeserver/http/router.h"
#include "homeserver/http/server.h"
#include "homeserver/http/tls.h"
#include "homeserver/http/wheel.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

struct MHD_Connection;
struct MHD_Daemon;
struct http_front;
struct http_loop;
struct http_tls_pipe;
struct acceptor;

enum {
    HTTP_POOL_BYTES = 8192,         /* MHD's memory per connection */
    HTTP_ADDRESS_BYTES = 46,        /* textual IPv6 address and NUL */
    HTTP_DRAIN_BYTES_MAX = 1 << 20, /* body of a refused request that is read before answering */
    HTTP_PIECE_BYTES = 1 << 16,     /* of a streamed body, handed to the hooks at once */
    HTTP_REPLY_BYTES_MAX = 1 << 29,
    HTTP_BYTES_PER_MS_MIN = 4, /* slower bodies and readers are cut off */
};

enum http_phase {
    HTTP_PHASE_IDLE,    /* between requests */
    HTTP_PHASE_HEAD,    /* request line seen */
    HTTP_PHASE_BODY,    /* headers checked, body arriving */
    HTTP_PHASE_WORK,    /* suspended: a job runs */
    HTTP_PHASE_PARKED,  /* suspended: waits for http_unpark */
    HTTP_PHASE_READY,   /* the reply waits to be queued */
    HTTP_PHASE_SENDING, /* the reply belongs to MHD */
};

/* What one request needs while a job works on it; lives in its arena. */
struct http_job {
    struct http_request request;
    struct http_reply reply;
    struct ctx ctx;
    struct buf body;                                        /* JSON body */
    struct slice upgrade, connection_header, forwarded_for; /* headers of internal use */
    struct slice ws_key, ws_version, ws_protocol;
    int64_t content_length;
    unsigned header_count, host_count, length_count, encoding_count;
    bool bad_header, expects_continue, http_1_0, unknown_method;
    struct slice transfer_encoding;
};

/* The long-poll part of a connection. */
struct http_parked {
    _Atomic bool taken; /* somebody has won the right to answer */
    struct http_connection *connection;
    void (*expired)(void *arg);
    void *expired_arg;
    http_resume_fn resume; /* set by the winner */
    void *resume_arg;
    bool is_at_hand; /* resume runs on the loop */
    int64_t timeout_ms;
    uint64_t write_ticket; /* of the job that parked */
    struct loop_task unpark_task, expired_task;
    /* of the loop alone */
    bool unparked;       /* the winner has reported */
    bool expiring;       /* `expired` is queued or running: the answer waits for its return */
    bool expiry_started; /* it runs once */
};

/* What a connection is counted as. */
struct http_place {
    bool by_address; /* not for trusted proxies */
    uint8_t weight;  /* descriptors */
    unsigned char key[8];
};

/* One TCP connection and the request on it. All fields belong to the loop, except that job and
 * what it holds belong to the worker while phase is WORK. */
struct http_connection {
    struct http_loop *home;
    struct MHD_Connection *mhd;
    struct http_connection *next, *prev; /* of all connections of the loop */
    struct loop_task task;
    struct http_wheel_entry deadline;
    struct arena *arena;
    struct http_job *job; /* in the arena; NULL between requests and while parked */
    struct http_parked parked;
    struct http_ws *ws;
    const struct http_route *route;
    int64_t started_us;
    char req_text[20]; /* request id */
    const char *uri;   /* MHD's bytes, to tell whether a NUL cuts them short */
    size_t uri_len;
    char *piece; /* bytes of a streamed body that no hook has seen; HTTP_PIECE_BYTES */
    size_t piece_len;
    int64_t body_bytes;
    struct http_tls_pipe *pipe; /* that decrypts, or NULL; tls.c clears it when the pipe ends */
    int fd;
    enum http_phase phase;
    bool in_head; /* MHD has not gone on to the body */
    bool refused; /* reply is an error made before the body was read */
    bool close_after;
    bool begun; /* stream hooks: begin was called */
    bool is_admin;
    bool watched;  /* for hanging up: from the first time that it is parked */
    bool hung_up;  /* seen while it was watched */
    bool upgraded; /* the descriptor and the place are the WebSocket's */
    uint8_t address_len;
    char address[HTTP_ADDRESS_BYTES]; /* of the peer */
    struct http_place place;
};

/* Counts connections per address; shared by the loops. */
struct http_addresses;

/* One loop thread with its MHD daemon. */
struct http_loop {
    struct http_server *server;
    struct loop *loop;
    struct http_front *front;
    struct http_wheel wheel;
    struct loop_timer *tick;
    struct acceptor *acceptors; /* one per listener */
    bool ticking;
    struct http_connection *connections;
    struct http_ws *sockets;     /* open WebSockets */
    struct http_tls_pipe *pipes; /* TLS connections */
    struct arena *arenas[64];    /* spare */
    size_t arena_count;
    struct loop_task drain_task, hard_task;
    uint64_t request_number;
    uint32_t index;
    int hangup_fd; /* epoll of parked connections */
    struct loop_watch *hangup_watch;
    pthread_t thread;
    bool draining;
};

struct http_server {
    struct http_server_config config; /* slices point into the arena */
    struct arena *arena;
    struct http_router *router, *admin_router;
    struct http_loop *loops;
    size_t loop_count;
    uint16_t *ports;
    struct http_addresses *addresses;
    struct http_tls *tls;
    uint32_t id_seed;
    _Atomic size_t connection_count;
    _Atomic size_t running; /* jobs handed to workers or waiting for durability */
    _Atomic size_t sockets; /* WebSockets not yet freed */
    _Atomic size_t pipes;   /* TLS connections */
    _Atomic bool draining;
    bool started;
};

/* --- accept.c --- */
/* Takes fd, a new connection of the listener. Loop thread. */
void http_accept_fd(struct http_loop *home, int fd, const struct sockaddr *peer, socklen_t peer_len,
                    const struct http_listener *listener);
struct err http_accept_listen(struct http_server *server) MUST_USE;
void http_accept_init(struct http_loop *home);
void http_accept_start(struct http_loop *home);
void http_accept_stop(struct http_loop *home);
void http_place_leave(struct http_server *server, const struct http_place *place);
void http_connection_free(struct http_connection *connection);

/* --- exchange.c: from headers to reply; on the loop thread unless stated --- */
void http_exchange_begin(struct http_connection *connection, struct slice target);
enum http_step {
    HTTP_STEP_GO_ON,   /* read more of the request */
    HTTP_STEP_SUSPEND, /* suspend the connection: a job runs */
    HTTP_STEP_REPLY,   /* queue the reply */
    HTTP_STEP_DROP,    /* close the connection */
};
/* The headers are complete and stand in job. */
enum http_step http_exchange_headers(struct http_connection *connection);
enum http_step http_exchange_body(struct http_connection *connection, struct slice bytes,
                                  size_t *taken_out);
/* The whole request is there. */
enum http_step http_exchange_complete(struct http_connection *connection);
/* The request is over: answered, or its connection died. */
void http_exchange_end(struct http_connection *connection);
/* A new job with an arena, for a request or for the answer of a parked one. */
void http_exchange_new_job(struct http_connection *connection);
void http_exchange_drop_job(struct http_connection *connection);
/* Runs `fn` on the workers. */
bool http_exchange_submit(struct http_connection *connection, uint64_t lane, job_fn fn);
/* On a worker: the reply is complete; it leaves when its writes are durable. */
void http_exchange_finish(struct http_connection *connection, struct err err);

/* On a worker, after a job that answered `err`: true when the job would have waited for the network
 * and `fn` now does it again where it may. */
bool http_exchange_wait(struct http_connection *connection, struct err err, job_fn fn);
void http_exchange_count_error(struct http_server *server, struct err err);

/* --- front.c --- */
struct http_front *http_front_new(struct http_loop *home);
void http_front_free(struct http_front **front);
/* Called before the loop sleeps. */
void http_front_run(struct http_front *front);
/* Takes fd in any case. */
void http_front_add(struct http_front *front, int fd, const struct sockaddr *peer,
                    socklen_t peer_len, struct http_connection *connection);
/* Continues a suspended connection. */
void http_front_resume(struct http_connection *connection);
/* Closes what is idle or too slow; a request that waits for more bytes gets `err` as its answer. */
void http_front_cut(struct http_connection *connection, struct err err);

/* --- park.c --- */
void http_park_start(struct http_connection *connection); /* after the job that parked */
void http_park_expire(struct http_connection *connection);
/* Before the descriptor is closed or another's. */
void http_park_unwatch(struct http_connection *connection);
struct err http_park_init(struct http_loop *home) MUST_USE;
void http_park_deinit(struct http_loop *home);

/* --- ws.c --- */
/* After the 101 has been sent. Duplicates fd and takes the connection's place. */
void http_ws_open(struct http_connection *connection, int fd, struct slice early);
/* The 101 was never sent. */
void http_ws_abandon(struct http_ws *ws);
void http_ws_drain(struct http_loop *home); /* closes all with 1001 */
void http_ws_cut(struct http_loop *home);   /* at once */

/* --- address.c --- */
struct http_addresses *http_addresses_new(size_t max_per_address);
void http_addresses_free(struct http_addresses **addresses);
bool http_addresses_enter(struct http_addresses *addresses, const unsigned char key[8]);
void http_addresses_leave(struct http_addresses *addresses, const unsigned char key[8]);
/* Text of the address and the key it is counted under (IPv6: its /64). */
size_t http_address_text(const struct sockaddr *peer, char text[HTTP_ADDRESS_BYTES],
                         unsigned char key[8]);
/* The nearest address that is not a trusted proxy, seen from us. */
struct slice http_address_forwarded(struct slice peer, struct slice header,
                                    const struct slice *trusted, size_t trusted_count);

/* --- reply.c --- */
enum { HTTP_CORS_COUNT = 4 };
struct http_fixed_header {
    const char *name, *value;
};
extern const struct http_fixed_header http_cors[HTTP_CORS_COUNT];
