/* The port of hs->remote: one function each, in the out_*.c that carries it out. */
#pragma once
#include "homeserver/service/remote.h"

extern const struct hs_remote fed_remote;
