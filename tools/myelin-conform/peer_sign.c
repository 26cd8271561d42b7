/* X-Matrix, rightly and wrongly. Spec: server-server, "Request Authentication". */
#include "crypto/base64.h"
#include "tools/myelin-conform/peer.h"

struct json_signer peer_signer(const struct peer *peer)
{
    return (struct json_signer){
        .server = ids_trust_server(peer->name), .key_id = peer->key_id, .key = &peer->key};
}

struct slice peer_public_key(struct arena *arena, const struct peer *peer)
{
    struct ed25519_public key = ed25519_public_of(&peer->key);
    return base64_encode(arena, (struct slice){(const char *)key.bytes, sizeof key.bytes},
                         BASE64_STANDARD);
}

static struct slice changed(const struct json *changes, struct slice name, struct slice usual)
{
    struct slice text = json_get_string(changes, name);
    return text.ptr ? text : usual;
}

static bool is_omitted(const struct json *changes, struct slice name)
{
    const struct json *omit = json_get_array(changes, LIT("omit"));
    for (size_t i = 0; omit && i < omit->count; i++) {
        if (json_is_string(&omit->items[i], name)) {
            return true;
        }
    }
    return false;
}

/* A parameter as senders write it, or as recipients must understand it too. */
static void add_parameter(struct buf *out, const struct json *changes, struct slice name,
                          struct slice value)
{
    bool is_first = slice_has_suffix(buf_slice(out), LIT(" "));
    bool is_loose = json_get_bool(changes, LIT("loose"), false);
    if (is_omitted(changes, name)) {
        return;
    }
    if (!is_loose) {
        buf_printf(out, "%s%.*s=\"%.*s\"", is_first ? "" : ",", (int)name.len, name.ptr,
                   (int)value.len, value.ptr);
        return;
    }
    buf_printf(out, "%s%c%.*s=\"", is_first ? "" : " ,\t", name.ptr[0] - 'a' + 'A',
               (int)name.len - 1, name.ptr + 1);
    for (size_t i = 0; i < value.len; i++) {
        bool is_escaped = value.ptr[i] == ':' || value.ptr[i] == '.';
        buf_printf(out, "%s%c", is_escaped ? "\\" : "", value.ptr[i]);
    }
    buf_add_byte(out, '"');
}

struct slice peer_authorization(struct arena *arena, const struct peer *peer,
                                const struct peer_call *call)
{
    const struct json *changes = call->changes;
    struct json_signer signer = peer_signer(peer);
    struct slice origin = changed(changes, LIT("origin"), peer->name);
    struct slice destination = changed(changes, LIT("destination"), call->destination);
    struct json object = json_object();
    json_set(arena, &object, LIT("method"),
             json_string(changed(changes, LIT("method"), call->method)));
    json_set(arena, &object, LIT("uri"), json_string(changed(changes, LIT("uri"), call->uri)));
    json_set(arena, &object, LIT("origin"), json_string(origin));
    json_set(arena, &object, LIT("destination"), json_string(destination));
    const struct json *content = json_get(changes, LIT("content"));
    content = content ? content : call->content;
    if (content) {
        json_set(arena, &object, LIT("content"), *content);
    }
    signer.server = ids_trust_server(origin);
    json_sign(arena, &object, &signer);
    struct slice sig = json_sign_find(&object, origin, peer->key_id);
    struct buf out;
    buf_init_arena(&out, arena, 1 << 16);
    buf_add(&out, changed(changes, LIT("scheme"), LIT("X-Matrix")));
    buf_add_byte(&out, ' ');
    add_parameter(&out, changes, LIT("origin"), origin);
    add_parameter(&out, changes, LIT("destination"), destination);
    add_parameter(&out, changes, LIT("key"), changed(changes, LIT("key"), peer->key_id));
    add_parameter(&out, changes, LIT("sig"), changed(changes, LIT("sig"), sig));
    buf_add(&out, changed(changes, LIT("append"), LIT("")));
    return buf_slice(&out);
}
