/* Routes served over HTTP on a port of its own, for a house or a world. */
#pragma once
#include "homeserver/http/http.h"
#include "homeserver/service/hs.h"
#include "tests/support/http_harness.h"

/* One loop, requests of `hs`; `tables` stay the caller's until the server is freed. */
struct http_server_config front_config(struct hs *hs, const struct http_route_table *tables,
                                       size_t count);
/* front->server; asserts that it starts. */
void front_start(struct harness *front, const struct http_server_config *config);
/* Asks for /sync; `since` "" = from the start. */
void front_ask_sync(int fd, const char *token, const char *since, int timeout_ms);
/* The answer's next_batch. */
void front_take_since(const struct harness_reply *answer, char since[64]);
