/* Who must have signed an event, and whether they did. Spec: server-server, "Validating hashes and
 * signatures on received events". */
#include "homeserver/room/event_priv.h"
#include "spec/errcodes.h"

static size_t add_signer(struct server_name *signers, size_t count, struct server_name signer)
{
    for (size_t i = 0; i < count; i++) {
        if (ids_server_eq(signers[i], signer)) {
            return count;
        }
    }
    signers[count] = signer;
    return count + 1;
}

/* Invites by third-party token are sent on by the target's server in the inviter's name. */
static bool is_third_party_invite(const struct event *event)
{
    return slice_eq(event->type, LIT("m.room.member")) &&
           json_is_string(json_get(event->content, LIT("membership")), LIT("invite")) &&
           json_get(event->content, LIT("third_party_invite"));
}

size_t event_required_signers(const struct event *event,
                              struct server_name signers_out[EVENT_SIGNERS_MAX])
{
    size_t count = 0;
    if (!is_third_party_invite(event)) {
        count = add_signer(signers_out, count, ids_user_domain(event->sender));
    }
    /* Room versions 1 and 2: the server in the event id too. */
    if (event->rules->signed_by_id_domain) {
        count = add_signer(signers_out, count, ids_event_domain(event->id));
    }
    /* From version 8 on: the server that vouches for a restricted join. */
    if (event->rules->restricted && slice_eq(event->type, LIT("m.room.member"))) {
        struct slice voucher =
            json_get_string(event->content, LIT("join_authorised_via_users_server"));
        if (voucher.len) {
            count = add_signer(signers_out, count, ids_user_domain(ids_trust_user(voucher)));
        }
    }
    return count;
}

struct check {
    const struct event *event;
    struct slice payload;
    const struct json *signatures;
    event_key_fn key;
    void *arg;
};

static bool is_signed_by(const struct check *check, struct server_name server)
{
    const struct json *own = json_get_object(check->signatures, server.s);
    for (uint32_t i = 0; own && i < own->count; i++) {
        struct slice key_id = own->members[i].key;
        const struct json *text = &own->members[i].value;
        struct ed25519_signature signature;
        struct ed25519_public key;
        if (text->type != JSON_STRING || !slice_has_prefix(key_id, LIT("ed25519:")) ||
            slice_eq(key_id, LIT("ed25519:policy_server")) ||
            !ed25519_parse_signature(text->text, &signature)) {
            continue;
        }
        if (check->key(check->arg, server, key_id, &key) &&
            ed25519_verify(&key, check->payload, &signature)) {
            return true;
        }
    }
    return false;
}

struct err event_check_signatures(struct arena *arena, const struct event *event, event_key_fn key,
                                  void *arg, struct server_name *server_out)
{
    struct server_name signers[EVENT_SIGNERS_MAX];
    size_t count = event_required_signers(event, signers);
    const struct json *tree = event_tree(arena, event);
    struct check check = {
        .event = event,
        .payload = event_payload(arena, event->rules, tree),
        .signatures = json_get_object(tree, LIT("signatures")),
        .key = key,
        .arg = arg,
    };
    for (size_t i = 0; i < count; i++) {
        if (!is_signed_by(&check, signers[i])) {
            *server_out = signers[i];
            return err_publicf(arena, ERR_M_FORBIDDEN, "no valid signature of %.*s",
                               (int)signers[i].s.len, signers[i].s.ptr);
        }
    }
    return OK;
}
