#include "homeserver/room/third_party.h"

#include "crypto/json_sign.h"

static void add_signatures(struct third_party_proof *proof, const struct json *of_server)
{
    for (uint32_t i = 0; of_server->type == JSON_OBJECT && i < of_server->count &&
                         proof->count < THIRD_PARTY_SIGNATURES_MAX;
         i++) {
        const struct json_member *member = &of_server->members[i];
        bool good = slice_has_prefix(member->key, LIT("ed25519:")) &&
                    member->value.type == JSON_STRING &&
                    ed25519_parse_signature(member->value.text, &proof->signatures[proof->count]);
        proof->count += good;
    }
}

struct third_party_proof third_party_read(struct arena *arena, const struct json *proof)
{
    struct third_party_proof read = {0};
    const struct json *servers = json_get_object(proof, LIT("signatures"));
    for (uint32_t i = 0; servers && i < servers->count; i++) {
        add_signatures(&read, &servers->members[i].value);
    }
    read.payload = read.count ? json_sign_payload(arena, proof) : (struct slice){0};
    return read;
}

bool third_party_fits(struct third_party_proof *proof, struct slice key_text)
{
    struct ed25519_public key;
    bool fits = false;
    if (!key_text.ptr || !ed25519_parse_public(key_text, &key)) {
        return false;
    }
    for (size_t i = 0; i < proof->count && !fits && proof->tries < THIRD_PARTY_TRIES_MAX; i++) {
        proof->tries++;
        fits = ed25519_verify(&key, proof->payload, &proof->signatures[i]);
    }
    return fits;
}
