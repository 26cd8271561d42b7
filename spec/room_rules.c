#include "spec/room_rules.h"

/* A row repeats the members that a later version changed; the last one counts, as intended. */
#pragma GCC diagnostic ignored "-Woverride-init"

static const struct room_rules rows[] = {
#define VERSION(number, ...) {.version = LIT(number), __VA_ARGS__},
#include "spec/room_rules.def"
#undef VERSION
};

const struct room_rules *room_rules_at(size_t index)
{
    return index < COUNT_OF(rows) ? &rows[index] : NULL;
}

const struct room_rules *room_rules_get(struct slice version)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (slice_eq(rows[i].version, version)) {
            return &rows[i];
        }
    }
    return NULL;
}

const struct room_rules *room_rules_default(void)
{
    return room_rules_get(LIT("12"));
}
