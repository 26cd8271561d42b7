/* Address ranges, and which addresses outbound requests may reach: by default none that is private,
 * local or reserved, so that a foreign URL cannot make the server talk to its own network. */
#pragma once
#include "homeserver/base/slice.h"

/* IPv4 is kept as v4-mapped IPv6. */
struct http_address {
    unsigned char bytes[16];
};

struct http_cidr {
    struct http_address base;
    unsigned bits; /* of 128 */
};

/* "10.0.0.0/8", "::1", "fc00::/7". */
bool http_cidr_parse(struct slice text, struct http_cidr *cidr_out);
bool http_cidr_contains(const struct http_cidr *cidr, const struct http_address *address);
/* Numeric text without brackets, port and zone. */
bool http_address_parse(struct slice text, struct http_address *address_out);
/* Whether the address is globally reachable; addresses that embed IPv4 count as that, too. */
bool http_address_is_public(const struct http_address *address);
