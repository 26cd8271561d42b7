/* Users of a scene: registration by whatever way the server offers, further devices by login. */
#include "tools/myelin-conform/stage.h"
#include "tools/myelin-conform/keys.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

static struct actor *find_actor(struct stage *stage, struct slice name)
{
    for (size_t i = 0; i < stage->actor_count; i++) {
        if (slice_eq(stage->actors[i].name, name)) {
            return &stage->actors[i];
        }
    }
    return NULL;
}

static void publish(struct stage *stage, struct slice name, const char *field, struct slice value)
{
    struct slice full = arena_concat(stage->arena, name, slice_of(field));
    vars_set(&stage->vars, full, json_string(value));
}

struct err stage_adopt(struct stage *stage, struct slice name, const struct json *session)
{
    struct slice user_id = json_get_string(session, LIT("user_id"));
    struct slice token = json_get_string(session, LIT("access_token"));
    if (!user_id.ptr || !token.ptr) {
        return err_publicf(stage->arena, ERR_SYNTAX, "no session for %.*s in: %.*s", (int)name.len,
                           name.ptr, (int)stage->answer.body.len, stage->answer.body.ptr);
    }
    struct actor *actor = find_actor(stage, name);
    if (!actor) {
        stage->actors = arena_grow(stage->arena, stage->actors, stage->actor_count * sizeof *actor,
                                   (stage->actor_count + 1) * sizeof *actor);
        actor = &stage->actors[stage->actor_count++];
    }
    struct slice localpart;
    slice_cut(slice_from(user_id, 1), ':', &localpart);
    *actor = (struct actor){.name = name,
                            .user_id = user_id,
                            .token = token,
                            .device_id = json_get_string(session, LIT("device_id")),
                            .password = json_get_string(session, LIT("password"))};
    publish(stage, name, "", user_id);
    publish(stage, name, ".name", localpart);
    publish(stage, name, ".device", actor->device_id);
    publish(stage, name, ".token", token);
    publish(stage, name, ".password", actor->password);
    return OK;
}

struct err stage_ask_json(struct stage *stage, const char *method, const char *path,
                          const struct json *body)
{
    struct ask ask = {.method = slice_of(method), .url = slice_of(path), .has_body = body != NULL};
    if (body) {
        ask.body = json_canonical(stage->arena, body);
    }
    return stage_ask(stage, &ask);
}

/* Completes the stages that a program can complete; false when another one is asked for. */
static bool next_auth(struct stage *stage, const struct json *answer, struct json *auth_out)
{
    const struct json *flows = json_get_array(answer, LIT("flows"));
    const struct json *done = json_get_array(answer, LIT("completed"));
    size_t done_count = done ? done->count : 0;
    struct arena *arena = stage->arena;
    for (size_t i = 0; flows && i < flows->count; i++) {
        const struct json *stages = json_get_array(&flows->items[i], LIT("stages"));
        if (!stages || stages->count <= done_count) {
            continue;
        }
        struct slice type = stages->items[done_count].text;
        bool is_token = slice_eq(type, LIT("m.login.registration_token"));
        bool can = slice_eq(type, LIT("m.login.dummy")) || slice_eq(type, LIT("m.login.terms")) ||
                   (is_token && stage->target->registration_token.len > 0);
        if (!can) {
            continue;
        }
        *auth_out = json_object();
        json_set(arena, auth_out, LIT("type"), json_string(type));
        json_set(arena, auth_out, LIT("session"),
                 json_string(json_get_string(answer, LIT("session"))));
        if (is_token) {
            json_set(arena, auth_out, LIT("token"), json_string(stage->target->registration_token));
        }
        return true;
    }
    return false;
}

static struct err register_openly(struct stage *stage, struct json body)
{
    const char *path = "/_matrix/client/v3/register";
    TRY(stage_ask_json(stage, "POST", path, &body));
    for (int round = 0; round < 5 && stage->answer.status == 401; round++) {
        struct json auth;
        if (!stage->answer.is_json || !next_auth(stage, &stage->answer.json, &auth)) {
            return err_public(ERR_UNAVAILABLE, "registration wants a stage that is no use here: "
                                               "give --registration-token or --shared-secret");
        }
        json_set(stage->arena, &body, LIT("auth"), auth);
        TRY(stage_ask_json(stage, "POST", path, &body));
    }
    return OK;
}

