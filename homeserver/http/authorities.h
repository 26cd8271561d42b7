/* The certificate authorities that outbound requests trust, as one file without a name: those of
 * the operator and those of the system. (libcurl takes one file, and none from memory with GnuTLS.)
 */
#pragma once
#include "homeserver/base/err.h"

struct http_authorities {
    int fd;        /* -1 = those of the system alone */
    char path[32]; /* to be read */
    bool is_whole; /* those of the system are in it, and not only in their folder */
};

/* `files` are PEM. ERR_IO with a text for the operator; then there is nothing to deinit. */
struct err http_authorities_init(struct http_authorities *authorities, const struct slice *files,
                                 size_t count) MUST_USE;
void http_authorities_deinit(struct http_authorities *authorities);
