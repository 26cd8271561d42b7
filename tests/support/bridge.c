#include "tests/support/bridge.h"

#include "homeserver/appservice/registrations.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/users.h"

#include <stdio.h>

static void must(struct err err)
{
    if (err.code != 0) {
        fprintf(stderr, "bridge: %s\n", err.text);
    }
    ASSERT(err.code == 0);
}

static void keep(struct bridge *bridge, struct slice id, struct slice body)
{
    for (size_t i = 0; i < bridge->txn_count; i++) {
        if (slice_eq(bridge->txns[i].id, id)) {
            ASSERT(slice_eq(bridge->txns[i].body, body));
            return;
        }
    }
    ASSERT(bridge->txn_count < BRIDGE_TXNS_MAX);
    bridge->txns[bridge->txn_count].id = arena_copy(bridge->arena, id);
    bridge->txns[bridge->txn_count++].body = arena_copy(bridge->arena, body);
}

static struct err fetch(void *arg, struct ctx *ctx, const struct http_fetch_request *request,
                        struct http_fetch_reply *reply_out)
{
    struct bridge *bridge = arg;
    struct slice id = slice_from(request->url, slice_find_last(request->url, '/') + 1);
    (void)ctx;
    atomic_fetch_add(&bridge->calls, 1);
    *reply_out = (struct http_fetch_reply){.status = bridge->status, .body = LIT("{}")};
    if (bridge->status == 0 || (bridge->silent > 0 && bridge->silent-- > 0)) {
        return err_make(ERR_UNAVAILABLE, "the bridge is down");
    }
    pthread_mutex_lock(&bridge->lock);
    bridge->last_url = arena_copy(bridge->arena, request->url);
    if (slice_contains(request->url, LIT("/_matrix/app/v1/transactions/"))) {
        keep(bridge, id, request->body);
    }
    pthread_mutex_unlock(&bridge->lock);
    return OK;
}

static void note_pause(void *arg, int64_t ms)
{
    struct bridge *bridge = arg;
    (void)ms;
    atomic_fetch_add(&bridge->pauses, 1);
}

static struct appservice_table *read_table(struct bridge *bridge, const char *more)
{
    struct appservice_table *table = mem_alloc(sizeof *table);
    struct buf problems;
    table->arena = arena_new();
    table->items = arena_array(table->arena, 1, sizeof *table->items);
    table->count = 1;
    struct as_registration_text from = {
        .text = arena_printf(table->arena,
                             "id: fax\nurl: http://fax.test\nas_token: secret\nhs_token: other\n"
                             "sender_localpart: fax_bot\nnamespaces:\n"
                             "  users: [{exclusive: true, regex: '@fax_.*'}]\n"
                             "  aliases: [{exclusive: true, regex: '#fax_.*'}]\n%s",
                             more),
        .file = LIT("fax.yaml"),
        .server_name = bridge->house->hs.server_name};
    buf_init_arena(&problems, table->arena, 1 << 16);
    must(as_registration_parse(table->arena, &from, &table->items[0], &problems));
    return table;
}

void bridge_start(struct bridge *bridge, const char *more)
{
    struct as_port port = {.fetch = fetch, .arg = bridge, .pause = note_pause};
    struct appservice_table *table = read_table(bridge, more);
    house_settle(bridge->house);
    bridge->house->hs.waiters = workers_new("waiter", 2, 100);
    must(as_new_with(&bridge->house->hs, &port, &table, &bridge->as));
    must(as_prepare(bridge->as));
    must(as_start(bridge->as));
}

void bridge_open(struct bridge *bridge, struct house *house, const char *more)
{
    *bridge = (struct bridge){.house = house, .status = 200};
    pthread_mutex_init(&bridge->lock, NULL);
    bridge->arena = arena_new();
    bridge_start(bridge, more);
    bridge_settle(bridge);
}

static void end(struct bridge *bridge)
{
    workers_free(&bridge->house->hs.waiters);
    as_free(&bridge->as);
}

void bridge_stop(struct bridge *bridge)
{
    as_stop(bridge->as);
    end(bridge);
}

void bridge_crash(struct bridge *bridge)
{
    as_abandon(bridge->as);
    end(bridge);
}

void bridge_close(struct bridge *bridge)
{
    if (bridge->as) {
        bridge_stop(bridge);
    }
    arena_free(&bridge->arena);
    pthread_mutex_destroy(&bridge->lock);
}

void bridge_settle(struct bridge *bridge)
{
    house_settle(bridge->house);
    as_settle(bridge->as);
}

struct json bridge_items(struct bridge *bridge, const char *key)
{
    struct arena *arena = bridge->house->ctx.arena;
    struct json all = json_array();
    pthread_mutex_lock(&bridge->lock);
    for (size_t i = 0; i < bridge->txn_count; i++) {
        struct json body;
        must(json_parse(arena, arena_copy(arena, bridge->txns[i].body), &body));
        const struct json *list = json_get_array(&body, slice_of(key));
        for (uint32_t k = 0; list && k < list->count; k++) {
            json_push(arena, &all, list->items[k]);
        }
    }
    pthread_mutex_unlock(&bridge->lock);
    return all;
}

struct guest bridge_ghost(struct bridge *bridge, const char *name)
{
    struct guest guest = {0};
    struct house *house = bridge->house;
    guest.actor.user_id = arena_printf(house->conf_arena, "@%s:test", name);
    guest.actor.appservice = LIT("fax");
    struct account_draft draft = {.user_id = guest.actor.user_id, .appservice = LIT("fax")};
    must(hs_account_create(&house->hs, &house->ctx, &draft, &guest.actor.user));
    return guest;
}
