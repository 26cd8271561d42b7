#include "federation/join_answer.h"

#include "federation/json_split.h"
#include "homeserver/base/mem.h"

#include <stdlib.h>

enum {
    EVENTS_AT_ONCE = 200,
    EVENTS_PER_REST = 1000,
    SERVERS_MAX = 100000,
    EVENTS_MAX = 5000000,
};

static struct err bad_answer(void)
{
    return err_public(ERR_M_REMOTE, "The other server's answer to the join is not valid.");
}

static struct err read_servers(struct ctx *ctx, struct slice text, struct join_answer *answer)
{
    struct json list;
    TRY(json_parse(ctx->arena, text, &list));
    if (list.type != JSON_ARRAY || list.count > SERVERS_MAX) {
        return bad_answer();
    }
    answer->servers = arena_array(ctx->arena, list.count + 1, sizeof *answer->servers);
    for (uint32_t i = 0; i < list.count; i++) {
        if (list.items[i].type == JSON_STRING && ids_is_server_name(list.items[i].text)) {
            answer->servers[answer->server_count++] = arena_copy(ctx->arena, list.items[i].text);
        }
    }
    return OK;
}

struct err join_answer_parse(struct ctx *ctx, struct slice bytes, struct join_answer *answer_out)
{
    struct json_split split = json_split_object(bytes);
    struct slice key;
    struct slice value;
    *answer_out = (struct join_answer){0};
    while (json_split_member(&split, &key, &value)) {
        if (slice_eq(key, LIT("state")) || slice_eq(key, LIT("pdus"))) {
            answer_out->state = value;
        } else if (slice_eq(key, LIT("auth_chain"))) {
            answer_out->auth_chain = value;
        } else if (slice_eq(key, LIT("event"))) {
            answer_out->event = value;
        } else if (slice_eq(key, LIT("members_omitted"))) {
            answer_out->members_omitted = slice_eq(value, LIT("true"));
        } else if (slice_eq(key, LIT("servers_in_room"))) {
            answer_out->server_count = 0;
            TRY(read_servers(ctx, value, answer_out));
        }
    }
    bool whole = !split.broken && answer_out->state.len && answer_out->auth_chain.len;
    /* Spec: `servers_in_room` is required when members are omitted. */
    bool knows = !answer_out->members_omitted || answer_out->server_count > 0;
    return whole && knows ? OK : bad_answer();
}

struct batch {
    const struct join_answer_reader *reader;
    enum join_answer_part parts[EVENTS_AT_ONCE]; /* of the pdus */
    struct ctx ctx;                              /* its arena is reset after each batch */
    struct json pdus;
};

static struct err hand_over(struct batch *batch)
{
    const struct join_answer_reader *reader = batch->reader;
    struct ctx *ctx = &batch->ctx;
    struct event *events = arena_array(ctx->arena, batch->pdus.count + 1, sizeof *events);
    struct err *verdicts = arena_array(ctx->arena, batch->pdus.count + 1, sizeof *verdicts);
    struct fed_pdus pdus = {
        .rules = reader->rules, .pdus = &batch->pdus, .room_id = reader->room_id};
    TRY(fed_pdus_check(reader->fed, ctx, &pdus, events, verdicts));
    for (uint32_t i = 0; i < batch->pdus.count; i++) {
        if (verdicts[i].code != 0) {
            log_debug(ctx->log, "event_left_out", .room = reader->room_id,
                      .err = slice_of(verdicts[i].text));
            continue;
        }
        TRY(reader->fn(reader->arg, ctx, batch->parts[i], &events[i]));
    }
    return OK;
}

static struct err flush(struct batch *batch)
{
    struct err err = batch->pdus.count ? hand_over(batch) : OK;
    struct ctx *outer = batch->reader->ctx;
    if (err.code != 0) { /* its text may live in the batch */
        err.text = arena_cstr(outer->arena, slice_of(err.text));
    }
    if (batch->ctx.write_ticket > outer->write_ticket) {
        outer->write_ticket = batch->ctx.write_ticket;
    }
    ctx_finish(&batch->ctx);
    batch->ctx.deferred = NULL;
    arena_reset(batch->ctx.arena);
    batch->pdus = json_array();
    return err;
}

/* --- in the order of depth: what an event cites lies less deep than it does --- */

