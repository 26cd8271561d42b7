/* Matrix error codes as values of struct err. Spec: client-server, "Standard error response". */
#pragma once
#include "homeserver/base/err.h"

enum errcode {
    ERR_M_NONE = ERR_MATRIX_FIRST,
#define ERRCODE(name, wire, status, text) ERR_M_##name,
#include "spec/errcodes.def"
#undef ERRCODE
    ERR_M_END,
};

struct errcode_info {
    const char *name; /* enum suffix, for counters */
    struct slice wire;
    int http_status;
    struct slice text;
};

/* Every code, generic ones too (they become M_NOT_JSON, M_LIMIT_EXCEEDED, M_UNKNOWN, ...). */
const struct errcode_info *errcode_get(uint32_t code);
