/* Reading the answer to a federated media download piece by piece: multipart/mixed with two parts,
 * of which the first is JSON that is passed over. Memory stays small whatever a peer sends.
 * Spec: server-server, "Content Repository"; RFC 2046, section 5.1. */
#pragma once
#include "homeserver/base/arena.h"
#include "homeserver/base/buf.h"
#include "homeserver/base/err.h"

enum { MULTIPART_LINE_BYTES_MAX = 2048 };

enum multipart_state {
    MULTIPART_PREAMBLE, /* before the first delimiter line, which names the boundary */
    MULTIPART_JSON_HEADERS,
    MULTIPART_JSON,
    MULTIPART_HEADERS,
    MULTIPART_CONTENT,
    MULTIPART_END, /* the delimiter behind the content was met; the rest is passed over */
};

/* Takes the bytes of the content. An error ends the reading. */
typedef struct err (*multipart_sink)(void *arg, struct slice bytes);

struct multipart {
    struct arena *arena;
    multipart_sink sink;
    void *sink_arg;
    enum multipart_state state;
    struct slice delimiter;                           /* "\r\n--boundary" */
    struct buf held;                                  /* bytes that cannot be judged yet */
    struct slice content_type, disposition, location; /* of the second part; empty = none */
};

void multipart_begin(struct multipart *multipart, struct arena *arena, multipart_sink sink,
                     void *sink_arg);
/* ERR_SYNTAX when it is no multipart body of that form, or the sink's error. `arg` of
 * http_fetch's sink is the multipart. */
struct err multipart_read(void *multipart, struct slice bytes) MUST_USE;
/* Whether the content came whole (or a location instead). */
bool multipart_is_whole(const struct multipart *multipart);
/* The file name of a Content-Disposition header (filename* before filename), decoded, in the
 * arena; empty when there is none. */
struct slice multipart_file_name(struct arena *arena, struct slice disposition);
