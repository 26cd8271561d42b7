#include "federation/call_many.h"

#include "federation/parallel.h"
#include "homeserver/base/mem.h"

#include <string.h>

enum { WIDTH_MAX = 16 };

/* An answer outlives the part that got it as bytes on the heap. */
struct answer {
    char *bytes_owned;
    size_t len;
    bool begun;
    uint32_t code;
};

struct asking {
    struct fed *fed;
    const struct fed_ask *asks;
    struct answer *answers;
    int64_t timeout_ms;
};

static void ask_one(void *arg, struct ctx *ctx, size_t index)
{
    struct asking *asking = arg;
    const struct fed_ask *ask = &asking->asks[index];
    struct answer *answer = &asking->answers[index];
    struct json json;
    struct fed_call call = {.destination = ask->destination,
                            .method = LIT("POST"),
                            .path = ask->path,
                            .content = ask->content,
                            .timeout_ms = asking->timeout_ms};
    answer->begun = true;
    struct err err = fed_call_json(asking->fed, ctx, &call, &json);
    answer->code = err.code;
    if (err.code == 0) {
        struct slice bytes = json_canonical(ctx->arena, &json);
        answer->bytes_owned = mem_alloc_raw(bytes.len + 1);
        memcpy(answer->bytes_owned, bytes.ptr, bytes.len);
        answer->len = bytes.len;
    }
}

static struct err read_answer(struct ctx *ctx, const struct answer *answer, struct json *json_out)
{
    if (!answer->begun || answer->code != 0) {
        return err_make(answer->begun ? answer->code : ERR_TIMEOUT,
                        "the other server gave no answer");
    }
    struct slice bytes = {answer->bytes_owned, answer->len};
    return json_parse(ctx->arena, arena_copy(ctx->arena, bytes), json_out);
}

struct err fed_ask_all(struct fed *fed, struct ctx *ctx, struct fed_ask *asks, size_t count,
                       int64_t timeout_ms)
{
    struct asking asking = {.fed = fed, .asks = asks, .timeout_ms = timeout_ms};
    struct fed_parts parts = {.count = count,
                              .width_max = WIDTH_MAX,
                              .within_ms = timeout_ms,
                              .fn = ask_one,
                              .arg = &asking};
    if (count == 0) {
        return OK;
    }
    if (!ctx->may_wait) {
        return err_make(ERR_WAITS, "other servers must be asked");
    }
    asking.answers = arena_array(ctx->arena, count, sizeof *asking.answers);
    fed_parallel(fed, ctx, &parts);
    for (size_t i = 0; i < count; i++) {
        asks[i].err = read_answer(ctx, &asking.answers[i], &asks[i].answer);
        mem_free(asking.answers[i].bytes_owned);
    }
    return OK;
}
