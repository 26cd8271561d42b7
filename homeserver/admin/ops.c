#include "homeserver/admin/ops_priv.h"

#include "crypto/signing_key.h"

static const struct {
    struct slice name;
    admin_fn fn;
} ops[] = {
    {{"users/list", 10}, admin_users_list},
    {{"users/show", 10}, admin_users_show},
    {{"users/create", 12}, admin_users_create},
    {{"users/reset_password", 20}, admin_users_reset_password},
    {{"users/deactivate", 16}, admin_users_deactivate},
    {{"users/lock", 10}, admin_users_lock},
    {{"users/unlock", 12}, admin_users_unlock},
    {{"users/suspend", 13}, admin_users_suspend},
    {{"users/unsuspend", 15}, admin_users_unsuspend},
    {{"users/make_admin", 16}, admin_users_make_admin},
    {{"users/remove_admin", 18}, admin_users_remove_admin},
    {{"devices/list", 12}, admin_devices_list},
    {{"devices/delete", 14}, admin_devices_delete},
    {{"rooms/list", 10}, admin_rooms_list},
    {{"rooms/show", 10}, admin_rooms_show},
    {{"rooms/members", 13}, admin_rooms_members},
    {{"rooms/partial", 13}, admin_rooms_partial},
    {{"rooms/purge", 11}, admin_rooms_purge},
    {{"registration_tokens/list", 24}, admin_tokens_list},
    {{"registration_tokens/create", 26}, admin_tokens_create},
    {{"registration_tokens/delete", 26}, admin_tokens_delete},
    {{"reports/list", 12}, admin_reports_list},
    {{"reports/delete", 14}, admin_reports_delete},
    {{"media/show", 10}, admin_media_show},
    {{"media/quarantine", 16}, admin_media_quarantine},
    {{"media/release", 13}, admin_media_release},
    {{"media/delete", 12}, admin_media_delete},
    {{"media/purge_remote", 18}, admin_media_purge_remote},
    {{"notices/send", 12}, admin_notices_send},
    {{"rotate_key", 10}, admin_rotate_key},
    {{"destinations/list", 17}, admin_destinations_list},
    {{"destinations/refused", 20}, admin_destinations_refused},
    {{"destinations/retry", 18}, admin_destinations_retry},
    {{"appservices/list", 16}, admin_appservices_list},
    {{"appservices/retry", 17}, admin_appservices_retry},
    {{"search/show", 11}, admin_search_show},
    {{"search/rebuild", 14}, admin_search_rebuild},
    {{"backup", 6}, admin_backup},
    {{"stats", 5}, admin_stats},
    {{"compact", 7}, admin_compact},
};

struct err admin_text(struct admin_call *call, struct slice key, struct slice *text_out)
{
    *text_out = json_get_string(call->args, key);
    return text_out->ptr
               ? OK
               : err_publicf(call->ctx->arena, ERR_M_MISSING_PARAM,
                             "The argument `%.*s` is missing or no string.", (int)key.len, key.ptr);
}

struct err admin_int(struct admin_call *call, struct slice key, int64_t least, int64_t fallback,
                     int64_t *value_out)
{
    const struct json *value = json_get(call->args, key);
    *value_out = fallback;
    if (!value) {
        return OK;
    }
    if (value->type != JSON_INT || value->integer < least) {
        return err_publicf(call->ctx->arena, ERR_M_INVALID_PARAM,
                           "The argument `%.*s` must be an integer of at least %lld.", (int)key.len,
                           key.ptr, (long long)least);
    }
    *value_out = value->integer;
    return OK;
}

struct err admin_account(struct admin_call *call, struct account *account_out)
{
    struct slice name;
    struct slice user_id;
    uint64_t user = 0;
    bool found = false;
    TRY(admin_text(call, LIT("user"), &name));
    TRY(hs_user_resolve_login(call->hs, call->ctx, name, &user_id));
    TRY(hs_user_find(call->hs, call->ctx, user_id, &user, &found));
    if (found) {
        TRY(hs_account_get(call->hs, call->ctx, user, account_out, &found));
    }
    return found ? OK
                 : err_publicf(call->ctx->arena, ERR_M_NOT_FOUND, "There is no account %.*s.",
                               (int)user_id.len, user_id.ptr);
}

