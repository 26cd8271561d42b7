#include "homeserver/http/router.h"
#include "spec/errcodes.h"

/* Takes the next pair off the query; false at the end. The value stays encoded. */
static bool next_pair(struct arena *arena, struct slice *rest, struct slice *name_out,
                      struct slice *raw_out)
{
    while (rest->len) {
        struct slice pair;
        struct slice raw_name;
        *rest = slice_cut(*rest, '&', &pair);
        *raw_out = slice_cut(pair, '=', &raw_name);
        if (pair.len && http_decode_query(arena, raw_name, name_out)) {
            return true;
        }
    }
    return false;
}

size_t http_query_all(struct ctx *ctx, const struct http_request *request, struct slice name,
                      struct slice *values, size_t max)
{
    struct slice rest = request->query;
    struct slice found;
    struct slice raw;
    struct slice value;
    size_t count = 0;
    while (count < max && next_pair(ctx->arena, &rest, &found, &raw)) {
        if (slice_eq(found, name) && http_decode_query(ctx->arena, raw, &value)) {
            values[count++] = value;
        }
    }
    return count;
}

struct slice http_query_get(struct ctx *ctx, const struct http_request *request, struct slice name)
{
    struct slice value = {0};
    http_query_all(ctx, request, name, &value, 1);
    return value;
}

struct err http_query_int(struct ctx *ctx, const struct http_request *request, struct slice name,
                          int64_t fallback, int64_t *value_out)
{
    struct slice text = http_query_get(ctx, request, name);
    uint64_t value = 0;
    *value_out = fallback;
    if (!text.ptr) {
        return OK;
    }
    if (!slice_parse_u64(text, &value) || value > INT64_MAX) {
        return err_publicf(ctx->arena, ERR_M_INVALID_PARAM,
                           "The query parameter %.*s must be an integer of at least 0.",
                           (int)name.len, name.ptr);
    }
    *value_out = (int64_t)value;
    return OK;
}

struct err http_query_bool(struct ctx *ctx, const struct http_request *request, struct slice name,
                           bool fallback, bool *value_out)
{
    struct slice text = http_query_get(ctx, request, name);
    *value_out = fallback;
    if (!text.ptr) {
        return OK;
    }
    *value_out = slice_eq(text, LIT("true"));
    if (!*value_out && !slice_eq(text, LIT("false"))) {
        return err_publicf(ctx->arena, ERR_M_INVALID_PARAM,
                           "The query parameter %.*s must be true or false.", (int)name.len,
                           name.ptr);
    }
    return OK;
}
