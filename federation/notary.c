#include "federation/notary.h"

#include "federation/keys_priv.h"
#include "federation/parallel.h"
#include "federation/self_keys.h"

#include <stdatomic.h>

enum {
    WIDTH_MAX = 8,
    WITHIN_MS = 15000,
    ANSWERS_MAX = 64, /* of one server */
    ANSWER_BYTES_MAX = 4 << 20,
    RUNNING_MAX = 4, /* questions that make this server ask others, at once */
};

/* Whether the newest answers that are kept serve the question. */
static bool is_served(const struct notary_question *question, struct slice key_id,
                      int64_t valid_until_ms)
{
    const struct json *criteria = json_get_object(question->keys, key_id);
    int64_t wanted_ms = question->valid_until_ms;
    json_get_int(criteria, LIT("minimum_valid_until_ts"), &wanted_ms);
    return valid_until_ms >= wanted_ms;
}

struct kept {
    struct store_rows rows; /* "a" key id -> answer */
};

static struct err read_kept(struct fed *fed, struct ctx *ctx, struct slice server,
                            struct kept *kept_out)
{
    struct store_range range = {.from = LIT("a"), .to = LIT("b"), .limit = ANSWERS_MAX};
    return store_read_range(fed->hs->store, ctx, fed_keys_object(ctx, server), range,
                            &kept_out->rows);
}

static bool is_asked_for(const struct notary_question *question, struct slice key_id)
{
    return !question->keys || question->keys->count == 0 || json_get(question->keys, key_id);
}

static bool row_serves(struct ctx *ctx, const struct notary_question *question,
                       const struct store_row *row)
{
    struct slice key_id = slice_from(row->key, 1);
    struct json object;
    int64_t valid_until_ms = 0;
    if (!is_asked_for(question, key_id) || json_parse(ctx->arena, row->value, &object).code) {
        return false;
    }
    bool is_old = json_get(json_get_object(&object, LIT("old_verify_keys")), key_id) != NULL;
    return is_old || (json_get_int(&object, LIT("valid_until_ts"), &valid_until_ms) &&
                      is_served(question, key_id, valid_until_ms));
}

/* Each key that is named must be there and last long enough; without names, some key must. */
static bool all_served(struct ctx *ctx, const struct notary_question *question,
                       const struct kept *kept)
{
    size_t served = 0;
    for (size_t i = 0; i < kept->rows.count; i++) {
        served += row_serves(ctx, question, &kept->rows.rows[i]);
    }
    size_t named = question->keys ? question->keys->count : 0;
    return served > 0 && served >= named;
}

/* The answer as its server gave it, with this server's signature added. */
static void write_answer(struct fed *fed, struct ctx *ctx, struct slice text, struct json_out *out)
{
    struct json object;
    if (json_parse(ctx->arena, text, &object).code || object.type != JSON_OBJECT) {
        return;
    }
    json_sign(ctx->arena, &object, &fed->hs->signer);
    json_out_value(out, &object);
}

static void write_kept(struct fed *fed, struct ctx *ctx, const struct notary_question *question,
                       const struct kept *kept, struct json_out *out)
{
    for (size_t i = 0; i < kept->rows.count; i++) {
        const struct store_row *row = &kept->rows.rows[i];
        bool wanted = is_asked_for(question, slice_from(row->key, 1));
        for (size_t j = 0; j < i && wanted; j++) { /* several keys may stand in one answer */
            const struct store_row *earlier = &kept->rows.rows[j];
            wanted = !slice_eq(earlier->value, row->value) ||
                     !is_asked_for(question, slice_from(earlier->key, 1));
        }
        if (wanted) {
            write_answer(fed, ctx, row->value, out);
        }
    }
}

struct asking {
    struct fed *fed;
    const struct notary_question **questions;
};

static struct err ask(struct fed *fed, struct ctx *ctx, const struct fed_key_query *query)
{
    return fed_keys_ask_server(fed, ctx, query->server);
}

