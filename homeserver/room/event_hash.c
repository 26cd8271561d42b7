/* Hashes, ids and the sealing of events. Spec: server-server, "Signing Events". */
#include "crypto/base64.h"
#include "crypto/sha256.h"
#include "homeserver/base/json_out.h"
#include "homeserver/room/event_priv.h"
#include "homeserver/room/redact.h"

#include <string.h>

static struct slice hash_text(struct arena *arena, struct slice data, enum base64_alphabet alphabet)
{
    struct sha256 hash = sha256_of(data);
    return base64_encode(arena, sha256_slice(&hash), alphabet);
}

struct slice event_payload(struct arena *arena, const struct room_rules *rules,
                           const struct json *tree)
{
    const struct slice dropped[] = {LIT("signatures"), LIT("unsigned"), LIT("event_id")};
    struct json redacted = redact_event(arena, rules, tree);
    size_t count = rules->event_format == EVENT_FORMAT_1 ? 2 : 3;
    struct json rest = json_without(arena, &redacted, dropped, count);
    return json_canonical(arena, &rest);
}

struct event_id event_id_of_payload(struct arena *arena, const struct room_rules *rules,
                                    struct slice payload)
{
    struct sha256 hash = sha256_of(payload);
    size_t len = 1 + BASE64_LEN(sizeof hash.bytes);
    char *text = arena_alloc(arena, len + 1);
    text[0] = '$';
    base64_encode_into(text + 1, sha256_slice(&hash),
                       rules->event_format == EVENT_FORMAT_3 ? BASE64_STANDARD : BASE64_URL);
    return ids_trust_event((struct slice){text, len});
}

struct room_id event_room_of_create(struct arena *arena, struct event_id id)
{
    char *text = arena_alloc(arena, id.s.len + 1);
    if (id.s.len) {
        memcpy(text, id.s.ptr, id.s.len);
        text[0] = '!';
    }
    return ids_trust_room((struct slice){text, id.s.len});
}

struct event_id event_id_compute(struct arena *arena, const struct room_rules *rules,
                                 const struct json *tree)
{
    if (rules->event_format == EVENT_FORMAT_1) {
        return ids_trust_event(json_get_string(tree, LIT("event_id")));
    }
    return event_id_of_payload(arena, rules, event_payload(arena, rules, tree));
}

struct slice event_reference_hash(struct arena *arena, const struct room_rules *rules,
                                  const struct json *tree)
{
    return hash_text(arena, event_payload(arena, rules, tree), BASE64_STANDARD);
}

bool event_check_hash(struct arena *arena, const struct event *event)
{
    const struct slice dropped[] = {LIT("unsigned"), LIT("signatures"), LIT("hashes")};
    unsigned char stated[SHA256_BYTES];
    const struct json *tree = event_tree(arena, event);
    struct slice text = json_get_string(json_get_object(tree, LIT("hashes")), LIT("sha256"));
    if (!text.ptr || !base64_decode_exact(text, stated, sizeof stated)) {
        return false;
    }
    struct json hashed = json_without(arena, tree, dropped, COUNT_OF(dropped));
    struct sha256 hash = sha256_of(json_canonical(arena, &hashed));
    return memcmp(hash.bytes, stated, sizeof stated) == 0;
}

struct err event_redacted(struct arena *arena, const struct event *event, struct event *event_out)
{
    struct json *tree = arena_alloc(arena, sizeof *tree);
    *tree = redact_event(arena, event->rules, event_tree(arena, event));
    return event_parse_tree(arena, event->rules, tree, event_out);
}

/* Members of a draft, each already in canonical bytes, in order of their keys. */
struct part {
    struct slice key;
    struct slice json; /* "key":value */
};
struct parts {
    struct part *items;
    size_t count;
};

/* Room for the members that sealing adds. */
enum { SEAL_ADDED = 2 };

/* Writes the draft's canonical form into `out` and notes where each member stands. */
static struct parts split_draft(struct arena *arena, const struct json *draft, struct buf *out)
{
    struct parts parts = {arena_array(arena, draft->count + SEAL_ADDED, sizeof *parts.items), 0};
    size_t *ends = arena_array(arena, draft->count + 1, sizeof *ends);
    struct json_out json = json_out_to(out);
    json_out_object(&json);
    for (uint32_t i = 0; i < draft->count; i++) {
        json_out_key(&json, draft->members[i].key);
        json_out_value(&json, &draft->members[i].value);
        ends[i] = out->len;
    }
    json_out_object_end(&json);
    size_t start = 1;
    for (uint32_t i = 0; i < draft->count; i++) {
        parts.items[parts.count++] =
            (struct part){draft->members[i].key, slice_sub(buf_slice(out), start, ends[i] - start)};
        start = ends[i] + 1;
    }
    return parts;
}

static void insert_part(struct parts *parts, struct part part)
{
    size_t at = parts->count++;
    while (at && slice_cmp(parts->items[at - 1].key, part.key) > 0) {
        parts->items[at] = parts->items[at - 1];
        at--;
    }
    parts->items[at] = part;
}

