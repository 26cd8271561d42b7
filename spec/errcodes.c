#include "spec/errcodes.h"

static const struct errcode_info infos[] = {
    {"NONE", {"M_UNKNOWN", 9}, 500, {"Internal server error.", 22}},
#define ERRCODE(name, wire, status, text)                                                          \
    {#name, {wire, sizeof(wire) - 1}, status, {text, sizeof(text) - 1}},
#include "spec/errcodes.def"
#undef ERRCODE
};

/* What a generic error is to a client. */
static uint32_t matrix_code_of(uint32_t code)
{
    switch (code) {
    case ERR_SYNTAX:
        return ERR_M_NOT_JSON;
    case ERR_LIMIT:
        return ERR_M_TOO_LARGE;
    case ERR_CANCELLED:
    case ERR_TIMEOUT:
    case ERR_UNAVAILABLE:
    case ERR_WAITS:
        return ERR_M_UNAVAILABLE;
    default:
        return ERR_M_UNKNOWN;
    }
}

const struct errcode_info *errcode_get(uint32_t code)
{
    if (code <= ERR_M_NONE || code >= ERR_M_END) {
        code = matrix_code_of(code);
    }
    return &infos[code - ERR_MATRIX_FIRST];
}
