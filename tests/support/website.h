/* A web server of a few pages on 127.0.0.1, for tests of what fetches from the web. */
#pragma once
#include "homeserver/base/slice.h"

#include <stdint.h>

struct website_page {
    const char *path;
    const char *status; /* "200 OK" */
    const char *head;   /* further lines, each with its CR LF */
    struct slice body;
};

struct website;
/* The pages are borrowed. A page of another path answers 404. */
struct website *website_new(const struct website_page *pages, size_t count);
void website_free(struct website **website);
uint16_t website_port(const struct website *website);
/* How often it was asked for anything. */
int website_asked(struct website *website);
