/* What users reported. */
#include "homeserver/admin/ops_priv.h"
#include "homeserver/service/reports.h"

static void write_text(struct json_out *out, struct slice key, struct slice text)
{
    if (text.len) {
        json_out_key_string(out, key, text);
    }
}

struct err admin_reports_list(struct admin_call *call)
{
    struct reports reports;
    int64_t from = 0;
    TRY(admin_int(call, LIT("from"), 0, 0, &from));
    TRY(hs_reports_list(call->hs, call->ctx, (uint64_t)from, ADMIN_PAGE, &reports));
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("reports"));
    for (size_t i = 0; i < reports.count; i++) {
        const struct report *report = &reports.items[i];
        json_out_object(call->out);
        json_out_key_int(call->out, LIT("number"), (int64_t)report->number);
        json_out_key_int(call->out, LIT("received_ms"), report->received_ms);
        json_out_key_string(call->out, LIT("reporter"), report->reporter);
        write_text(call->out, LIT("room_id"), report->room_id);
        write_text(call->out, LIT("event_id"), report->event_id);
        write_text(call->out, LIT("user_id"), report->user_id);
        write_text(call->out, LIT("reason"), report->reason);
        json_out_object_end(call->out);
    }
    json_out_array_end(call->out);
    if (reports.count == ADMIN_PAGE) {
        json_out_key_int(call->out, LIT("next"),
                         (int64_t)reports.items[reports.count - 1].number + 1);
    }
    json_out_object_end(call->out);
    return OK;
}

struct err admin_reports_delete(struct admin_call *call)
{
    int64_t number = 0;
    TRY(admin_int(call, LIT("number"), 1, 0, &number));
    TRY(hs_report_delete(call->hs, call->ctx, (uint64_t)number));
    json_out_object(call->out);
    json_out_object_end(call->out);
    return OK;
}
