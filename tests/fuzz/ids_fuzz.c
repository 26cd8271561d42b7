/* What is accepted falls into parts that lie within it. */
#include "spec/ids.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = {(const char *)data, size};
    uint16_t port = 0;
    struct user_id user = ids_trust_user(text);
    struct server_name server = ids_trust_server(text);
    if (ids_is_user(text)) {
        ASSERT(ids_is_server_name(ids_user_domain(user).s));
        ASSERT(ids_user_localpart(user).len + ids_user_domain(user).s.len + 2 == size);
    }
    if (ids_is_server_name(text)) {
        ASSERT(ids_server_host(server, &port).len > 0);
    }
    ids_user_localpart(user);
    ids_server_host(server, &port);
    ASSERT(!ids_is_room(text) || text.ptr[0] == '!');
    ASSERT(!ids_is_alias(text) || text.ptr[0] == '#');
    ASSERT(!ids_is_event(text) || text.ptr[0] == '$');
    return 0;
}