static void ask_part(void *arg, struct ctx *ctx, size_t index)
{
    struct asking *asking = arg;
    /* A key id that no server has: whatever is kept, the server is asked. */
    struct fed_key_query query = {
        .server = asking->questions[index]->server, .use = FED_KEY_REQUEST, .ts_ms = INT64_MAX};
    struct fed_keys_want want = {&query, ask};
    struct ed25519_public key;
    bool found = false;
    struct err err = fed_keys_get_by(asking->fed, ctx, &want, &key, &found);
    (void)err; /* it stands in the log; what is kept is the answer */
}

static struct err ask_servers(struct fed *fed, struct ctx *ctx,
                              const struct notary_question **questions, size_t count)
{
    if (count == 0) {
        return OK;
    }
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "other servers must be asked for keys");
    }
    /* Anybody may ask: at most a few make this server work, the others get what is kept. */
    if (atomic_fetch_add(&fed->notary_running, 1) < RUNNING_MAX) {
        struct asking asking = {fed, questions};
        const struct fed_parts parts = {.count = count,
                                        .width_max = WIDTH_MAX,
                                        .within_ms = WITHIN_MS,
                                        .fn = ask_part,
                                        .arg = &asking};
        fed_parallel(fed, ctx, &parts);
    }
    atomic_fetch_sub(&fed->notary_running, 1);
    return OK;
}

/* Looks at one question of many, in memory of its own: what is kept may be much. */
typedef struct err (*look_fn)(struct fed *fed, struct ctx *ctx,
                              const struct notary_question *question, void *arg);

static struct err look_apart(struct fed *fed, struct ctx *ctx,
                             const struct notary_question *question, look_fn fn, void *arg)
{
    struct ctx own = *ctx;
    own.arena = arena_new();
    own.deferred = NULL;
    struct err err = fn(fed, &own, question, arg);
    if (err.text) {
        err.text = arena_cstr(ctx->arena, slice_of(err.text));
    }
    ctx_finish(&own);
    arena_free(&own.arena);
    return err;
}

static struct err look_if_open(struct fed *fed, struct ctx *ctx,
                               const struct notary_question *question, void *is_open)
{
    struct kept kept;
    TRY(read_kept(fed, ctx, question->server, &kept));
    *(bool *)is_open =
        !all_served(ctx, question, &kept) && fed_keys_may_fetch(fed, ctx, question->server);
    return OK;
}

static struct err look_up(struct fed *fed, struct ctx *ctx, const struct notary_question *question,
                          void *out)
{
    struct kept kept;
    TRY(read_kept(fed, ctx, question->server, &kept));
    write_kept(fed, ctx, question, &kept, out);
    return OK;
}

static struct err write_answers(struct fed *fed, struct ctx *ctx,
                                const struct notary_question *questions, size_t count,
                                struct json_out *out)
{
    for (size_t i = 0; i < count && out->buf->len < ANSWER_BYTES_MAX; i++) {
        const struct notary_question *question = &questions[i];
        if (hs_is_local(fed->hs, question->server)) {
            struct json own = self_keys(fed->hs, ctx);
            json_out_value(out, &own);
        } else if (ids_is_server_name(question->server)) {
            TRY(look_apart(fed, ctx, question, look_up, out));
        }
    }
    return OK;
}

struct err notary_answer(struct fed *fed, struct ctx *ctx, const struct notary_question *questions,
                         size_t count, struct json_out *out)
{
    const struct notary_question **open = arena_array(ctx->arena, count + 1, sizeof *open);
    size_t open_count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct notary_question *question = &questions[i];
        bool is_open = false;
        if (hs_is_local(fed->hs, question->server) || !ids_is_server_name(question->server) ||
            !fed_peer_is_allowed(fed, question->server)) {
            continue;
        }
        TRY(look_apart(fed, ctx, question, look_if_open, &is_open));
        if (is_open) {
            open[open_count++] = question;
        }
    }
    TRY(ask_servers(fed, ctx, open, open_count));
    return write_answers(fed, ctx, questions, count, out);
}
