/* The operations, one function each, and what they share. */
#pragma once
#include "homeserver/admin/ops.h"
#include "homeserver/service/users.h"

struct admin_call {
    struct hs *hs;
    struct ctx *ctx;
    const struct json *args;
    struct json_out *out;
};
typedef struct err (*admin_fn)(struct admin_call *call);

enum { ADMIN_PAGE = 500 };

/* A string argument that must be there. M_MISSING_PARAM. */
struct err admin_text(struct admin_call *call, struct slice key, struct slice *text_out) MUST_USE;
/* An integer argument of at least `least`. M_INVALID_PARAM. */
struct err admin_int(struct admin_call *call, struct slice key, int64_t least, int64_t fallback,
                     int64_t *value_out) MUST_USE;
/* The account that argument `user` names (localpart or id). M_NOT_FOUND. */
struct err admin_account(struct admin_call *call, struct account *account_out) MUST_USE;

/* The accounts among `limit` numbers of users from argument `from` on. M_INVALID_PARAM. */
struct admin_accounts {
    struct account *items;
    size_t count;
    int64_t next; /* where the next page begins; 0 = there is none */
};
struct err admin_accounts_page(struct admin_call *call, size_t limit,
                               struct admin_accounts *accounts_out) MUST_USE;

struct err admin_users_list(struct admin_call *call) MUST_USE;
struct err admin_users_show(struct admin_call *call) MUST_USE;
struct err admin_users_create(struct admin_call *call) MUST_USE;
struct err admin_users_reset_password(struct admin_call *call) MUST_USE;
struct err admin_users_deactivate(struct admin_call *call) MUST_USE;
struct err admin_users_lock(struct admin_call *call) MUST_USE;
struct err admin_users_unlock(struct admin_call *call) MUST_USE;
struct err admin_users_suspend(struct admin_call *call) MUST_USE;
struct err admin_users_unsuspend(struct admin_call *call) MUST_USE;
struct err admin_users_make_admin(struct admin_call *call) MUST_USE;
struct err admin_users_remove_admin(struct admin_call *call) MUST_USE;
struct err admin_devices_list(struct admin_call *call) MUST_USE;
struct err admin_devices_delete(struct admin_call *call) MUST_USE;
struct err admin_rooms_list(struct admin_call *call) MUST_USE;
struct err admin_rooms_show(struct admin_call *call) MUST_USE;
struct err admin_rooms_members(struct admin_call *call) MUST_USE;
struct err admin_rooms_partial(struct admin_call *call) MUST_USE;
struct err admin_rooms_purge(struct admin_call *call) MUST_USE;
struct err admin_tokens_list(struct admin_call *call) MUST_USE;
struct err admin_tokens_create(struct admin_call *call) MUST_USE;
struct err admin_tokens_delete(struct admin_call *call) MUST_USE;
struct err admin_reports_list(struct admin_call *call) MUST_USE;
struct err admin_reports_delete(struct admin_call *call) MUST_USE;
struct err admin_media_show(struct admin_call *call) MUST_USE;
struct err admin_media_quarantine(struct admin_call *call) MUST_USE;
struct err admin_media_release(struct admin_call *call) MUST_USE;
struct err admin_media_delete(struct admin_call *call) MUST_USE;
struct err admin_media_purge_remote(struct admin_call *call) MUST_USE;
struct err admin_notices_send(struct admin_call *call) MUST_USE;
struct err admin_rotate_key(struct admin_call *call) MUST_USE;
struct err admin_destinations_list(struct admin_call *call) MUST_USE;
struct err admin_destinations_refused(struct admin_call *call) MUST_USE;
struct err admin_destinations_retry(struct admin_call *call) MUST_USE;
struct err admin_appservices_list(struct admin_call *call) MUST_USE;
struct err admin_appservices_retry(struct admin_call *call) MUST_USE;
struct err admin_search_show(struct admin_call *call) MUST_USE;
struct err admin_search_rebuild(struct admin_call *call) MUST_USE;
struct err admin_backup(struct admin_call *call) MUST_USE;
struct err admin_stats(struct admin_call *call) MUST_USE;
struct err admin_compact(struct admin_call *call) MUST_USE;
