#include "spec/ids.h"

#include <arpa/inet.h>
#include <string.h>

#include "homeserver/base/arena.h"
#include "spec/errcodes.h"
#include "spec/limits.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alpha(char c)
{
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'z';
}

static bool is_ipv6(struct slice s)
{
    char text[INET6_ADDRSTRLEN + 1] = {0};
    unsigned char address[16];
    if (s.len < 2 || s.len >= sizeof text || memchr(s.ptr, 0, s.len)) {
        return false;
    }
    memcpy(text, s.ptr, s.len);
    return inet_pton(AF_INET6, text, address) == 1;
}

static bool is_dns_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!is_digit(c) && !is_alpha(c) && c != '-' && c != '.') {
            return false;
        }
    }
    return s.len > 0;
}

static bool is_port(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!is_digit(s.ptr[i])) {
            return false;
        }
    }
    return s.len >= 1 && s.len <= 5;
}

/* Length of the host part; a bracketed host keeps its brackets. 0 when there is no good host. */
static size_t host_len(struct slice s)
{
    if (s.len && s.ptr[0] == '[') {
        size_t close = slice_find(s, ']');
        bool good = close < s.len && is_ipv6(slice_sub(s, 1, close - 1));
        return good ? close + 1 : 0;
    }
    size_t colon = slice_find(s, ':');
    return is_dns_name(slice_sub(s, 0, colon)) ? colon : 0;
}

bool ids_is_server_name(struct slice s)
{
    size_t host = host_len(s);
    if (host == 0 || s.len > LIMIT_SERVER_NAME) {
        return false;
    }
    return host == s.len || (s.ptr[host] == ':' && is_port(slice_from(s, host + 1)));
}

/* Sigil, any localpart without NUL (and, cut at the first ':', without ':'), a server name. */
static bool is_sigil_and_domain(struct slice s, char sigil)
{
    if (s.len < 2 || s.len > LIMIT_ID_BYTES || s.ptr[0] != sigil) {
        return false;
    }
    size_t colon = slice_find(s, ':');
    if (colon == s.len || !ids_is_server_name(slice_from(s, colon + 1))) {
        return false;
    }
    return !memchr(s.ptr, 0, colon) && slice_is_utf8(s);
}

bool ids_is_user(struct slice s)
{
    return is_sigil_and_domain(s, '@');
}

bool ids_is_alias(struct slice s)
{
    return is_sigil_and_domain(s, '#');
}

bool ids_is_new_localpart(struct slice localpart)
{
    for (size_t i = 0; i < localpart.len; i++) {
        char c = localpart.ptr[i];
        bool lower = c >= 'a' && c <= 'z';
        if (!lower && !is_digit(c) && (c == 0 || !strchr("._=-/+", c))) {
            return false;
        }
    }
    return localpart.len > 0;
}

static bool is_hash_part(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!is_digit(c) && !is_alpha(c) && c != '-' && c != '_') {
            return false;
        }
    }
    return s.len == 43;
}

bool ids_is_room(struct slice s)
{
    if (s.len && s.ptr[0] == '!' && is_hash_part(slice_from(s, 1))) {
        return true;
    }
    return is_sigil_and_domain(s, '!');
}

bool ids_is_event(struct slice s)
{
    return s.len >= 2 && s.len <= LIMIT_ID_BYTES && s.ptr[0] == '$' && !memchr(s.ptr, 0, s.len);
}

static struct err invalid(const char *text)
{
    return err_public(ERR_M_INVALID_PARAM, text);
}

struct err ids_parse_server_name(struct slice s, struct server_name *name_out)
{
    if (!ids_is_server_name(s)) {
        return invalid(
            "not a valid server name: use a host name or address, with an optional port");
    }
    *name_out = (struct server_name){s};
    return OK;
}

struct err ids_parse_user(struct slice s, struct user_id *user_out)
{
    if (!ids_is_user(s)) {
        return invalid("not a valid user id: use @localpart:server");
    }
    *user_out = (struct user_id){s};
    return OK;
}

struct err ids_parse_new_user(struct slice s, struct user_id *user_out)
{
    TRY(ids_parse_user(s, user_out));
    if (!ids_is_new_localpart(ids_user_localpart(*user_out))) {
        return invalid("a user name may only hold a-z, 0-9 and . _ = - / +");
    }
    return OK;
}

struct err ids_parse_room(struct slice s, struct room_id *room_out)
{
    if (!ids_is_room(s)) {
        return invalid("not a valid room id: it starts with '!'");
    }
    *room_out = (struct room_id){s};
    return OK;
}

struct user_id ids_trust_user(struct slice s)
{
    return (struct user_id){s};
}

struct room_id ids_trust_room(struct slice s)
{
    return (struct room_id){s};
}

struct event_id ids_trust_event(struct slice s)
{
    return (struct event_id){s};
}

struct server_name ids_trust_server(struct slice s)
{
    return (struct server_name){s};
}

struct room_alias ids_trust_alias(struct slice s)
{
    return (struct room_alias){s};
}

static struct server_name domain_of(struct slice id)
{
    return (struct server_name){slice_from(id, slice_find(id, ':') + 1)};
}

struct server_name ids_user_domain(struct user_id user)
{
    return domain_of(user.s);
}

struct server_name ids_room_domain(struct room_id room)
{
    return domain_of(room.s);
}

struct server_name ids_event_domain(struct event_id event)
{
    return domain_of(event.s);
}

struct server_name ids_alias_domain(struct room_alias alias)
{
    return domain_of(alias.s);
}

static struct slice localpart_of(struct slice id)
{
    size_t colon = slice_find(id, ':');
    return colon ? slice_sub(id, 1, colon - 1) : (struct slice){0};
}

struct slice ids_user_localpart(struct user_id user)
{
    return localpart_of(user.s);
}

static struct slice join_id(struct arena *arena, char sigil, struct slice localpart,
                            struct server_name server)
{
    size_t len = 2 + localpart.len + server.s.len;
    char *text = arena_alloc(arena, len + 1);
    text[0] = sigil;
    if (localpart.len) {
        memcpy(text + 1, localpart.ptr, localpart.len);
    }
    text[1 + localpart.len] = ':';
    if (server.s.len) {
        memcpy(text + 2 + localpart.len, server.s.ptr, server.s.len);
    }
    return (struct slice){text, len};
}

struct user_id ids_make_user(struct arena *arena, struct slice localpart, struct server_name server)
{
    return (struct user_id){join_id(arena, '@', localpart, server)};
}

struct room_alias ids_make_alias(struct arena *arena, struct slice localpart,
                                 struct server_name server)
{
    return (struct room_alias){join_id(arena, '#', localpart, server)};
}

struct slice ids_server_host(struct server_name name, uint16_t *port_out)
{
    uint64_t port = 0;
    size_t host = host_len(name.s);
    *port_out = 0;
    if (host < name.s.len && slice_parse_u64(slice_from(name.s, host + 1), &port) &&
        port <= UINT16_MAX) {
        *port_out = (uint16_t)port;
    }
    return slice_sub(name.s, 0, host);
}

bool ids_user_eq(struct user_id a, struct user_id b)
{
    return slice_eq(a.s, b.s);
}

bool ids_room_eq(struct room_id a, struct room_id b)
{
    return slice_eq(a.s, b.s);
}

bool ids_event_eq(struct event_id a, struct event_id b)
{
    return slice_eq(a.s, b.s);
}

bool ids_server_eq(struct server_name a, struct server_name b)
{
    return slice_eq(a.s, b.s);
}
