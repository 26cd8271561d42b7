/* Application services: what waits for them, and why. */
#include "homeserver/admin/ops_priv.h"
#include "homeserver/appservice/appservice.h"
#include "homeserver/appservice/rows.h"

static struct slice word_of(const struct as_state *state, const struct as_look_at *look, bool waits)
{
    if (look->state.len > 0) {
        return look->state;
    }
    if (state->failed_since_ms) {
        return LIT("failing");
    }
    return waits ? LIT("waiting") : LIT("idle");
}

static struct err write_service(void *arg, struct slice id)
{
    struct admin_call *call = arg;
    struct hs *hs = call->hs;
    struct as_state state;
    struct as_txn txn;
    struct as_look_at look = {0};
    size_t events = 0;
    bool under_way = false;
    TRY(as_state_load(hs, call->ctx, id, &state));
    TRY(as_events_count(hs, call->ctx, id, &events));
    TRY(as_txn_load(hs, call->ctx, id, &txn, &under_way));
    as_look(hs->as, id, &look);
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("id"), id);
    json_out_key_string(call->out, LIT("state"), word_of(&state, &look, events > 0 || under_way));
    json_out_key_int(call->out, LIT("events"), (int64_t)(events + txn.event_count));
    json_out_key_int(call->out, LIT("ephemeral"), (int64_t)look.ephemeral);
    json_out_key_int(call->out, LIT("last_success_ms"), state.last_success_ms);
    json_out_key_int(call->out, LIT("failing_since_ms"), state.failed_since_ms);
    json_out_key_int(call->out, LIT("failures"), state.failures);
    json_out_key_int(call->out, LIT("next_try_ms"), look.next_try_ms);
    json_out_key_string(call->out, LIT("reason"), state.failure);
    json_out_object_end(call->out);
    return OK;
}

/* Of a running server those registered; of a stopped one those that were sent something. */
struct err admin_appservices_list(struct admin_call *call)
{
    const struct appservice_table *table = hs_appservices_table(call->hs);
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("appservices"));
    for (size_t i = 0; i < table->count; i++) {
        TRY(write_service(call, table->items[i].id));
    }
    if (!call->hs->as) {
        TRY(store_each_object(call->hs->store, call->ctx, STORE_APPSERVICE, write_service, call));
    }
    json_out_array_end(call->out);
    json_out_object_end(call->out);
    return OK;
}

struct err admin_appservices_retry(struct admin_call *call)
{
    struct slice id = json_get_string(call->args, LIT("id"));
    bool all = json_get_bool(call->args, LIT("all"), false);
    if (id.len == 0 && !all) {
        return err_public(ERR_M_MISSING_PARAM, "Name an application service, or say --all.");
    }
    if (!call->hs->as) {
        return err_public(ERR_M_UNKNOWN_400,
                          "The server does not run, or has no application services.");
    }
    json_out_object(call->out);
    json_out_key_int(call->out, LIT("retried"),
                     (int64_t)as_retry(call->hs->as, all ? (struct slice){0} : id));
    json_out_object_end(call->out);
    return OK;
}
