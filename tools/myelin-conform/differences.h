/* The list of scenes in which a named server is known to differ from the specification. Each entry:
 *
 *   difference "file.play" "scene"
 *   > the sentence of the specification
 *   how the server differs
 */
#pragma once
#include "homeserver/base/json.h"

struct difference {
    struct slice file;
    struct slice scene;
    struct slice quote;
    struct slice how;
    bool is_seen; /* the scene failed in this run */
};

struct differences {
    struct difference *items;
    size_t count;
};

struct err differences_parse(struct arena *arena, struct slice text,
                             struct differences *differences_out) MUST_USE;
/* NULL when the scene is not in the list. */
struct difference *differences_find(struct differences *differences, struct slice file,
                                    struct slice scene);
