/* The certificate authorities that outbound requests trust: those of the operator and those of the
 * system, read once. (libcurl with GnuTLS would read them anew for each connection, and keep
 * megabytes for each.) */
#pragma once
#include "homeserver/base/err.h"

#include <pthread.h>

struct http_authorities {
    char **files; /* of the operator, PEM; paths */
    size_t file_count;
    void *list; /* of the library; made at first use, and anew when the system's may have changed */
    int64_t loaded_us;
    void *seen;                /* certificates found good lately; owned */
    pthread_rwlock_t lock;     /* of the list: read while a chain is checked */
    pthread_mutex_t seen_lock; /* a leaf */
};

/* ERR_IO with a text for the operator; then there is nothing to deinit. */
struct err http_authorities_init(struct http_authorities *authorities, const struct slice *files,
                                 size_t count) MUST_USE;
void http_authorities_deinit(struct http_authorities *authorities);
/* Whether one of them vouches, now, for the certificate that the peer of this GnuTLS session showed
 * (not whether it is for the host asked for). Any thread. */
bool http_authorities_vouch(struct http_authorities *authorities, void *session);
