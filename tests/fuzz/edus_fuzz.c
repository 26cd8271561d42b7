/* EDUs of other servers: every parser on the same content. */
#include "federation/edus.h"
#include "homeserver/base/arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct json content;
    if (json_parse(arena, (struct slice){(const char *)data, size}, &content).code == 0) {
        struct edu_typing typing;
        struct edu_presence *presences = NULL;
        struct edu_receipt *receipts = NULL;
        struct edu_device_list list;
        struct edu_signing_key key;
        struct edu_to_device send;
        size_t count = 0;
        (void)!edu_parse_typing(&content, &typing).code;
        (void)!edu_parse_presence(arena, &content, &presences, &count).code;
        (void)!edu_parse_receipts(arena, &content, &receipts, &count).code;
        (void)!edu_parse_device_list(&content, &list).code;
        (void)!edu_parse_signing_key(&content, &key).code;
        (void)!edu_parse_to_device(arena, &content, &send).code;
    }
    arena_free(&arena);
    return 0;
}
