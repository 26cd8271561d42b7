/* Pictures made by hand, for tests: PNG in grey, without compression. */
#pragma once
#include "homeserver/base/arena.h"

struct picture {
    uint32_t width, height; /* as its head says */
    uint32_t rows;          /* that are really there */
};

struct slice picture_png(struct arena *arena, struct picture picture);
/* Width and height that a PNG's head says; zeros for what is none. */
struct picture picture_of_png(struct slice png);
