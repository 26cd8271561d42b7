#include "homeserver/service/invite_filter.h"

#include "homeserver/room/glob.h"
#include "homeserver/service/notices.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/users.h"

struct list {
    struct slice name;
    enum { MATCH_USER, MATCH_SERVER } by;
    enum invite_verdict verdict;
};

/* MSC4155: the first list that the sender is on decides. */
static const struct list lists[] = {
    {{"allowed_users", 13}, MATCH_USER, INVITE_ALLOWED},
    {{"ignored_users", 13}, MATCH_USER, INVITE_IGNORED},
    {{"blocked_users", 13}, MATCH_USER, INVITE_BLOCKED},
    {{"allowed_servers", 15}, MATCH_SERVER, INVITE_ALLOWED},
    {{"ignored_servers", 15}, MATCH_SERVER, INVITE_IGNORED},
    {{"blocked_servers", 15}, MATCH_SERVER, INVITE_BLOCKED},
};

/* The sender's server, without its port, as in server ACLs; empty for what is no user id. */
static struct slice host_of(struct slice inviter)
{
    uint16_t port = 0;
    return ids_is_user(inviter) ? ids_server_host(ids_user_domain(ids_trust_user(inviter)), &port)
                                : (struct slice){0};
}

static bool is_text_list(const struct json *value)
{
    if (value->type != JSON_ARRAY) {
        return false;
    }
    for (uint32_t i = 0; i < value->count; i++) {
        if (value->items[i].type != JSON_STRING) {
            return false;
        }
    }
    return true;
}

/* A member that is no list of texts makes the whole setting void; null counts as left out. */
static bool is_valid(const struct json *config)
{
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        const struct json *value = json_get(config, lists[i].name);
        if (value && value->type != JSON_NULL && !is_text_list(value)) {
            return false;
        }
    }
    return true;
}

static bool is_listed(const struct json *config, const struct list *list, struct slice text)
{
    const struct json *patterns = json_get_array(config, list->name);
    for (uint32_t i = 0; patterns && i < patterns->count; i++) {
        if (glob_matches(patterns->items[i].text, text)) {
            return true;
        }
    }
    return false;
}

static enum invite_verdict verdict_of_lists(const struct json *config, struct slice inviter)
{
    const struct json *enabled = json_get(config, LIT("enabled"));
    struct slice server = host_of(inviter);
    if (!is_valid(config) || (enabled && enabled->type == JSON_BOOL && !enabled->boolean)) {
        return INVITE_ALLOWED;
    }
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        if (is_listed(config, &lists[i], lists[i].by == MATCH_USER ? inviter : server)) {
            return lists[i].verdict;
        }
    }
    return INVITE_ALLOWED;
}

/* Spec: `default_action` block: no invites at all. */
static enum invite_verdict verdict_of_default(const struct json *config, struct slice inviter)
{
    (void)inviter;
    return json_is_string(json_get(config, LIT("default_action")), LIT("block")) ? INVITE_BLOCKED
                                                                                 : INVITE_ALLOWED;
}

static const struct {
    struct slice type; /* of account data */
    enum invite_verdict (*verdict)(const struct json *config, struct slice inviter);
} settings[] = {
    {{"m.invite_permission_config", 26}, verdict_of_default},
    {{"org.matrix.msc4380.invite_permission_config", 43}, verdict_of_default},
    {{"org.matrix.msc4155.invite_permission_config", 43}, verdict_of_lists},
};

struct err hs_invite_verdict(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice inviter,
                             enum invite_verdict *verdict_out)
{
    *verdict_out = INVITE_ALLOWED;
    if (hs_notice_is_sender(hs, inviter)) {
        return OK; /* what the operator has to say reaches everybody */
    }
    for (size_t i = 0; i < COUNT_OF(settings) && *verdict_out == INVITE_ALLOWED; i++) {
        struct slice content;
        struct json config;
        bool found = false;
        TRY(hs_account_data_get(hs, ctx, user, 0, settings[i].type, &content, &found));
        if (found) {
            TRY(json_parse(ctx->arena, content, &config));
            *verdict_out = settings[i].verdict(&config, inviter);
        }
    }
    return OK;
}

struct err hs_invite_permission(struct hs *hs, struct ctx *ctx, struct slice user_id,
                                struct slice inviter)
{
    uint64_t user = 0;
    bool found = false;
    enum invite_verdict verdict = INVITE_ALLOWED;
    if (hs_user_is_local(hs, user_id)) {
        TRY(hs_user_find(hs, ctx, user_id, &user, &found));
    }
    if (found) {
        TRY(hs_invite_verdict(hs, ctx, user, inviter, &verdict));
    }
    return verdict == INVITE_BLOCKED
               ? err_public(ERR_M_INVITE_BLOCKED, "This user does not accept this invite.")
               : OK;
}

struct err hs_invite_is_hidden(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice inviter,
                               bool *hidden_out)
{
    enum invite_verdict verdict = INVITE_ALLOWED;
    TRY(hs_invite_verdict(hs, ctx, user, inviter, &verdict));
    *hidden_out = verdict != INVITE_ALLOWED;
    return *hidden_out || !inviter.ptr || hs_notice_is_sender(hs, inviter)
               ? OK
               : hs_is_ignored(hs, ctx, user, inviter, hidden_out);
}