static void write_parts(struct buf *out, const struct parts *parts)
{
    buf_add_byte(out, '{');
    for (size_t i = 0; i < parts->count; i++) {
        if (i) {
            buf_add_byte(out, ',');
        }
        buf_add(out, parts->items[i].json);
    }
    buf_add_byte(out, '}');
}

/* The redacted form: the parts that survive, content cut down. */
static struct slice redacted_bytes(struct arena *arena, const struct event *event,
                                   const struct parts *parts)
{
    struct buf out;
    struct parts kept = {arena_array(arena, parts->count, sizeof *kept.items), 0};
    for (size_t i = 0; i < parts->count; i++) {
        struct part part = parts->items[i];
        if (!redact_keeps_member(event->rules, part.key)) {
            continue;
        }
        if (slice_eq(part.key, LIT("content"))) {
            struct json content = redact_content(arena, event->rules, event->type, event->content);
            part.json = arena_concat(arena, LIT("\"content\":"), json_canonical(arena, &content));
        }
        kept.items[kept.count++] = part;
    }
    buf_init_arena(&out, arena, SIZE_MAX / 2);
    write_parts(&out, &kept);
    return buf_slice(&out);
}

static struct part signature_part(struct arena *arena, const struct json_signer *signer,
                                  struct slice payload)
{
    struct buf out;
    struct ed25519_signature signature = ed25519_sign(signer->key, payload);
    struct slice bytes = {(const char *)signature.bytes, sizeof signature.bytes};
    buf_init_arena(&out, arena, SIZE_MAX / 2);
    struct json_out json = json_out_to(&out);
    json_out_key(&json, LIT("signatures"));
    json_out_object(&json);
    json_out_key_object(&json, signer->server.s);
    json_out_key_string(&json, signer->key_id, base64_encode(arena, bytes, BASE64_STANDARD));
    json_out_object_end(&json);
    json_out_object_end(&json);
    return (struct part){LIT("signatures"), buf_slice(&out)};
}

static struct slice content_of_parts(const struct parts *parts)
{
    for (size_t i = 0; i < parts->count; i++) {
        if (slice_eq(parts->items[i].key, LIT("content"))) {
            return slice_from(parts->items[i].json, sizeof "\"content\":" - 1);
        }
    }
    return (struct slice){0};
}

struct err event_seal(struct arena *arena, const struct room_rules *rules, const struct json *draft,
                      const struct json_signer *signer, struct event *event_out)
{
    const struct slice dropped[] = {LIT("hashes"), LIT("signatures"), LIT("unsigned"),
                                    LIT("event_id")};
    struct json *kept = arena_alloc(arena, sizeof *kept);
    *kept = json_without(arena, draft, dropped, rules->event_format == EVENT_FORMAT_1 ? 3 : 4);
    TRY(event_fill(arena, rules, kept, EVENT_DRAFT, event_out));
    TRY(event_check_reference_counts(event_out));

    struct buf hashed;
    buf_init_arena(&hashed, arena, SIZE_MAX / 2);
    struct parts parts = split_draft(arena, kept, &hashed);
    struct slice hash = hash_text(arena, buf_slice(&hashed), BASE64_STANDARD);
    struct slice hashes =
        arena_printf(arena, "\"hashes\":{\"sha256\":\"%.*s\"}", (int)hash.len, hash.ptr);
    insert_part(&parts, (struct part){LIT("hashes"), hashes});

    struct slice payload = redacted_bytes(arena, event_out, &parts);
    insert_part(&parts, signature_part(arena, signer, payload));

    struct buf whole;
    buf_init_arena(&whole, arena, SIZE_MAX / 2);
    write_parts(&whole, &parts);
    event_out->json = buf_slice(&whole);
    event_out->content_json = content_of_parts(&parts);
    event_out->tree = NULL; /* `kept` lacks hashes and signatures */
    if (rules->event_format != EVENT_FORMAT_1) {
        event_out->id = event_id_of_payload(arena, rules, payload);
    }
    if (!event_out->room_id.s.ptr) {
        event_out->room_id = event_room_of_create(arena, event_out->id);
    }
    return event_check_size(event_out->json);
}

struct err event_add_signature(struct arena *arena, const struct event *event,
                               const struct json_signer *signer, struct event *event_out)
{
    const struct json *tree = event_tree(arena, event);
    struct ed25519_signature signature =
        ed25519_sign(signer->key, event_payload(arena, event->rules, tree));
    struct slice bytes = {(const char *)signature.bytes, sizeof signature.bytes};
    const struct json *all = json_get_object(tree, LIT("signatures"));
    const struct json *own = json_get_object(all, signer->server.s);
    struct json mine = own ? json_without(arena, own, NULL, 0) : json_object();
    struct json signatures = all ? json_without(arena, all, NULL, 0) : json_object();
    struct json *signed_tree = arena_alloc(arena, sizeof *signed_tree);
    json_set(arena, &mine, signer->key_id,
             json_string(base64_encode(arena, bytes, BASE64_STANDARD)));
    json_set(arena, &signatures, signer->server.s, mine);
    *signed_tree = json_without(arena, tree, NULL, 0);
    json_set(arena, signed_tree, LIT("signatures"), signatures);
    return event_parse_tree(arena, event->rules, signed_tree, event_out);
}
