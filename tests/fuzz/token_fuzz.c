/* What passes for a token has its exact form; what passes for a new name makes a valid user id. */
#include "crypto/token.h"
#include "spec/ids.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {(const char *)data, size};
    struct arena *arena = arena_new();
    if (token_is_formed(text, LIT("mya"))) {
        ASSERT(text.len == 52);
        ASSERT(token_eq(text, arena_copy(arena, text)));
    }
    if (ids_is_new_localpart(text) && text.len <= 200) {
        ASSERT(ids_is_user(ids_make_user(arena, text, ids_trust_server(LIT("test"))).s));
    }
    arena_free(&arena);
    return 0;
}
