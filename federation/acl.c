/* Server ACLs: which servers may take part in a room. They act on requests, not on events.
 * Spec: client-server, "Server Access Control Lists (ACLs) for rooms"; server-server, "Server
 * Access Control Lists (ACLs)". */
#include "federation/fed.h"
#include "homeserver/http/cidr.h"
#include "homeserver/room/glob.h"

static bool is_ip_literal(struct slice host)
{
    struct http_address address;
    return (host.len && host.ptr[0] == '[') || http_address_parse(host, &address);
}

/* Anything but strings in a list is passed over; no list is an empty one. */
static bool list_matches(const struct json *content, struct slice key, struct slice host)
{
    const struct json *list = json_get_array(content, key);
    for (uint32_t i = 0; list && i < list->count; i++) {
        const struct json *item = &list->items[i];
        if (item->type == JSON_STRING && glob_matches(item->text, host)) {
            return true;
        }
    }
    return false;
}

bool fed_acl_allows(const struct json *content, struct slice server)
{
    uint16_t port = 0;
    struct slice host = ids_server_host(ids_trust_server(server), &port);
    if (!content) {
        return true;
    }
    if (!json_get_bool(content, LIT("allow_ip_literals"), true) && is_ip_literal(host)) {
        return false;
    }
    return !list_matches(content, LIT("deny"), host) && list_matches(content, LIT("allow"), host);
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
