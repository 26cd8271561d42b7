/* Any document compiles; any event can be judged by it. Input: {"rules":..., "content":...}. */
#include "homeserver/room/push_eval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct json input;
    if (json_parse(arena, (struct slice){(const char *)data, size}, &input).code == 0) {
        struct user_id user = ids_trust_user(LIT("@me:h"));
        const struct room_rules *rules = room_rules_default();
        struct power_levels levels = power_load(rules, NULL, NULL);
        struct json none = json_object();
        const struct json *content = json_get_object(&input, LIT("content"));
        struct event event = {.rules = rules,
                              .type = LIT("m.room.message"),
                              .sender = ids_trust_user(LIT("@you:h")),
                              .content = content ? content : &none};
        struct push_target target = {.user = user, .display_name = LIT("me"), .levels = &levels};
        struct json merged = push_rules_merge(arena, user, json_get(&input, LIT("rules")));
        push_rules_evaluate(push_rules_compile(arena, &merged), &event, &target);
        push_rules_evaluate(push_rules_compile(arena, &input), &event, &target);
    }
    arena_free(&arena);
    return 0;
}
