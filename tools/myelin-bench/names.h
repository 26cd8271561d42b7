/* A DNS server that says of each name where it is: dI.made-up.test at 127.1.X.Y. */
#pragma once
#include "homeserver/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { NAMES_A_NET = 250 };

struct names;

/* UDP, on 127.0.0.1; a thread of its own answers. */
struct err names_new(uint16_t port, struct names **names_out) MUST_USE;
void names_free(struct names **names);
