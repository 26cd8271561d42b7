/* TLS in front of the HTTP library. A TLS connection is decrypted here, on the loop, and passed on
 * through a socket pair, so that everything behind it (the library, WebSockets, parked requests)
 * sees a plain socket. Its end towards the library is what the rest of the folder works with. */
#pragma once
#include "homeserver/base/err.h"

struct http_loop;
struct http_tls;
struct http_tls_pipe;

/* Loads PEM files. ERR_IO with a text for the operator. */
struct err http_tls_new(struct slice certificate, struct slice key,
                        struct http_tls **tls_out) MUST_USE;
void http_tls_free(struct http_tls **tls);
/* Loads other or changed files for new connections; keeps the old ones on error. Any thread. */
struct err http_tls_reload(struct http_tls *tls, struct slice certificate,
                           struct slice key) MUST_USE;
/* Takes a fresh connection and starts the handshake; returns the plain end, or -1. *owner is the
 * pipe until that ends; then it is NULL. Loop thread. */
int http_tls_wrap(struct http_loop *home, int fd, struct http_tls_pipe **owner);
/* From now on `to` follows the pipe (NULL: nobody does); *from is NULL. */
void http_tls_move_owner(struct http_tls_pipe **from, struct http_tls_pipe **to);
/* Hands what was written to the plain end to the peer's socket, as far as that takes it. */
void http_tls_flush(struct http_tls_pipe *pipe);
/* Ends all connections of the loop. */
void http_tls_cut(struct http_loop *home);
