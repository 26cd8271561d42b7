/* Server ACLs: which servers may take part in a room. They act on requests, not on events.
 * Spec: client-server, "Server Access Control Lists (ACLs) for rooms"; server-server, "Server
 * Access Control Lists (ACLs)". */
#include "federation/fed.h"
#include "homeserver/http/cidr.h"

#include <string.h>

static bool is_ip_literal(struct slice host)
{
    struct http_address address;
    return (host.len && host.ptr[0] == '[') || http_address_parse(host, &address);
}

/* --- globs --- */

enum { PLACE_WORDS = 4, PLACES_MAX = 64 * PLACE_WORDS, ASCII = 128 };

/* Places in a host name, one bit each. */
struct places {
    uint64_t words[PLACE_WORDS];
};

/* A host name by its letters. Lists are as long as an event may be, and are asked for each server
 * of a room and each EDU: so a pattern is not tried at each place of the name, but moves on from
 * all places at once. A name has at most LIMIT_SERVER_NAME bytes, all of them ASCII. */
struct host {
    size_t len;
    struct places of[ASCII]; /* where each letter stands, small letters for capitals */
};
_Static_assert((int)LIMIT_SERVER_NAME < (int)PLACES_MAX, "there is a place behind each letter");

static unsigned char small(char c)
{
    unsigned char byte = (unsigned char)c;
    return byte >= 'A' && byte <= 'Z' ? (unsigned char)(byte | 0x20) : byte;
}

static void spread(struct host *host, struct slice name)
{
    *host = (struct host){.len = name.len < PLACES_MAX ? name.len : PLACES_MAX - 1};
    for (size_t i = 0; i < host->len; i++) {
        host->of[small(name.ptr[i]) % ASCII].words[i / 64] |= UINT64_C(1) << i % 64;
    }
}

static bool is_none(const struct places *places)
{
    uint64_t any = 0;
    for (size_t i = 0; i < PLACE_WORDS; i++) {
        any |= places->words[i];
    }
    return any == 0;
}

static void move_on(struct places *places)
{
    uint64_t carry = 0;
    for (size_t i = 0; i < PLACE_WORDS; i++) {
        uint64_t word = places->words[i];
        places->words[i] = word << 1 | carry;
        carry = word >> 63;
    }
}

/* '*': every place from the first one on. */
static void move_anywhere(struct places *places)
{
    bool seen = false;
    for (size_t i = 0; i < PLACE_WORDS; i++) {
        uint64_t word = places->words[i];
        places->words[i] = seen ? UINT64_MAX : word | (0 - word);
        seen = seen || word;
    }
}

static void keep_common(struct places *places, const struct places *others)
{
    for (size_t i = 0; i < PLACE_WORDS; i++) {
        places->words[i] &= others->words[i];
    }
}

static bool matches(struct slice pattern, const struct host *host)
{
    struct places places = {{1}};
    for (size_t i = 0; i < pattern.len && !is_none(&places); i++) {
        unsigned char c = small(pattern.ptr[i]);
        if (c == '*') {
            move_anywhere(&places);
            continue;
        }
        if (c != '?') {
            keep_common(&places, c < ASCII ? &host->of[c] : &(struct places){0});
        }
        move_on(&places);
    }
    return (places.words[host->len / 64] >> host->len % 64 & 1) != 0;
}

/* Anything but strings in a list is passed over; no list is an empty one. */
static bool list_matches(const struct json *content, struct slice key, const struct host *host)
{
    const struct json *list = json_get_array(content, key);
    for (uint32_t i = 0; list && i < list->count; i++) {
        const struct json *item = &list->items[i];
        if (item->type == JSON_STRING && matches(item->text, host)) {
            return true;
        }
    }
    return false;
}

bool fed_acl_allows(const struct json *content, struct slice server)
{
    uint16_t port = 0;
    struct host letters;
    struct slice host = ids_server_host(ids_trust_server(server), &port);
    if (!content) {
        return true;
    }
    if (!json_get_bool(content, LIT("allow_ip_literals"), true) && is_ip_literal(host)) {
        return false;
    }
    spread(&letters, host);
    return !list_matches(content, LIT("deny"), &letters) &&
           list_matches(content, LIT("allow"), &letters);
}

struct err fed_acl_check(struct hs *hs, struct ctx *ctx, struct room *room, struct slice server)
{
    struct stored_event acl;
    bool found = false;
    TRY(hs_state_event(hs, ctx, room, hs_room_head(room).root, LIT("m.room.server_acl"), LIT(""),
                       &acl, &found));
    if (found) {
        TRY(hs_event_parse_content(ctx, &acl));
    }
    if (!fed_acl_allows(found ? acl.event.content : NULL, server)) {
        return err_public(ERR_M_FORBIDDEN, "The room's access list keeps this server out.");
    }
    return OK;
}
