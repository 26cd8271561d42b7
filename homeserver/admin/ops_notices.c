/* Notices to one user or to all. */
#include "homeserver/admin/ops_priv.h"
#include "homeserver/service/notices.h"

enum { NOTICES_PAGE = 50 };

static bool takes_notices(const struct hs *hs, const struct account *account)
{
    return !(account->flags & (ACCOUNT_DEACTIVATED | ACCOUNT_GUEST)) &&
           !hs_notice_is_sender(hs, account->user_id) && account->appservice.len == 0;
}

static struct err send_to(struct admin_call *call, const struct account *account,
                          const struct notice *notice)
{
    struct slice event_id;
    if (!takes_notices(call->hs, account)) {
        return OK;
    }
    TRY(hs_notice_send(call->hs, call->ctx, account, notice, &event_id));
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("user_id"), account->user_id);
    json_out_key_string(call->out, LIT("event_id"), event_id);
    json_out_object_end(call->out);
    return OK;
}

/* One page of all numbers of users; *next_out: where the next begins, 0 = nowhere. */
static struct err send_to_page(struct admin_call *call, const struct notice *notice,
                               int64_t *next_out)
{
    struct admin_accounts page;
    TRY(admin_accounts_page(call, NOTICES_PAGE, &page));
    for (size_t i = 0; i < page.count; i++) {
        TRY(send_to(call, &page.items[i], notice));
    }
    *next_out = page.next;
    return OK;
}

struct err admin_notices_send(struct admin_call *call)
{
    struct slice text;
    struct account account;
    int64_t next = 0;
    const struct json *all = json_get(call->args, LIT("all"));
    bool to_all = all && all->type == JSON_BOOL && all->boolean;
    /* `notice send --all TEXT`: the one word is the text. */
    bool is_alone = to_all && !json_get(call->args, LIT("text"));
    TRY(admin_text(call, is_alone ? LIT("user") : LIT("text"), &text));
    struct json content = hs_notice_text(call->ctx->arena, text);
    struct notice notice = {.content = &content};
    json_out_object(call->out);
    json_out_key_array(call->out, LIT("notices"));
    if (to_all) {
        TRY(send_to_page(call, &notice, &next));
    } else {
        TRY(admin_account(call, &account));
        TRY(send_to(call, &account, &notice));
    }
    json_out_array_end(call->out);
    if (next) {
        json_out_key_int(call->out, LIT("next"), next);
    }
    json_out_object_end(call->out);
    return OK;
}
