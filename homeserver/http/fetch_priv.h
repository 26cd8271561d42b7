/* Inside of fetch.c and fetch_loop.c, the only users of libcurl. */
#pragma once
#include "homeserver/base/loop.h"
#include "homeserver/http/authorities.h"
#include "homeserver/http/cidr.h"
#include "homeserver/http/dns.h"
#include "homeserver/http/fetch.h"
#include "homeserver/http/hosts.h"
#include "homeserver/http/links.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

enum { HTTP_FETCH_BODY_DEFAULT = 1 << 24, HTTP_SHARDS_MAX = 32, HTTP_STRANDS_MAX = 4 };

/* A thread with its loop, and what runs there: all of some shards. */
struct http_strand {
    struct http_fetcher *fetcher;
    struct loop *loop;
    pthread_t thread;
    struct transfer *transfers; /* running */
    struct loop_task stop_task;
};

/* libcurl walks through all connections of a handle after each request, and to find the oldest one;
 * so each of several handles has the hosts of a share of the hashes. */
struct http_shard {
    struct http_strand *strand;
    CURLM *multi; /* NULL until a request needs it; of the strand's thread */
    long connection_max;
    struct loop_timer *timer;
};

struct http_fetcher {
    struct http_fetch_config config; /* slices in the arena */
    struct arena *arena;
    struct http_cidr *allow, *deny;
    struct http_hosts *hosts;
    struct http_dns *dns;
    struct http_authorities authorities;
    struct http_strand strands[HTTP_STRANDS_MAX]; /* the first has the questions to DNS, too */
    size_t strand_count;
    struct http_shard shards[HTTP_SHARDS_MAX];
    size_t shard_count;
    struct http_links *links;
    pthread_mutex_t waking; /* of is_awake, a leaf */
    bool is_awake;          /* libcurl is initialised: by the first request, as it takes 2 MB */
    _Atomic bool stopping;
};

/* One request; lives on the caller's stack until the loop has let go of it, or, when nobody waits
 * for it, inside a struct http_fetching. */
struct transfer {
    struct http_fetcher *fetcher;
    struct http_shard *shard; /* of its host */
    const struct http_fetch_request *request;
    struct transfer *next, *prev;
    CURL *easy;
    struct curl_slist *headers, *connect_to, *resolved;
    struct loop_task start_task, resume_task, cancel_task;
    void (*on_begun)(void *arg);
    void (*on_done)(void *arg); /* NULL: a caller takes the body's pieces as they come */
    void *on_done_arg;
    struct buf head; /* header lines of the last answer */
    size_t received;
    bool any_address;
    struct http_address named[HTTP_HOSTS_ADDRESSES_MAX]; /* the operator says where the host is */
    size_t named_count;
    bool denied, distrusted, too_large; /* why the transfer was broken off */
    /* protected by mutex (leaf lock) */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct buf queue;
    unsigned tasks; /* posted to the loop and not yet run */
    CURLcode code;
    bool success; /* the status is 2xx */
    bool paused, cancelled, done;
};

/* --- fetch_loop.c --- */
void http_transfer_set_callbacks(struct transfer *transfer);
void http_transfer_on_start(void *transfer);
void http_transfer_on_resume(void *transfer);
void http_transfer_on_cancel(void *transfer);
void http_strand_on_stop(void *strand);
void http_shard_on_timer(void *shard);
