#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/http/priv.h"

#include <arpa/inet.h>
#include <string.h>

struct http_addresses {
    pthread_mutex_t mutex; /* protects counts; leaf lock */
    struct map *counts;    /* only addresses with a connection: bounded by the connection limit */
    size_t max;
};

struct http_addresses *http_addresses_new(size_t max_per_address)
{
    struct http_addresses *addresses = mem_alloc(sizeof *addresses);
    pthread_mutex_init(&addresses->mutex, NULL);
    addresses->counts = map_new();
    addresses->max = max_per_address ? max_per_address : SIZE_MAX;
    return addresses;
}

void http_addresses_free(struct http_addresses **addresses)
{
    if (*addresses) {
        map_free(&(*addresses)->counts);
        pthread_mutex_destroy(&(*addresses)->mutex);
        mem_free(*addresses);
        *addresses = NULL;
    }
}

bool http_addresses_enter(struct http_addresses *addresses, const unsigned char key[8])
{
    struct slice name = {(const char *)key, 8};
    uint64_t count = 0;
    pthread_mutex_lock(&addresses->mutex);
    map_get(addresses->counts, name, &count);
    bool room = count < addresses->max;
    if (room) {
        map_set(addresses->counts, name, count + 1);
    }
    pthread_mutex_unlock(&addresses->mutex);
    return room;
}

void http_addresses_leave(struct http_addresses *addresses, const unsigned char key[8])
{
    struct slice name = {(const char *)key, 8};
    uint64_t count = 0;
    pthread_mutex_lock(&addresses->mutex);
    if (map_get(addresses->counts, name, &count) && count > 1) {
        map_set(addresses->counts, name, count - 1);
    } else {
        map_remove(addresses->counts, name);
    }
    pthread_mutex_unlock(&addresses->mutex);
}

size_t http_address_text(const struct sockaddr *peer, char text[HTTP_ADDRESS_BYTES],
                         unsigned char key[8])
{
    const void *bytes = NULL;
    int family = peer->sa_family;
    memset(key, 0, 8);
    text[0] = '\0';
    if (family == AF_INET) {
        bytes = &((const struct sockaddr_in *)(const void *)peer)->sin_addr;
        memcpy(key + 4, bytes, 4);
    } else if (family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
        bytes = in6;
        if (IN6_IS_ADDR_V4MAPPED(in6)) {
            family = AF_INET;
            bytes = (const unsigned char *)in6 + 12;
            memcpy(key + 4, bytes, 4);
        } else {
            memcpy(key, in6, 8);
        }
    }
    if (bytes) {
        inet_ntop(family, bytes, text, HTTP_ADDRESS_BYTES);
    }
    return strlen(text);
}

static bool is_trusted(struct slice address, const struct slice *trusted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(address, trusted[i])) {
            return true;
        }
    }
    return false;
}

/* An address of the header, without port and brackets; empty when it is none. */
static struct slice clean(struct slice text)
{
    struct slice s = slice_trim(text);
    char copy[HTTP_ADDRESS_BYTES];
    unsigned char bytes[16];
    if (s.len && s.ptr[0] == '[') {
        s = slice_sub(s, 1, slice_find(s, ']') - 1);
    } else if (slice_find(s, '.') < s.len) {
        s = slice_sub(s, 0, slice_find(s, ':'));
    }
    if (s.len >= sizeof copy || !s.len) {
        return (struct slice){0};
    }
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    bool good = inet_pton(AF_INET, copy, bytes) == 1 || inet_pton(AF_INET6, copy, bytes) == 1;
    return good ? s : (struct slice){0};
}

struct slice http_address_forwarded(struct slice peer, struct slice header,
                                    const struct slice *trusted, size_t trusted_count)
{
    struct slice nearest = peer;
    struct slice rest = header;
    while (rest.len && is_trusted(nearest, trusted, trusted_count)) {
        size_t comma = slice_find_last(rest, ',');
        bool last = comma == rest.len;
        struct slice address = clean(last ? rest : slice_from(rest, comma + 1));
        if (!address.len) { /* what a trusted proxy did not understand is not worth more here */
            return nearest;
        }
        nearest = address;
        rest = last ? (struct slice){0} : slice_sub(rest, 0, comma);
    }
    return nearest;
}
