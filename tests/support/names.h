/* A DNS server of the test's making: UDP on 127.0.0.1, answers from a table. */
#pragma once
#include "homeserver/base/slice.h"

#include <stdatomic.h>
#include <stdint.h>

/* Several of the same name and type are one answer. */
struct name_record {
    const char *name; /* lower case */
    const char *type; /* "A", "AAAA", "CNAME" or "SRV" */
    const char *data; /* the address; the other name; "priority weight port target" */
    uint32_t ttl_s;
};

enum names_manner { NAMES_ANSWER, NAMES_SILENT, NAMES_FAIL };

struct names;

/* The table stays the caller's; names that are not in it do not exist. */
struct names *names_open(const struct name_record *records, size_t count);
void names_close(struct names **names);
uint16_t names_port(const struct names *names);
/* From now on this table, or another manner. */
void names_change(struct names *names, const struct name_record *records, size_t count);
void names_behave(struct names *names, enum names_manner manner);
/* Questions for the name and type so far. */
unsigned names_asked(struct names *names, const char *name, const char *type);
