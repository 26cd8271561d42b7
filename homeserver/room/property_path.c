#include "homeserver/room/property_path.h"

struct property_path property_path_parse(struct arena *arena, struct slice text)
{
    size_t dots = 0;
    for (size_t i = 0; i < text.len; i++) {
        dots += text.ptr[i] == '.';
    }
    struct slice *names = arena_array(arena, dots + 1, sizeof *names);
    char *to = arena_alloc(arena, text.len + 1);
    size_t count = 0;
    names[0].ptr = to;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        char next = i + 1 < text.len ? text.ptr[i + 1] : 0;
        if (c == '.') {
            names[count].len = (size_t)(to - names[count].ptr);
            names[++count].ptr = to;
            continue;
        }
        if (c == '\\' && (next == '.' || next == '\\')) {
            c = next;
            i++;
        }
        *to++ = c;
    }
    names[count].len = (size_t)(to - names[count].ptr);
    return (struct property_path){names, count + 1};
}

const struct json *property_path_find(const struct json *root, const struct property_path *path,
                                      size_t from)
{
    const struct json *value = root;
    for (size_t i = from; value && i < path->count; i++) {
        value = json_get(value, path->names[i]);
    }
    return value;
}
