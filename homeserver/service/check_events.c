/* The events themselves: what no other row proves. */
#include "crypto/signing_key.h"
#include "homeserver/room/redact.h"
#include "homeserver/service/check_priv.h"
#include "homeserver/service/users.h"

static void wrong(struct room_walk *w, const char *what)
{
    check_report(w->c, CHECK_EVENTS, (struct slice){0}, what, false);
}

/* The public key of a key id of this server, present or past. */
static bool own_key(const struct hs *hs, struct slice key_id, struct ed25519_public *key_out)
{
    size_t count = 0;
    if (!hs->signing_key) {
        return false;
    }
    if (slice_eq(key_id, signing_key_id(hs->signing_key))) {
        *key_out = signing_key_public(hs->signing_key);
        return true;
    }
    const struct signing_key_old *olds = signing_key_olds(hs->signing_key, &count);
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(olds[i].key_id, key_id)) {
            *key_out = olds[i].public_key;
            return true;
        }
    }
    return false;
}

/* Only this server's signatures: keys of others are not at hand. */
static void check_signature(struct room_walk *w, const struct json *tree)
{
    const struct hs *hs = w->c->hs;
    const struct json *ours =
        json_get_object(json_get_object(tree, LIT("signatures")), hs->server_name);
    struct json pruned = redact_event(w->c->page.arena, w->shape.rules, tree);
    for (uint32_t i = 0; ours && i < ours->count; i++) {
        struct ed25519_public key;
        if (own_key(hs, ours->members[i].key, &key) &&
            !json_sign_verify(w->c->page.arena, &pruned, hs->server_name, ours->members[i].key,
                              &key)) {
            wrong(w, "has a signature of this server that is not valid");
        }
    }
}

/* Spec: server-server, "Calculating the content hash for an event": an event whose hash does not
 * fit its content is taken in as its redacted form. */
static bool came_redacted(struct room_walk *w, struct arena *arena)
{
    struct event pruned;
    return !hs_user_is_local(w->c->hs, w->event.sender.s) &&
           event_redacted(arena, &w->event, &pruned).code == 0 &&
           slice_eq(pruned.json, w->record.json);
}

void check_event_deep(struct room_walk *w)
{
    struct arena *arena = w->c->page.arena;
    const struct json *tree = event_tree(arena, &w->event);
    check_compared(w->c, CHECK_EVENTS);
    if (!tree) {
        wrong(w, "is not JSON");
        return;
    }
    if (!slice_eq(json_canonical(arena, tree), w->record.json)) {
        wrong(w, "is not in canonical form");
    }
    if (!slice_eq(event_id_compute(arena, w->shape.rules, tree).s, w->record.event_id)) {
        wrong(w, "does not have the id of its hash");
    }
    if (!(w->record.flags & EVENT_REDACTED) && !came_redacted(w, arena) &&
        !event_check_hash(arena, &w->event)) {
        wrong(w, "does not have its content hash");
    }
    check_signature(w, tree);
}
