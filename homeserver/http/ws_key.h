/* The answer to a WebSocket key. Spec: RFC 6455, 4.2.2. */
#pragma once
#include "homeserver/base/arena.h"

struct slice http_ws_key_answer(struct arena *arena, struct slice key);
