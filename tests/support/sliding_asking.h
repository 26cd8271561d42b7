/* Asking the engine of sliding sync without the HTTP front. */
#pragma once
#include "homeserver/sync/sliding.h"
#include "tests/support/house.h"

struct asked {
    struct json body;
    struct slice pos;
    struct sliding_answer answer;
};

/* What a guest is answered: the request's body as JSON text, the position of the answer before
 * (empty: none). Everything that was done before is seen. What is asked for wrongly is an error of
 * the engine; a text that is no JSON fails the test. */
struct err sliding_ask(struct house *house, const struct guest *guest, const char *request_text,
                       struct slice pos, struct asked *out) MUST_USE;
/* One member of the answer's extensions, NULL when it is not there. */
const struct json *asked_extension(const struct asked *asked, const char *name);
