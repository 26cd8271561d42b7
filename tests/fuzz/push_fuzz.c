/* What gateways answer, what subscriptions say, and what stands in a pusher's row. */
#include "crypto/webpush.h"
#include "homeserver/push/push_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct slice all = {(const char *)data, size};
    struct webpush_subscriber subscriber;
    struct pusher_data read;
    struct slice key, body;
    struct slice auth = slice_cut(all, '\n', &key);
    if (webpush_parse_subscriber(key, auth, &subscriber)) {
        ASSERT(webpush_encrypt(arena, &subscriber, LIT("text"), &body).code == 0);
    }
    push_is_rejected(arena, all, LIT("key"));
    push_read_pusher(arena, &(struct pusher){.json = all}, &read);
    ASSERT(read.gateway.len <= read.url.len);
    arena_free(&arena);
    return 0;
}
