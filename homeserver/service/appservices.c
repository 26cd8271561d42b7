#include "homeserver/service/appservices.h"

#include "crypto/token.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/users.h"

#include <stdatomic.h>

struct hs_appservices {
    struct appservice_table *_Atomic table;
    struct hs_appservice_port port; /* constant once requests arrive */
    _Atomic uint64_t alias_changes;
};

static const struct appservice_table none = {0};

static void free_patterns(const struct appservice_namespaces *namespaces)
{
    for (size_t i = 0; i < namespaces->count; i++) {
        pattern_free(&namespaces->items[i].pattern);
    }
}

void hs_appservice_table_free(struct appservice_table **table)
{
    while (*table) {
        struct appservice_table *t = *table;
        for (size_t i = 0; i < t->count; i++) {
            free_patterns(&t->items[i].users);
            free_patterns(&t->items[i].aliases);
            free_patterns(&t->items[i].rooms);
        }
        *table = t->older;
        arena_free(&t->arena);
        mem_free(t);
    }
}

struct hs_appservices *hs_appservices_new(void)
{
    return mem_alloc(sizeof(struct hs_appservices));
}

void hs_appservices_free(struct hs_appservices **services)
{
    if (*services) {
        struct appservice_table *table = atomic_load(&(*services)->table);
        hs_appservice_table_free(&table);
        mem_free(*services);
        *services = NULL;
    }
}

void hs_appservices_replace(struct hs *hs, struct appservice_table **table)
{
    ASSERT((*table)->count <= APPSERVICES_MAX);
    (*table)->older = atomic_load(&hs->appservices->table);
    atomic_store(&hs->appservices->table, *table);
    *table = NULL;
}

void hs_appservices_set_port(struct hs *hs, const struct hs_appservice_port *port)
{
    hs->appservices->port = *port;
}

const struct appservice_table *hs_appservices_table(const struct hs *hs)
{
    const struct appservice_table *table =
        hs->appservices ? atomic_load(&hs->appservices->table) : NULL;
    return table ? table : &none;
}

const struct appservice *hs_appservice_by_token(const struct hs *hs, struct slice as_token)
{
    const struct appservice_table *table = hs_appservices_table(hs);
    const struct appservice *found = NULL;
    if (table->count == 0 || as_token.len == 0) {
        return NULL;
    }
    struct sha256 hash = token_hash(as_token);
    for (size_t i = 0; i < table->count; i++) {
        if (token_eq(sha256_slice(&hash), sha256_slice(&table->items[i].as_token_hash))) {
            found = &table->items[i];
        }
    }
    return found;
}

const struct appservice *hs_appservice_by_id(const struct hs *hs, struct slice id)
{
    const struct appservice_table *table = hs_appservices_table(hs);
    for (size_t i = 0; i < table->count && id.len > 0; i++) {
        if (slice_eq(table->items[i].id, id)) {
            return &table->items[i];
        }
    }
    return NULL;
}

/* --- names --- */

enum wanted { ANY, EXCLUSIVE };

static bool matches(const struct appservice_namespaces *namespaces, struct slice name,
                    enum wanted wanted)
{
    for (size_t i = 0; i < namespaces->count; i++) {
        const struct appservice_namespace *one = &namespaces->items[i];
        if ((wanted == ANY || one->is_exclusive) && pattern_matches_start(one->pattern, name)) {
            return true;
        }
    }
    return false;
}

bool hs_appservice_has_user(const struct hs *hs, const struct appservice *service,
                            struct slice user_id)
{
    return hs_user_is_local(hs, user_id) &&
           (slice_eq(service->sender, user_id) || matches(&service->users, user_id, ANY));
}

bool hs_appservice_owns_user(const struct hs *hs, const struct appservice *service,
                             struct slice user_id)
{
    return hs_user_is_local(hs, user_id) &&
           (slice_eq(service->sender, user_id) || matches(&service->users, user_id, EXCLUSIVE));
}

