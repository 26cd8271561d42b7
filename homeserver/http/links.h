/* Which peers have a connection open, used or not: what asks whether a request to one of them will
 * cost a handshake. Any thread. Lock: a leaf, held for a call into the kernel that does not wait.
 */
#pragma once
#include "homeserver/base/slice.h"

struct http_links;

struct http_links *http_links_new(void);
void http_links_free(struct http_links **links);
/* A descriptor is opened for a peer; later ones of the same peer take its place. */
void http_links_add(struct http_links *links, int fd, struct slice peer);
/* To be told before the descriptor is closed; does nothing for others. */
void http_links_remove(struct http_links *links, int fd);
/* False also when the peer has ended the connection and nobody has looked yet. */
bool http_links_has(struct http_links *links, struct slice peer);
