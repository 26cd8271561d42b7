/* Paths to a member of an event. Spec: appendices, "Dot-separated property paths". */
#pragma once
#include "homeserver/base/json.h"

struct property_path {
    const struct slice *names;
    size_t count;
};

/* "\." and "\\" stand for the character itself, other backslashes for themselves. Lives in the
 * arena. */
struct property_path property_path_parse(struct arena *arena, struct slice text);
/* The value under names[from..] below `root`; NULL when there is none. */
const struct json *property_path_find(const struct json *root, const struct property_path *path,
                                      size_t from);
