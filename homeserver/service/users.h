/* Users and accounts. Every user id that this server meets, local or remote, has a number; the
 * numbers stand in (STORE_USER_IDS, ""). A local user who registered has an account record in
 * (STORE_USER, number). Records change in the account's lane; the functions enter it themselves.
 * Spec: client-server, "Account registration". */
#pragma once
#include "homeserver/service/hs.h"

/* Jobs that may wait for a password hash beside those that compute one. Each holds a worker, so
 * there must be that many workers more than other work needs. */
enum { HS_PASSWORD_WAITING_MAX = 16 };

/* Starts the caches; `hs` must outlive it. */
struct hs_users *hs_users_new(struct hs *hs);
void hs_users_free(struct hs_users **users);

/* --- numbers --- */
struct err hs_user_find(struct hs *hs, struct ctx *ctx, struct slice user_id, uint64_t *number_out,
                        bool *found_out) MUST_USE;
/* The number of a user id; a new one when it is met for the first time. The id must be valid. */
struct err hs_user_intern(struct hs *hs, struct ctx *ctx, struct slice user_id,
                          uint64_t *number_out) MUST_USE;
/* The user id of a number, in the arena. ERR_CORRUPT when there is none. */
struct err hs_user_id_of(struct hs *hs, struct ctx *ctx, uint64_t number,
                         struct slice *user_id_out) MUST_USE;
bool hs_user_is_local(const struct hs *hs, struct slice user_id);
/* Users by their numbers, from `from` on, `limit` at most; remote ones among them. */
struct numbered_user {
    uint64_t number;
    struct slice user_id;
    bool is_local;
};
struct user_page {
    struct numbered_user *items;
    size_t count;
    uint64_t next; /* where the next page begins; 0 = there is none */
};
struct err hs_users_page(struct hs *hs, struct ctx *ctx, uint64_t from, size_t limit,
                         struct user_page *page_out) MUST_USE;

/* --- accounts --- */
enum account_flag {
    ACCOUNT_ADMIN = 1,
    ACCOUNT_GUEST = 2,
    ACCOUNT_DEACTIVATED = 4,
    ACCOUNT_LOCKED = 8,
    ACCOUNT_SUSPENDED = 16,
    ACCOUNT_ERASED = 32, /* deactivated, and asked for erasure */
};
struct account {
    uint64_t user;
    struct slice user_id;
    uint32_t flags; /* enum account_flag, settings' admins included */
    int64_t created_ms;
    struct slice password_hash; /* empty = cannot sign in with a password */
    struct slice appservice;    /* the application service that made it; empty = none */
};
struct err hs_account_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                          struct account *account_out, bool *found_out) MUST_USE;
/* Flags of an account from memory; 0 and found false for users without an account. */
struct err hs_account_flags(struct hs *hs, struct ctx *ctx, uint64_t user, uint32_t *flags_out,
                            bool *found_out) MUST_USE;

struct account_draft {
    struct slice user_id;      /* valid and local */
    struct slice password;     /* ptr NULL = none */
    struct slice display_name; /* ptr NULL = none */
    uint32_t flags;
    struct slice appservice;
};
/* M_USER_IN_USE when the account exists (a deactivated one still does). */
struct err hs_account_create(struct hs *hs, struct ctx *ctx, const struct account_draft *draft,
                             uint64_t *user_out) MUST_USE;
/* Takes back an account that was made just now and that nobody can have used. */
struct err hs_account_withdraw(struct hs *hs, struct ctx *ctx, uint64_t user) MUST_USE;
/* Whether the password is right; takes as long for accounts that do not exist. ERR_UNAVAILABLE
 * when too many checks are running. */
struct err hs_account_check_password(struct hs *hs, struct ctx *ctx, uint64_t user,
                                     struct slice password, bool *right_out) MUST_USE;
struct err hs_account_set_password(struct hs *hs, struct ctx *ctx, uint64_t user,
                                   struct slice password) MUST_USE;
/* Sets the flags of `mask` to those of `flags`. */
struct err hs_account_set_flags(struct hs *hs, struct ctx *ctx, uint64_t user, uint32_t mask,
                                uint32_t flags) MUST_USE;
/* Ends the account: no password, no devices, no profile, and what the hooks do (leaving rooms).
 * What has begun is noted in (STORE_SERVER, "deactivations") and finished at the next start, or by
 * another call, when it did not come to an end. */
enum account_erasure { ACCOUNT_KEEP_CONTENT, ACCOUNT_ERASE };
struct err hs_account_deactivate(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 enum account_erasure erasure) MUST_USE;
/* Finishes what was interrupted; before requests arrive. */
struct err hs_deactivations_finish(struct hs *hs, struct ctx *ctx) MUST_USE;

/* Called after an account was deactivated, in no lane. Register before requests arrive. */
typedef struct err (*hs_deactivated_fn)(struct hs *hs, struct ctx *ctx, uint64_t user,
                                        struct slice user_id);
void hs_on_deactivated(struct hs *hs, hs_deactivated_fn fn);

/* Enters and leaves the lane of an account; in no other lane. */
void hs_user_lane_enter(struct hs *hs, uint64_t user);
void hs_user_lane_leave(struct hs *hs, uint64_t user);

/* The user id that a client means by a name: a full id or a localpart. M_INVALID_USERNAME when
 * no account of this server could be called so. Upper case is folded when the exact id is unknown.
 */
struct err hs_user_resolve_login(struct hs *hs, struct ctx *ctx, struct slice name,
                                 struct slice *user_id_out) MUST_USE;
