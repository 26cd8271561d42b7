/* Error values. Zero is success. `code` is one of the generic codes below or a Matrix errcode of
 * spec/errcodes.h (those start at ERR_MATRIX_FIRST). `text` is for the log; a client sees it only
 * when `is_public` is set, otherwise it sees the standard text of the code. */
#pragma once
#include "homeserver/base/slice.h"

struct arena;

enum err_code {
    ERR_OK = 0,
    ERR_IO,          /* disk or library failed: 500, operator must act */
    ERR_CORRUPT,     /* stored data does not parse */
    ERR_LIMIT,       /* a stated maximum was reached */
    ERR_SYNTAX,      /* input does not parse */
    ERR_CONFLICT,    /* a compare of an atomic update failed */
    ERR_CANCELLED,   /* the server is stopping or the client has gone */
    ERR_TIMEOUT,     /* a deadline passed */
    ERR_UNAVAILABLE, /* overloaded or a remote is down: 503 */
    ERR_INTERNAL,
    ERR_WAITS, /* the call would wait on a thread that may not: see ctx.may_wait, ctx.on_loop */
    ERR_MATRIX_FIRST = 64,
};

struct err {
    const char *text; /* static or arena memory, NUL-terminated */
    uint32_t code;
    uint32_t is_public;
};

#define MUST_USE __attribute__((warn_unused_result))
#define OK ((struct err){0})

/* Returns early with the error of `call`, if it has one. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        struct err try_err_ = (call);                                                              \
        if (try_err_.code != 0) {                                                                  \
            return try_err_;                                                                       \
        }                                                                                          \
    } while (0)

/* An error whose static text goes to the log only. */
struct err err_make(uint32_t code, const char *text);
/* An error whose static text may be shown to the client. */
struct err err_public(uint32_t code, const char *text);
/* The same with a formatted text that lives in `arena`. Escapes nothing: pass checked values. */
struct err err_publicf(struct arena *arena, uint32_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Own invariants only, one condition each; never for foreign bytes. Aborts with file and line. */
#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            assert_failed(__FILE__, __LINE__, #condition);                                         \
        }                                                                                          \
    } while (0)
_Noreturn void assert_failed(const char *file, int line, const char *condition);
