#include "homeserver/sync/token.h"

#include "spec/errcodes.h"

static struct err refuse(void)
{
    return err_public(ERR_M_INVALID_PARAM,
                      "This is not a sync token of this server; use next_batch of a sync.");
}

/* slice_parse_u64 would take leading zeros; one spelling per token is enough. */
static bool parse_field(struct slice text, uint64_t *value_out)
{
    bool padded = text.len > 1 && text.ptr[0] == '0';
    return !padded && slice_parse_u64(text, value_out);
}

struct err sync_token_parse(struct slice text, struct sync_token *token_out)
{
    enum { FIELDS_MAX = 8 };
    uint64_t fields[FIELDS_MAX];
    size_t count = 0;
    if (text.len < 2 || text.ptr[0] != 's') {
        return refuse();
    }
    struct slice rest = slice_from(text, 1);
    while (rest.ptr != NULL) {
        struct slice field;
        rest = slice_cut(rest, '_', &field);
        if (count == FIELDS_MAX || !parse_field(field, &fields[count])) {
            return refuse();
        }
        count++;
    }
    if (count > 1 && fields[1] > fields[0]) {
        return refuse();
    }
    token_out->pos = fields[0];
    token_out->inbox = count > 1 ? fields[1] : fields[0];
    return OK;
}

struct err sync_token_check(struct slice text, uint64_t newest, struct sync_token *token_out)
{
    TRY(sync_token_parse(text, token_out));
    if (token_out->pos > newest) {
        return err_public(ERR_M_INVALID_PARAM, "The sync token is from the future of this server; "
                                               "start again without one.");
    }
    return OK;
}

struct slice sync_token_encode(struct arena *arena, struct sync_token token)
{
    if (token.inbox == token.pos) {
        return arena_printf(arena, "s%llu", (unsigned long long)token.pos);
    }
    return arena_printf(arena, "s%llu_%llu", (unsigned long long)token.pos,
                        (unsigned long long)token.inbox);
}