/* The administration call that takes a nonce and an HMAC-SHA1 under the shared secret. */
static struct err register_by_secret(struct stage *stage, struct json body)
{
    const char *path = "/_synapse/admin/v1/register";
    struct arena *arena = stage->arena;
    TRY(stage_ask_json(stage, "GET", path, NULL));
    struct slice nonce = json_get_string(&stage->answer.json, LIT("nonce"));
    struct slice user = json_get_string(&body, LIT("username"));
    struct slice password = json_get_string(&body, LIT("password"));
    struct buf text;
    buf_init_arena(&text, arena, 4096);
    buf_add(&text, nonce);
    buf_add_byte(&text, '\0');
    buf_add(&text, user);
    buf_add_byte(&text, '\0');
    buf_add(&text, password);
    buf_add_byte(&text, '\0');
    buf_add(&text, LIT("notadmin"));
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;
    struct slice secret = stage->target->shared_secret;
    HMAC(EVP_sha1(), secret.ptr, (int)secret.len, (const unsigned char *)text.ptr, text.len, mac,
         &mac_len);
    struct buf hex;
    buf_init_arena(&hex, arena, 4096);
    for (unsigned i = 0; i < mac_len; i++) {
        buf_printf(&hex, "%02x", mac[i]);
    }
    json_set(arena, &body, LIT("nonce"), json_string(nonce));
    json_set(arena, &body, LIT("mac"), json_string(buf_slice(&hex)));
    json_set(arena, &body, LIT("admin"), json_bool(false));
    return stage_ask_json(stage, "POST", path, &body);
}

struct err stage_register(struct stage *stage, struct slice name)
{
    struct arena *arena = stage->arena;
    struct slice random = keys_random_hex(arena, 5);
    struct slice username =
        arena_printf(arena, "%.*s-%.*s", (int)name.len, name.ptr, (int)random.len, random.ptr);
    struct slice password = arena_concat(arena, LIT("Zq7!"), keys_random_hex(arena, 12));
    struct json body = json_object();
    json_set(arena, &body, LIT("username"), json_string(username));
    json_set(arena, &body, LIT("password"), json_string(password));
    if (stage->target->shared_secret.len > 0) {
        TRY(register_by_secret(stage, body));
    } else {
        TRY(register_openly(stage, body));
    }
    struct json session = stage->answer.json;
    if (stage->answer.is_json && session.type == JSON_OBJECT) {
        json_set(arena, &session, LIT("password"), json_string(password));
    }
    return stage_adopt(stage, name, &session);
}

static struct err log_in(struct stage *stage, struct slice name, const struct actor *user)
{
    struct arena *arena = stage->arena;
    struct slice password = user->password;
    struct json identifier = json_object();
    struct json body = json_object();
    json_set(arena, &identifier, LIT("type"), json_string(LIT("m.id.user")));
    json_set(arena, &identifier, LIT("user"), json_string(user->user_id));
    json_set(arena, &body, LIT("type"), json_string(LIT("m.login.password")));
    json_set(arena, &body, LIT("identifier"), identifier);
    json_set(arena, &body, LIT("password"), json_string(password));
    TRY(stage_ask_json(stage, "POST", "/_matrix/client/v3/login", &body));
    struct json session = stage->answer.json;
    if (stage->answer.is_json && session.type == JSON_OBJECT) {
        json_set(arena, &session, LIT("password"), json_string(password));
    }
    return stage_adopt(stage, name, &session);
}

struct err stage_actor(struct stage *stage, struct slice name, struct actor **actor_out)
{
    static const struct slice nobody = LIT("nobody");
    *actor_out = NULL;
    if (slice_eq(name, nobody)) {
        return OK;
    }
    *actor_out = find_actor(stage, name);
    if (*actor_out) {
        return OK;
    }
    struct slice user;
    slice_cut(name, '/', &user);
    struct actor *owner = find_actor(stage, user);
    if (!owner) {
        return err_publicf(stage->arena, ERR_SYNTAX, "nobody is called %.*s", (int)user.len,
                           user.ptr);
    }
    TRY(log_in(stage, name, owner));
    *actor_out = find_actor(stage, name);
    return OK;
}
