/* State and authorisation of rooms for other servers. A large state never stands in memory as a
 * whole: its events are read and written a few at a time.
 * Spec: server-server, "Retrieving events", "Retrieving event authorisation information". */
#include "federation/bulk.h"
#include "federation/in_history.h"

#include <stdlib.h>

enum { EVENTS_AT_ONCE = 200 };

/* What to write: ids alone or whole events. */
enum state_form { STATE_IDS, STATE_EVENTS };

struct state_writer {
    struct history_call *call;
    struct bulk bulk;
    struct json_out out;
    enum state_form form;
    struct event_id *ids; /* of the events written by number */
    size_t id_count;
};

static struct err find_event(struct history_call *call, struct slice event_id,
                             struct stored_event *event_out)
{
    bool found = false;
    TRY(fed_graph_find(call->hs, call->ctx, call->room, event_id, event_out, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "This event is not known in the room.");
    }
    return history_check_event(call, event_out);
}

static void write_one(struct state_writer *w, const struct stored_event *event)
{
    if (w->form == STATE_IDS) {
        json_out_string(&w->out, event->event.id.s);
    } else {
        json_out_raw(&w->out, event->event.json);
    }
}

/* A piece of the state; `ctx` is dropped after it. */
static struct err write_piece(struct state_writer *w, struct ctx *ctx, int64_t *numbers,
                              size_t count)
{
    struct stored_events events;
    struct event_numbers wanted = {numbers, count};
    TRY(hs_events_scan_many(w->call->hs, ctx, w->call->room, wanted, &events));
    for (size_t i = 0; i < events.count; i++) {
        struct slice id = arena_copy(w->call->ctx->arena, events.items[i].event.id.s);
        w->ids[w->id_count++] = ids_trust_event(id);
        write_one(w, &events.items[i]);
    }
    return bulk_settle(&w->bulk);
}

/* What a piece needed is given back; memory stays for the next one. */
static void end_piece(struct ctx *scratch)
{
    ctx_finish(scratch);
    arena_reset(scratch->arena);
}

static int compare_numbers(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

static struct err write_pieces(struct state_writer *w, struct ctx *scratch, int64_t *numbers,
                               size_t count)
{
    for (size_t at = 0; at < count; at += EVENTS_AT_ONCE) {
        size_t left = count - at;
        TRY(write_piece(w, scratch, numbers + at, left < EVENTS_AT_ONCE ? left : EVENTS_AT_ONCE));
        end_piece(scratch);
    }
    return OK;
}

/* The events of a snapshot, by number. */
static struct err write_root(struct state_writer *w, struct ctx *scratch, uint64_t root)
{
    struct history_call *call = w->call;
    struct state_entries entries;
    TRY(state_read(call->hs->states, call->ctx, hs_room_info(call->room).number, root, &entries));
    int64_t *numbers = arena_array(call->ctx->arena, entries.count + 1, sizeof *numbers);
    for (size_t i = 0; i < entries.count; i++) {
        numbers[i] = entries.items[i].event;
    }
    qsort(numbers, entries.count, sizeof *numbers, compare_numbers);
    w->ids = arena_array(call->ctx->arena, entries.count + 1, sizeof *w->ids);
    return write_pieces(w, scratch, numbers, entries.count);
}

static struct err write_by_id(struct state_writer *w, struct ctx *scratch,
                              const struct event_id *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct stored_event event;
        bool found = false;
        if (w->form == STATE_IDS) {
            json_out_string(&w->out, ids[i].s);
        } else {
            TRY(hs_event_find(w->call->hs, scratch, w->call->room, ids[i].s, &event, &found));
            if (found) {
                write_one(w, &event);
            }
        }
        if (i % EVENTS_AT_ONCE == EVENTS_AT_ONCE - 1) {
            end_piece(scratch);
            TRY(bulk_settle(&w->bulk));
        }
    }
    return OK;
}

/* Makes what was written the answer. */
static struct err finish(struct state_writer *w)
{
    struct http_reply *reply = w->call->reply;
    int fd = -1;
    TRY(bulk_take_file(&w->bulk, &fd));
    if (fd < 0) {
        buf_add(&reply->body, buf_slice(&w->bulk.memory));
        return OK;
    }
    reply->file_fd = fd;
    reply->file_bytes = (int64_t)w->bulk.bytes;
    return OK;
}

