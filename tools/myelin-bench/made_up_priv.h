/* What the processes of the made-up servers share with the program that started them. */
#pragma once
#include "tools/myelin-bench/made_up.h"

#include <stdatomic.h>

enum made_up_group { LIVING, REFUSING, SILENT, HUNG, GROUPS };
enum { MADE_UP_NAME_BYTES = 48, MADE_UP_TEXT_BYTES = 64 };
#define MADE_UP_KEY_ID "ed25519:bench"

/* In memory that all of them map. The text is written before the message is sent that has it. */
struct made_up_shared {
    struct ed25519_key key;
    _Atomic uint32_t listening; /* processes that have begun */
    _Atomic uint64_t transactions;
    char text[MADE_UP_TEXT_BYTES];
    _Atomic uint32_t text_len; /* 0 = nothing is waited for */
    _Atomic uint32_t arrived;
    atomic_bool has[MADE_UP_MAX];
    _Atomic int64_t arrivals[MADE_UP_MAX]; /* 0 = not yet written */
};

struct made_up_serving {
    struct made_up_shared *shared;
    const char *certificate, *key;
    uint16_t port;
    size_t count;
};

/* The place of 127.1.X.Y:PORT or dI.made-up.test:PORT among `count` names; else `count`. */
size_t made_up_index(struct slice host, size_t count);
/* One process' whole life: answers on the port until it is killed. Returns when it cannot. */
struct err made_up_serve(const struct made_up_serving *serving) MUST_USE;
