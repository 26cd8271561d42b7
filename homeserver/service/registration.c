#include "homeserver/service/registration.h"

#include "homeserver/service/registration_tokens.h"

static struct err use_token(struct hs *hs, struct ctx *ctx, struct slice token)
{
    bool used = true;
    if (token.ptr) {
        TRY(hs_registration_token_use(hs, ctx, token, &used));
    }
    return used ? OK : err_public(ERR_M_UNAUTHORIZED, "The registration token has been used up.");
}

static void warn(struct hs *hs, struct slice user_id, struct err err)
{
    if (err.code != 0) {
        log_warn(hs->log, "registration_left_over", .user = user_id, .err = slice_of(err.text));
    }
}

/* The flag goes last: until then the guest can try again. */
static struct err promote(struct hs *hs, struct ctx *ctx, const struct registration *registration,
                          struct issued_tokens *tokens_out)
{
    struct sign_in session = registration->session;
    session.user = registration->guest;
    TRY(hs_account_set_password(hs, ctx, session.user, registration->draft.password));
    if (registration->kind == REGISTRATION_WITH_SESSION) {
        TRY(hs_token_issue(hs, ctx, &session, tokens_out));
    }
    return hs_account_set_flags(hs, ctx, session.user, ACCOUNT_GUEST, 0);
}

static struct err make(struct hs *hs, struct ctx *ctx, const struct registration *registration,
                       struct issued_tokens *tokens_out)
{
    struct sign_in session = registration->session;
    if (registration->guest) {
        return promote(hs, ctx, registration, tokens_out);
    }
    TRY(hs_account_create(hs, ctx, &registration->draft, &session.user));
    if (registration->kind == REGISTRATION_ALONE) {
        return OK;
    }
    struct err err = hs_token_issue(hs, ctx, &session, tokens_out);
    if (err.code != 0) {
        warn(hs, registration->draft.user_id, hs_account_withdraw(hs, ctx, session.user));
    }
    return err;
}

struct err hs_register(struct hs *hs, struct ctx *ctx, const struct registration *registration,
                       struct issued_tokens *tokens_out)
{
    struct slice token = registration->token;
    *tokens_out = (struct issued_tokens){0};
    TRY(use_token(hs, ctx, token));
    struct err err = make(hs, ctx, registration, tokens_out);
    if (err.code != 0 && token.ptr) {
        warn(hs, registration->draft.user_id, hs_registration_token_give_back(hs, ctx, token));
    }
    return err;
}