static struct err write_state(struct state_writer *w, struct ctx *scratch, uint64_t root)
{
    struct history_call *call = w->call;
    struct event_id *chain = NULL;
    size_t count = 0;
    json_out_object(&w->out);
    json_out_key_array(&w->out, w->form == STATE_IDS ? LIT("pdu_ids") : LIT("pdus"));
    TRY(write_root(w, scratch, root));
    json_out_array_end(&w->out);
    /* The chain of the whole state, which may hold events of the state again. */
    TRY(hs_auth_chain(call->hs, call->ctx, call->room, w->ids, w->id_count, &chain, &count));
    json_out_key_array(&w->out, w->form == STATE_IDS ? LIT("auth_chain_ids") : LIT("auth_chain"));
    TRY(write_by_id(w, scratch, chain, count));
    json_out_array_end(&w->out);
    json_out_object_end(&w->out);
    return finish(w);
}

static void begin_writing(struct state_writer *w, struct history_call *call, enum state_form form)
{
    *w = (struct state_writer){.call = call, .form = form};
    bulk_init(&w->bulk, call->hs->conf->data_dir, 0);
    w->out = json_out_to(&w->bulk.memory);
}

static struct err answer_state(struct history_call *call, enum state_form form)
{
    struct state_writer w;
    struct stored_event event;
    struct slice event_id = http_query_get(call->ctx, call->request, LIT("event_id"));
    if (!event_id.ptr) {
        return err_public(ERR_M_MISSING_PARAM, "`event_id` is required.");
    }
    TRY(find_event(call, event_id, &event));
    if (hs_room_is_partial(call->room)) {
        return err_public(ERR_M_FORBIDDEN,
                          "The state of this room is still on its way here; ask another server.");
    }
    if (event.flags & EVENT_PARTIAL) { /* this server left before it was whole */
        return err_public(ERR_M_FORBIDDEN,
                          "The state before this event is not known here; ask another server.");
    }
    struct ctx scratch = *call->ctx;
    scratch.arena = arena_new();
    scratch.deferred = NULL;
    begin_writing(&w, call, form);
    struct err err = write_state(&w, &scratch, event.state_before);
    bulk_deinit(&w.bulk);
    ctx_finish(&scratch);
    arena_free(&scratch.arena);
    return err;
}

struct err history_state(void *app, struct ctx *ctx, const struct http_request *request,
                         struct http_reply *reply)
{
    struct history_call call;
    TRY(history_begin(&call, app, ctx, request, reply));
    return answer_state(&call, STATE_EVENTS);
}

struct err history_state_ids(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct history_call call;
    TRY(history_begin(&call, app, ctx, request, reply));
    return answer_state(&call, STATE_IDS);
}

static struct err write_chain(struct state_writer *w, struct ctx *scratch, struct event_id id)
{
    struct history_call *call = w->call;
    struct event_id *chain = NULL;
    size_t count = 0;
    TRY(hs_auth_chain(call->hs, call->ctx, call->room, &id, 1, &chain, &count));
    json_out_object(&w->out);
    json_out_key_array(&w->out, LIT("auth_chain"));
    TRY(write_by_id(w, scratch, chain, count));
    json_out_array_end(&w->out);
    json_out_object_end(&w->out);
    return finish(w);
}

struct err history_event_auth(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct history_call call;
    struct state_writer w;
    struct stored_event event;
    bool found = false;
    TRY(history_begin(&call, app, ctx, request, reply));
    TRY(hs_event_find(call.hs, ctx, call.room, request->params[1], &event, &found));
    if (!found || (event.flags & EVENT_REJECTED)) {
        return err_public(ERR_M_NOT_FOUND, "This event is not known in the room.");
    }
    TRY((event.flags & EVENT_OUTLIER) ? history_check_resident(&call)
                                      : history_check_event(&call, &event));
    struct ctx scratch = *ctx;
    scratch.arena = arena_new();
    scratch.deferred = NULL;
    begin_writing(&w, &call, STATE_EVENTS);
    struct err err = write_chain(&w, &scratch, event.event.id);
    bulk_deinit(&w.bulk);
    ctx_finish(&scratch);
    arena_free(&scratch.arena);
    return err;
}
