/* Names that the operator gives addresses to, in the form of /etc/hosts. The file is read again
 * when it has changed, looked at once a second. Thread safe. */
#pragma once
#include "homeserver/base/arena.h"

struct http_hosts;

/* `path` may name a file that is not there yet; empty: no names. */
struct http_hosts *http_hosts_new(struct slice path);
void http_hosts_free(struct http_hosts **hosts);
enum { HTTP_HOSTS_ADDRESSES_MAX = 8 };
/* The addresses of a name (letters folded), in the order of the file, in the arena; their number.
 */
size_t http_hosts_find(struct http_hosts *hosts, struct arena *arena, struct slice name,
                       struct slice addresses_out[HTTP_HOSTS_ADDRESSES_MAX]);
/* The same in a text. */
size_t http_hosts_scan(struct slice text, struct slice name,
                       struct slice addresses_out[HTTP_HOSTS_ADDRESSES_MAX]);
