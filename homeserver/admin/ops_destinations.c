/* Other servers: what waits for them, why, and what they refused. */
#include "homeserver/admin/ops_priv.h"
#include "homeserver/service/destinations.h"

struct listing {
    struct admin_call *call;
    struct slice server; /* this one alone; empty = all that something waits for, or that failed */
};

static struct slice word_of(const struct destination_state *state,
                            const struct destination_live *live, bool waits)
{
    if (live->state.len > 0) {
        return live->state;
    }
    if (state->failed_since_ms) {
        return LIT("failing");
    }
    return waits ? LIT("waiting") : LIT("idle");
}

static struct err write_destination(struct listing *list, struct slice server,
                                    const struct destination_state *state)
{
    struct admin_call *call = list->call;
    struct hs *hs = call->hs;
    struct destination_waiting waiting;
    struct destination_live live = {0};
    TRY(hs_destination_waiting(hs, call->ctx, server, state, &waiting));
    if (hs->outbound) {
        hs->outbound->live(hs, server, &live);
    }
    size_t events = live.events > waiting.txn_events ? live.events : waiting.txn_events;
    bool waits = events + live.edus + waiting.rooms + waiting.edus + waiting.txn_edus > 0;
    if (list->server.len == 0 && !waits && !state->failed_since_ms) {
        return OK;
    }
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("server"), server);
    json_out_key_string(call->out, LIT("state"), word_of(state, &live, waits));
    json_out_key_int(call->out, LIT("events"), (int64_t)events);
    json_out_key_int(call->out, LIT("rooms_behind"), (int64_t)waiting.rooms);
    json_out_key_int(call->out, LIT("edus"), (int64_t)(waiting.edus + live.edus));
    json_out_key_int(call->out, LIT("last_success_ms"), state->last_success_ms);
    json_out_key_int(call->out, LIT("failing_since_ms"), state->failed_since_ms);
    json_out_key_int(call->out, LIT("failures"), state->failures);
    json_out_key_int(call->out, LIT("next_try_ms"), state->next_try_ms);
    json_out_key_string(call->out, LIT("reason"), state->failure);
    json_out_object_end(call->out);
    return OK;
}

static struct err visit(void *arg, struct slice server)
{
    struct listing *list = arg;
    struct destination_state state;
    bool found = false;
    TRY(hs_destination_load(list->call->hs, list->call->ctx, server, &state, &found));
    return write_destination(list, server, &state);
}

struct err admin_destinations_list(struct admin_call *call)
{
    struct listing list = {.call = call, .server = json_get_string(call->args, LIT("server"))};
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("destinations"));
    if (list.server.len > 0) {
        TRY(visit(&list, list.server));
    } else {
        TRY(store_each_object(call->hs->store, call->ctx, STORE_DESTINATION, visit, &list));
    }
    json_out_array_end(call->out);
    json_out_object_end(call->out);
    return OK;
}

static struct err write_refused(void *arg, struct slice server)
{
    struct listing *list = arg;
    struct json_out *out = list->call->out;
    struct destination_refused *items = NULL;
    size_t count = 0;
    TRY(hs_destination_refusals(list->call->hs, list->call->ctx, server, &items, &count));
    for (size_t i = 0; i < count; i++) {
        json_out_object(out);
        json_out_key_string(out, LIT("server"), server);
        json_out_key_int(out, LIT("refused_ms"), items[i].ts_ms);
        json_out_key_string(out, LIT("what"), items[i].what);
        json_out_key_string(out, LIT("room_id"), items[i].room_id);
        json_out_key_string(out, LIT("reason"), items[i].reason);
        json_out_object_end(out);
    }
    return OK;
}

struct err admin_destinations_refused(struct admin_call *call)
{
    struct listing list = {.call = call, .server = json_get_string(call->args, LIT("server"))};
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("refused"));
    if (list.server.len > 0) {
        TRY(write_refused(&list, list.server));
    } else {
        TRY(store_each_object(call->hs->store, call->ctx, STORE_DESTINATION, write_refused, &list));
    }
    json_out_array_end(call->out);
    json_out_object_end(call->out);
    return OK;
}

struct err admin_destinations_retry(struct admin_call *call)
{
    struct slice server = json_get_string(call->args, LIT("server"));
    bool all = json_get_bool(call->args, LIT("all"), false);
    if (server.len == 0 && !all) {
        return err_public(ERR_M_MISSING_PARAM, "Name a server, or say --all.");
    }
    if (!call->hs->outbound) {
        return err_public(ERR_M_UNKNOWN_400, "The server does not run, or does not federate.");
    }
    int64_t count = (int64_t)call->hs->outbound->retry(call->hs, all ? (struct slice){0} : server);
    json_out_object(call->out);
    json_out_key_int(call->out, LIT("retried"), count);
    json_out_object_end(call->out);
    return OK;
}
