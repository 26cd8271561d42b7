/* Any text is read as a hosts file; what is found are numeric addresses. */
#include "homeserver/http/cidr.h"
#include "homeserver/http/hosts.h"

#include "homeserver/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice found[HTTP_HOSTS_ADDRESSES_MAX];
    struct slice text = {(const char *)data, size};
    size_t count = http_hosts_scan(text, LIT("a.org"), found);
    ASSERT(count <= HTTP_HOSTS_ADDRESSES_MAX);
    for (size_t i = 0; i < count; i++) {
        struct http_address address;
        ASSERT(http_address_parse(found[i], &address));
    }
    return 0;
}
