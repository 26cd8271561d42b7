/* Where a URL leads. All results borrow. */
#pragma once
#include "homeserver/base/arena.h"
#include "homeserver/http/cidr.h"

/* Host and port of a URL or of a "host:port" text, without what stands before an '@'. */
struct slice http_url_authority(struct slice url);
/* The host of an authority; an IPv6 address keeps its brackets. */
struct slice http_url_without_port(struct slice authority);
/* Whether a host, brackets and all, is a numeric address. */
bool http_url_is_literal(struct slice host, struct http_address *address_out);
/* Where a reference on the page of this URL leads; characters that no URL has are encoded. Dots in
 * its path stay. Spec: none of Matrix's; RFC 3986, section 5.2. */
struct slice http_url_resolve(struct arena *arena, struct slice base, struct slice reference);
