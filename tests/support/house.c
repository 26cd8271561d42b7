#include "tests/support/house.h"

#include "crypto/signing_key.h"
#include "homeserver/service/delayed.h"
#include "homeserver/service/appservices.h"
#include "homeserver/service/device_keys.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/pushers.h"
#include "homeserver/service/room_create.h"
#include "homeserver/service/to_device.h"
#include "homeserver/service/tokens.h"
#include "homeserver/service/uia.h"
#include "homeserver/service/users.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int64_t wall(void *arg)
{
    return ((struct house *)arg)->wall_ms;
}

static int64_t mono(void *arg)
{
    return ((struct house *)arg)->mono_ms;
}

static void must(struct err err)
{
    if (err.code != 0) {
        fprintf(stderr, "house: %s\n", err.text);
    }
    ASSERT(err.code == 0);
}

static void load_key(struct house *house)
{
    struct hs *hs = &house->hs;
    snprintf(house->folder, sizeof house->folder, "/tmp/myelin-test-XXXXXX");
    ASSERT(mkdtemp(house->folder) != NULL);
    struct slice path = arena_printf(house->conf_arena, "%s/key", house->folder);
    must(signing_key_load(path, &hs->signing_key));
    hs->signer = signing_key_signer(hs->signing_key, ids_trust_server(hs->server_name));
    unlink(path.ptr);
    rmdir(house->folder);
}

void house_open(struct house *house)
{
    house_open_as(house, "test");
}

void house_open_as(struct house *house, const char *name)
{
    struct hs *hs = &house->hs;
    struct store_config config = {.cache_bytes = 8 << 20};
    *house = (struct house){.wall_ms = 1700000000000, .mono_ms = 1000};
    house->conf_arena = arena_new();
    house->now = (struct now){wall, mono, house};
    conf_defaults(house->conf_arena, slice_of(name), &house->conf);
    house->conf.password_hash_cost = CONF_PASSWORD_COST_LOWEST;
    house->ctx = (struct ctx){.arena = arena_new(), .now = &house->now};
    *hs = (struct hs){.server_name = slice_of(name), .conf = &house->conf, .now = &house->now};
    must(store_open(&config, &hs->store));
    must(positions_open(hs->store, &house->ctx, &hs->positions));
    hs->states = state_store_new(hs->store, 8 << 20);
    load_key(house);
    hs->workers = workers_new("test", 2, 1000);
    hs->users = hs_users_new(hs);
    hs->tokens = hs_tokens_new(hs);
    hs->uia = hs_uia_new(hs);
    hs->rooms = hs_rooms_new(hs, 1000);
    hs->keys = hs_keys_new(hs);
    hs->inbox = hs_inbox_new(hs);
    hs->ephemeral = hs_ephemeral_new(hs);
    hs->prefs = hs_prefs_new(hs);
    hs->delayed = hs_delayed_new(hs);
    hs->appservices = hs_appservices_new();
    hs->pushers = hs_pushers_new(hs);
    hs_memberships_hook(hs);
    hs_pushers_hook(hs);
    hs->sync = sync_new(hs);
}

void house_close(struct house *house)
{
    struct hs *hs = &house->hs;
    ctx_finish(&house->ctx);
    workers_join(hs->workers);
    hs_delayed_free(&hs->delayed);
    hs_appservices_free(&hs->appservices);
    hs_pushers_free(&hs->pushers);
    hs_prefs_free(&hs->prefs);
    hs_ephemeral_free(&hs->ephemeral);
    hs_inbox_free(&hs->inbox);
    hs_keys_free(&hs->keys);
    hs_rooms_free(&hs->rooms);
    hs_uia_free(&hs->uia);
    hs_tokens_free(&hs->tokens);
    hs_users_free(&hs->users);
    signing_key_free(&hs->signing_key);
    positions_close(&hs->positions); /* it gives the workers jobs to the end */
    workers_free(&hs->workers);
    sync_free(&hs->sync);
    state_store_free(&hs->states);
    store_close(&hs->store);
    arena_free(&house->ctx.arena);
    arena_free(&house->conf_arena);
}

void house_next_job(struct house *house)
{
    struct arena *arena = house->ctx.arena;
    ctx_finish(&house->ctx);
    arena_reset(arena);
    house->ctx = (struct ctx){.arena = arena, .now = &house->now};
}

void house_settle(struct house *house)
{
    positions_wait(house->hs.positions, positions_newest(house->hs.positions));
}

struct guest house_guest(struct house *house, const char *name)
{
    struct guest guest = {.device_id = LIT("DEVICE")};
    guest.actor.user_id = arena_printf(house->conf_arena, "@%s:%.*s", name,
                                       (int)house->hs.server_name.len, house->hs.server_name.ptr);
    struct account_draft draft = {.user_id = guest.actor.user_id, .password = LIT("secret")};
    must(hs_account_create(&house->hs, &house->ctx, &draft, &guest.actor.user));
    struct sign_in sign_in = {.user = guest.actor.user, .device_id = guest.device_id};
    struct issued_tokens tokens;
    must(hs_token_issue(&house->hs, &house->ctx, &sign_in, &tokens));
    return guest;
}

static struct json parse(struct house *house, const char *text)
{
    struct json json;
    must(json_parse(house->ctx.arena, slice_of(text), &json));
    return json;
}

struct room *house_room(struct house *house, const struct guest *guest, const char *body)
{
    struct json json = parse(house, body);
    struct slice room_id;
    struct room *room = NULL;
    house->wall_ms++; /* the id of a room is the hash of its first event */
    must(hs_room_create(&house->hs, &house->ctx, &guest->actor, &json, &room_id));
    must(hs_room_get_by_id(&house->hs, &house->ctx, room_id, &room));
    return room;
}

void house_member(struct house *house, struct room *room, const struct guest *actor,
                  const struct guest *target, enum membership membership)
{
    struct hs_sent sent;
    struct member_change change = {.target = target->actor.user_id, .membership = membership};
    must(hs_member_set(&house->hs, &house->ctx, room, &actor->actor, &change, &sent));
}

struct slice house_send(struct house *house, struct room *room, const struct guest *guest,
                        const char *type, const char *content)
{
    struct json json = parse(house, content);
    struct hs_sent sent;
    struct send_request request = {.actor = &guest->actor,
                                   .device_id = guest->device_id,
                                   .type = slice_of(type),
                                   .content = &json};
    must(hs_send_message(&house->hs, &house->ctx, room, &request, &sent));
    return sent.event_id;
}

struct slice house_state(struct house *house, struct room *room, const struct guest *guest,
                         const char *type, const char *content)
{
    struct json json = parse(house, content);
    struct hs_sent sent;
    struct send_request request = {.actor = &guest->actor,
                                   .device_id = guest->device_id,
                                   .type = slice_of(type),
                                   .state_key = LIT(""),
                                   .content = &json};
    must(hs_send_state(&house->hs, &house->ctx, room, &request, &sent));
    return sent.event_id;
}

struct slice house_say(struct house *house, struct room *room, const struct guest *guest,
                       const char *text)
{
    return house_send(
        house, room, guest, "m.room.message",
        arena_printf(house->ctx.arena, "{\"msgtype\":\"m.text\",\"body\":\"%s\"}", text).ptr);
}
