/* A certificate for the first run, so that https works before the operator has one. */
#pragma once
#include "homeserver/base/err.h"

/* Writes a new P-256 key (mode 0600) and a certificate for localhost, 127.0.0.1, ::1 and the server
 * name (its port is left out), valid for ten years. Replaces existing files. */
struct err http_selfsigned_make(struct slice certificate_path, struct slice key_path,
                                struct slice server_name) MUST_USE;