struct item {
    int64_t depth;
    uint64_t place; /* where it begins in the answer, and its part in the lowest bit */
};
struct items {
    struct item *list_owned;
    size_t count, cap;
    struct slice all; /* both arrays and what stands between them */
};

static int64_t depth_of(struct slice pdu)
{
    struct json_split split = json_split_object(pdu);
    struct slice key;
    struct slice value;
    int64_t depth = 0;
    while (json_split_member(&split, &key, &value)) {
        if (slice_eq(key, LIT("depth"))) {
            return slice_parse_i64(value, &depth) ? depth : 0;
        }
    }
    return 0;
}

static void add_item(struct items *items, struct slice text, enum join_answer_part part)
{
    if (items->count == items->cap) {
        items->cap = items->cap ? items->cap + items->cap / 2 : EVENTS_AT_ONCE;
        items->list_owned = mem_grow(items->list_owned, items->cap * sizeof *items->list_owned);
    }
    uint64_t offset = (uint64_t)(text.ptr - items->all.ptr);
    items->list_owned[items->count++] = (struct item){
        .depth = depth_of(text), .place = offset << 1 | (part == JOIN_ANSWER_STATE ? 1 : 0)};
}

static void rest(struct bulk *bulk)
{
    if (bulk) {
        bulk_rest(bulk, bulk->bytes);
    }
}

static struct err list_items(struct items *items, struct slice text, enum join_answer_part part,
                             struct bulk *bulk)
{
    struct json_split split = json_split_array(text);
    struct slice item;
    while (json_split_item(&split, &item)) {
        add_item(items, item, part);
        if (items->count % EVENTS_PER_REST == 0) {
            rest(bulk);
        }
    }
    return split.broken || items->count > EVENTS_MAX ? bad_answer() : OK;
}

/* Equal depths keep their order, which is that of the text. */
static int by_depth(const void *left, const void *right)
{
    const struct item *a = left;
    const struct item *b = right;
    if (a->depth != b->depth) {
        return a->depth < b->depth ? -1 : 1;
    }
    return (a->place > b->place) - (a->place < b->place);
}

static struct err read_items(struct batch *batch, const struct items *items)
{
    for (size_t i = 0; i < items->count; i++) {
        const struct item *item = &items->list_owned[i];
        struct slice text = json_split_value(slice_from(items->all, (size_t)(item->place >> 1)));
        struct json pdu;
        batch->parts[batch->pdus.count] = item->place & 1 ? JOIN_ANSWER_STATE : JOIN_ANSWER_AUTH;
        if (json_parse_deep(batch->ctx.arena, text, &pdu).code == 0) {
            json_push(batch->ctx.arena, &batch->pdus, pdu);
        }
        if (batch->pdus.count == EVENTS_AT_ONCE) {
            TRY(flush(batch));
            rest(batch->reader->bulk);
        }
    }
    return flush(batch);
}

static struct slice both(struct slice a, struct slice b)
{
    const char *from = a.ptr < b.ptr ? a.ptr : b.ptr;
    const char *a_end = a.ptr + a.len;
    const char *b_end = b.ptr + b.len;
    return (struct slice){from, (size_t)((a_end > b_end ? a_end : b_end) - from)};
}

static struct err read_answer(struct batch *batch, struct items *items,
                              const struct join_answer *answer)
{
    struct bulk *bulk = batch->reader->bulk;
    TRY(list_items(items, answer->auth_chain, JOIN_ANSWER_AUTH, bulk));
    TRY(list_items(items, answer->state, JOIN_ANSWER_STATE, bulk));
    if (items->count) {
        qsort(items->list_owned, items->count, sizeof *items->list_owned, by_depth);
    }
    return read_items(batch, items);
}

struct err join_answer_read(const struct join_answer *answer,
                            const struct join_answer_reader *reader)
{
    struct batch batch = {.reader = reader, .ctx = *reader->ctx, .pdus = json_array()};
    struct items items = {.all = both(answer->auth_chain, answer->state)};
    batch.ctx.arena = arena_new();
    batch.ctx.deferred = NULL;
    struct err err = read_answer(&batch, &items, answer);
    arena_free(&batch.ctx.arena);
    mem_free(items.list_owned);
    return err;
}