static bool is_local_alias(const struct hs *hs, struct slice alias)
{
    return ids_is_alias(alias) && hs_is_local(hs, ids_alias_domain(ids_trust_alias(alias)).s);
}

bool hs_appservice_has_alias(const struct hs *hs, const struct appservice *service,
                             struct slice alias)
{
    return is_local_alias(hs, alias) && matches(&service->aliases, alias, ANY);
}

bool hs_appservice_has_room(const struct appservice *service, struct slice room_id)
{
    return matches(&service->rooms, room_id, ANY);
}

struct err hs_appservice_check_user(const struct hs *hs, struct slice by, struct slice user_id)
{
    const struct appservice_table *table = hs_appservices_table(hs);
    const struct appservice *self = hs_appservice_by_id(hs, by);
    if (self && !hs_appservice_has_user(hs, self, user_id)) {
        return err_public(ERR_M_EXCLUSIVE, "This user is in no namespace of the application "
                                           "service; name it in the registration.");
    }
    for (size_t i = 0; i < table->count; i++) {
        if (&table->items[i] != self && hs_appservice_owns_user(hs, &table->items[i], user_id)) {
            return err_public(ERR_M_EXCLUSIVE,
                              "This user name is reserved for an application service; choose "
                              "another one.");
        }
    }
    return OK;
}

struct err hs_appservice_check_alias(const struct hs *hs, struct slice by, struct slice alias)
{
    const struct appservice_table *table = hs_appservices_table(hs);
    const struct appservice *self = hs_appservice_by_id(hs, by);
    if (self && !hs_appservice_has_alias(hs, self, alias)) {
        return err_public(ERR_M_EXCLUSIVE, "This alias is in no namespace of the application "
                                           "service; name it in the registration.");
    }
    for (size_t i = 0; i < table->count; i++) {
        if (&table->items[i] != self && matches(&table->items[i].aliases, alias, EXCLUSIVE)) {
            return err_public(ERR_M_EXCLUSIVE, "This alias is reserved for an application "
                                               "service; choose another one.");
        }
    }
    return OK;
}

/* --- what only they know --- */

static struct err find_account(struct hs *hs, struct ctx *ctx, struct slice user_id,
                               uint64_t *user_out, uint32_t *flags_out, bool *found_out)
{
    TRY(hs_user_find(hs, ctx, user_id, user_out, found_out));
    return *found_out ? hs_account_flags(hs, ctx, *user_out, flags_out, found_out) : OK;
}

struct err hs_appservices_find_user(struct hs *hs, struct ctx *ctx, struct slice user_id,
                                    uint64_t *user_out, bool *found_out)
{
    uint32_t flags = 0;
    bool made = false;
    TRY(find_account(hs, ctx, user_id, user_out, &flags, found_out));
    if (!*found_out && hs->appservices && hs->appservices->port.ask_user) {
        TRY(hs->appservices->port.ask_user(hs, ctx, user_id, &made));
    }
    if (made) {
        TRY(find_account(hs, ctx, user_id, user_out, &flags, found_out));
    }
    *found_out = *found_out && !(flags & ACCOUNT_DEACTIVATED);
    return OK;
}

struct err hs_appservices_ask_alias(struct hs *hs, struct ctx *ctx, struct slice alias,
                                    bool *made_out)
{
    *made_out = false;
    return hs->appservices && hs->appservices->port.ask_alias && is_local_alias(hs, alias)
               ? hs->appservices->port.ask_alias(hs, ctx, alias, made_out)
               : OK;
}

void hs_appservice_seen(struct hs *hs, const struct appservice *service)
{
    if (hs->appservices->port.seen) {
        hs->appservices->port.seen(hs, service);
    }
}

uint64_t hs_appservices_alias_changes(const struct hs *hs)
{
    return hs->appservices ? atomic_load(&hs->appservices->alias_changes) : 0;
}

void hs_appservices_alias_changed(struct hs *hs)
{
    if (hs->appservices) {
        atomic_fetch_add(&hs->appservices->alias_changes, 1);
    }
}
