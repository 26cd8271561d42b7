/* The list of public rooms, for clients and for other servers.
 * Spec: client-server, "Published room directory". */
#include "homeserver/service/directory.h"
#include "homeserver/service/room_summary.h"

#include <stdlib.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool contains_nocase(struct slice text, struct slice term)
{
    for (size_t i = 0; i + term.len <= text.len; i++) {
        size_t j = 0;
        while (j < term.len && lower(text.ptr[i + j]) == lower(term.ptr[j])) {
            j++;
        }
        if (j == term.len) {
            return true;
        }
    }
    return false;
}

static bool type_matches(const struct json *types, struct slice type)
{
    for (uint32_t i = 0; i < types->count; i++) {
        bool plain = types->items[i].type == JSON_NULL && !type.len;
        if (plain || (type.len && json_is_string(&types->items[i], type))) {
            return true;
        }
    }
    return false;
}

static bool is_wanted(const struct room_summary *summary, const struct public_rooms_query *query)
{
    if (query->room_types && !type_matches(query->room_types, summary->room_type)) {
        return false;
    }
    return query->term.len == 0 || contains_nocase(summary->name, query->term) ||
           contains_nocase(summary->topic, query->term) ||
           contains_nocase(summary->canonical_alias, query->term);
}

static int by_size(const void *a, const void *b)
{
    const struct room_summary *left = a;
    const struct room_summary *right = b;
    if (left->joined_count != right->joined_count) {
        return left->joined_count < right->joined_count ? 1 : -1;
    }
    return slice_cmp(left->room_id, right->room_id);
}

/* "<network>|<service>", as instances of protocols are called. */
static struct room_network network_of(struct slice instance)
{
    size_t bar = slice_find_last(instance, '|');
    return bar < instance.len && bar + 1 < instance.len
               ? (struct room_network){slice_from(instance, bar + 1), slice_sub(instance, 0, bar)}
               : (struct room_network){instance, LIT("")}; /* that is none */
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static struct err add_networks(struct hs *hs, struct ctx *ctx, uint64_t **rooms, size_t *count)
{
    uint64_t *more = NULL;
    size_t more_count = 0;
    TRY(hs_network_rooms(hs, ctx, (struct room_network){0}, &more, &more_count));
    uint64_t *all = arena_array(ctx->arena, *count + more_count + 1, sizeof *all);
    size_t total = 0;
    for (size_t i = 0; i < *count; i++) {
        all[total++] = (*rooms)[i];
    }
    for (size_t i = 0; i < more_count; i++) {
        if (!bsearch(&more[i], *rooms, *count, sizeof *more, by_number)) {
            all[total++] = more[i];
        }
    }
    *rooms = all;
    *count = total;
    return OK;
}

static struct err list_rooms(struct hs *hs, struct ctx *ctx, const struct public_rooms_query *query,
                             uint64_t **rooms_out, size_t *count_out)
{
    if (query->instance.len > 0) {
        return hs_network_rooms(hs, ctx, network_of(query->instance), rooms_out, count_out);
    }
    TRY(hs_public_rooms(hs, ctx, rooms_out, count_out));
    return query->all_networks ? add_networks(hs, ctx, rooms_out, count_out) : OK;
}

static struct err collect(struct hs *hs, struct ctx *ctx, const struct public_rooms_query *query,
                          struct room_summary **summaries_out, size_t *count_out)
{
    uint64_t *rooms = NULL;
    size_t room_count = 0;
    TRY(list_rooms(hs, ctx, query, &rooms, &room_count));
    struct room_summary *summaries = arena_array(ctx->arena, room_count, sizeof *summaries);
    size_t count = 0;
    for (size_t i = 0; i < room_count; i++) {
        struct room *room = NULL;
        TRY(hs_room_get(hs, ctx, rooms[i], &room));
        TRY(hs_summary_read(hs, ctx, room, &summaries[count]));
        count += is_wanted(&summaries[count], query) ? 1 : 0;
    }
    qsort(summaries, count, sizeof *summaries, by_size);
    *summaries_out = summaries;
    *count_out = count;
    return OK;
}

static struct err read_since(struct slice since, size_t *offset_out)
{
    uint64_t offset = 0;
    if (since.len && (since.ptr[0] != 'p' || !slice_parse_u64(slice_from(since, 1), &offset))) {
        return err_public(ERR_M_INVALID_PARAM, "`since` is not a token of this list.");
    }
    *offset_out = (size_t)offset;
    return OK;
}

struct err hs_public_rooms_write(struct hs *hs, struct ctx *ctx,
                                 const struct public_rooms_query *query, struct json_out *out)
{
    struct room_summary *summaries = NULL;
    size_t count = 0;
    size_t from = 0;
    TRY(read_since(query->since, &from));
    TRY(collect(hs, ctx, query, &summaries, &count));
    from = from < count ? from : count;
    size_t to = query->limit && query->limit < count - from ? from + query->limit : count;
    json_out_object(out);
    json_out_key_array(out, LIT("chunk"));
    for (size_t i = from; i < to; i++) {
        json_out_object(out);
        hs_summary_write(out, &summaries[i], SUMMARY_PUBLIC_LIST);
        json_out_object_end(out);
    }
    json_out_array_end(out);
    json_out_key_int(out, LIT("total_room_count_estimate"), (int64_t)count);
    if (to < count) {
        json_out_key_string(out, LIT("next_batch"), arena_printf(ctx->arena, "p%zu", to));
    }
    if (from > 0) {
        size_t back = query->limit && from > query->limit ? from - query->limit : 0;
        json_out_key_string(out, LIT("prev_batch"), arena_printf(ctx->arena, "p%zu", back));
    }
    json_out_object_end(out);
    return OK;
}

struct err hs_public_rooms_query_parse(const struct json *body,
                                       struct public_rooms_query *query_out)
{
    const struct json *filter = json_get_object(body, LIT("filter"));
    const struct json *given = json_get(body, LIT("limit"));
    const struct json *since = json_get(body, LIT("since"));
    int64_t limit = 0;
    *query_out = (struct public_rooms_query){0};
    if (given && (given->type != JSON_INT || given->integer < 0)) {
        return err_public(ERR_M_BAD_JSON, "`limit` must be an integer of at least 0.");
    }
    query_out->instance = json_get_string(body, LIT("third_party_instance_id"));
    query_out->all_networks = json_get_bool(body, LIT("include_all_networks"), false);
    if (query_out->instance.len > 0 && query_out->all_networks) {
        return err_public(ERR_M_INVALID_PARAM,
                          "Name a third_party_instance_id or ask for all networks, not both.");
    }
    if (since && since->type != JSON_STRING && since->type != JSON_NULL) {
        return err_public(ERR_M_BAD_JSON, "`since` must be a string.");
    }
    json_get_int(body, LIT("limit"), &limit);
    query_out->limit = (size_t)limit;
    query_out->since = json_get_string(body, LIT("since"));
    query_out->term = json_get_string(filter, LIT("generic_search_term"));
    query_out->room_types = json_get_array(filter, LIT("room_types"));
    return OK;
}
