/* One HTTP request to the server under test. The only file that includes curl. */
#pragma once
#include "homeserver/base/json.h"

struct asker;

struct ask_header {
    struct slice name;
    struct slice value;
};

struct ask {
    struct slice method;
    struct slice url;
    struct slice body;
    bool has_body;
    struct ask_header *headers;
    size_t header_count;
};

struct answer {
    long status;
    struct slice body;
    struct ask_header *headers;
    size_t header_count;
    bool is_json;
    struct json json;
};

/* A connection to be used by one thread; `ca_file` is empty for the system's certificates. */
struct asker *ask_new(struct slice ca_file);
void ask_free(struct asker **asker);
/* Asks; the answer lives in `arena`. ERR_IO when there was no answer. */
struct err ask_send(struct asker *asker, struct arena *arena, const struct ask *ask,
                    struct answer *answer_out) MUST_USE;
/* The value of a header, ptr NULL when absent. */
struct slice ask_header(const struct answer *answer, struct slice name);