struct err admin_accounts_page(struct admin_call *call, size_t limit,
                               struct admin_accounts *accounts_out)
{
    struct user_page page;
    int64_t first = 0;
    TRY(admin_int(call, LIT("from"), 0, 0, &first));
    TRY(hs_users_page(call->hs, call->ctx, (uint64_t)first, limit, &page));
    *accounts_out = (struct admin_accounts){
        .items = arena_array(call->ctx->arena, page.count, sizeof *accounts_out->items),
        .next = (int64_t)page.next};
    for (size_t i = 0; i < page.count; i++) {
        bool found = false;
        if (page.items[i].is_local) {
            TRY(hs_account_get(call->hs, call->ctx, page.items[i].number,
                               &accounts_out->items[accounts_out->count], &found));
        }
        accounts_out->count += found ? 1 : 0;
    }
    return OK;
}

/* --- the server as a whole --- */

struct err admin_stats(struct admin_call *call)
{
    struct hs *hs = call->hs;
    struct store_stats stats;
    store_get_stats(hs->store, &stats);
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("version"), LIT(MYELIN_VERSION));
    json_out_key_string(call->out, LIT("server_name"), hs->server_name);
    json_out_key_int(call->out, LIT("position"), (int64_t)positions_newest(hs->positions));
    json_out_key_int(call->out, LIT("store_disk_bytes"), (int64_t)stats.disk_bytes);
    json_out_key_int(call->out, LIT("store_writes"), (int64_t)stats.writes);
    json_out_key_int(call->out, LIT("store_flushes"), (int64_t)stats.flushes);
    json_out_key_int(call->out, LIT("store_writes_pending"), (int64_t)stats.pending);
    json_out_key_int(call->out, LIT("jobs_queued"), (int64_t)workers_queued(hs->workers));
    json_out_object_end(call->out);
    return OK;
}

/* In force from the next start; the present key then counts for the events that it has signed. */
struct err admin_rotate_key(struct admin_call *call)
{
    struct slice dir = call->hs->conf->data_dir;
    if (call->hs->fetcher) { /* what it signed until its stop would come after the key's end */
        return err_public(ERR_M_UNKNOWN_400,
                          "Stop the server first: its key changes with a start.");
    }
    struct slice path = arena_printf(call->ctx->arena, "%.*s/signing.key", (int)dir.len, dir.ptr);
    TRY(signing_key_rotate(path, now_wall_ms(call->ctx->now)));
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("old_key"), signing_key_id(call->hs->signing_key));
    json_out_key_string(call->out, LIT("in_force"), LIT("after the next start"));
    json_out_object_end(call->out);
    return OK;
}

struct err admin_compact(struct admin_call *call)
{
    static const enum store_kind kinds[] = {
#define KIND(letter, name, purpose) STORE_##name,
#include "store/schema.def"
#undef KIND
    };
    struct store_stats before;
    struct store_stats after;
    store_get_stats(call->hs->store, &before);
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        TRY(store_compact(call->hs->store, kinds[i]));
    }
    store_get_stats(call->hs->store, &after);
    json_out_object(call->out);
    json_out_key_int(call->out, LIT("disk_bytes_before"), (int64_t)before.disk_bytes);
    json_out_key_int(call->out, LIT("disk_bytes_after"), (int64_t)after.disk_bytes);
    json_out_object_end(call->out);
    return OK;
}

struct err admin_run(struct hs *hs, struct ctx *ctx, struct slice name, const struct json *args,
                     struct json_out *out)
{
    struct admin_call call = {hs, ctx, args, out};
    for (size_t i = 0; i < COUNT_OF(ops); i++) {
        if (slice_eq(ops[i].name, name)) {
            return ops[i].fn(&call);
        }
    }
    return err_public(ERR_M_UNRECOGNIZED, "There is no such operation.");
}
