/* Spec: client-server, "User Directory". */
#include "homeserver/client/rooms_priv.h"
#include "homeserver/search/search.h"
#include "homeserver/service/users.h"

#include <stdlib.h>

enum { LIMIT_DEFAULT = 10, LIMIT_MAX = 100, CANDIDATES_MAX = 2000 };

struct number_list {
    uint64_t *items; /* ascending */
    size_t count;
};

struct found {
    const struct search_person *person;
    bool shows_names;
    int rank;
};

struct directory {
    struct cs_room_call call;
    struct ctx scratch; /* of one candidate */
    struct slice term;
    size_t limit;
    struct number_list joined; /* the requester's rooms */
    struct number_list open;   /* rooms whose members everybody may find */
    struct search_candidates candidates;
    struct found *found;
    size_t found_count;
};

static struct err parse(struct directory *d)
{
    const struct json *body = &d->call.request->json;
    const struct json *limit = json_get(body, LIT("limit"));
    TRY(cs_body_required(d->call.request, LIT("search_term"), &d->term));
    d->term = slice_trim(d->term);
    d->limit = LIMIT_DEFAULT;
    if (limit && (limit->type != JSON_INT || limit->integer < 1)) {
        return err_public(ERR_M_INVALID_PARAM, "`limit` must be a number above zero.");
    }
    if (limit) {
        d->limit = limit->integer < LIMIT_MAX ? (size_t)limit->integer : LIMIT_MAX;
    }
    return OK;
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static bool has_room(const struct number_list *list, uint64_t room)
{
    return list->count && bsearch(&room, list->items, list->count, sizeof room, by_number);
}

static struct err joined_rooms(struct directory *d)
{
    struct user_rooms rooms;
    TRY(hs_user_rooms(d->call.hs, d->call.ctx, d->call.actor.user, &rooms));
    d->joined.items = arena_array(d->call.ctx->arena, rooms.count + 1, sizeof(uint64_t));
    for (size_t i = 0; i < rooms.count; i++) {
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            d->joined.items[d->joined.count++] = rooms.items[i].room;
        }
    }
    qsort(d->joined.items, d->joined.count, sizeof(uint64_t), by_number);
    return OK;
}

struct standing {
    bool shares;  /* a room with the requester */
    bool is_open; /* is in a room whose members everybody may find */
};

static struct err look_at_rooms(struct directory *d, uint64_t user, struct standing *standing_out)
{
    struct user_rooms rooms;
    bool is_other = user != d->call.actor.user; /* nobody shares a room with himself */
    *standing_out = (struct standing){0};
    ctx_finish(&d->scratch);
    arena_reset(d->scratch.arena);
    TRY(hs_user_rooms(d->call.hs, &d->scratch, user, &rooms));
    for (size_t i = 0; i < rooms.count && !standing_out->shares; i++) {
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            standing_out->shares = is_other && has_room(&d->joined, rooms.items[i].room);
            standing_out->is_open =
                standing_out->is_open || has_room(&d->open, rooms.items[i].room);
        }
    }
    return OK;
}

static bool begins(struct slice text, struct slice with)
{
    return text.len >= with.len && slice_eq_nocase(slice_sub(text, 0, with.len), with);
}

/* Who is meant exactly comes first, then who shares a room, then whose name begins so, then who has
 * a profile. */
static int rank_of(const struct directory *d, const struct found *found, bool shares)
{
    struct slice user_id = found->person->user_id;
    struct slice localpart = ids_user_localpart(ids_trust_user(user_id));
    struct slice name = found->shows_names ? found->person->display_name : (struct slice){0};
    struct slice bare = slice_from(d->term, d->term.len && d->term.ptr[0] == '@' ? 1 : 0);
    bool exact = slice_eq_nocase(user_id, d->term) || slice_eq_nocase(localpart, bare) ||
                 (name.ptr && slice_eq_nocase(name, d->term));
    bool front = begins(localpart, bare) || (name.ptr && begins(name, d->term));
    return (exact ? 8 : 0) + (shares ? 4 : 0) + (front ? 2 : 0) + (name.ptr ? 1 : 0);
}

static struct err judge(struct directory *d, const struct search_candidate *candidate)
{
    struct hs *hs = d->call.hs;
    const struct search_person *person = &candidate->person;
    struct found found = {.person = person};
    struct standing standing;
    uint32_t flags = 0;
    bool has_account = false;
    bool is_local = hs_user_is_local(hs, person->user_id);
    TRY(look_at_rooms(d, person->user, &standing));
    if (!standing.shares && !standing.is_open &&
        !(is_local && hs->conf->user_directory_search_all_users)) {
        return OK;
    }
    if (is_local) {
        TRY(hs_account_flags(hs, d->call.ctx, person->user, &flags, &has_account));
    }
    found.shows_names = person->told_in == 0 || has_room(&d->joined, person->told_in) ||
                        has_room(&d->open, person->told_in);
    if ((flags & (ACCOUNT_DEACTIVATED | ACCOUNT_LOCKED)) ||
        (!found.shows_names && !candidate->by_id)) {
        return OK;
    }
    found.rank = rank_of(d, &found, standing.shares);
    d->found[d->found_count++] = found;
    return OK;
}

static int by_rank(const void *a, const void *b)
{
    const struct found *left = a;
    const struct found *right = b;
    if (left->rank != right->rank) {
        return left->rank > right->rank ? -1 : 1;
    }
    return slice_cmp(left->person->user_id, right->person->user_id);
}

/* The user whose id the term is, or whose localpart here: found however many others fit. */
static struct err add_exact(struct directory *d, struct search_db *db)
{
    struct ctx *ctx = d->call.ctx;
    struct slice server = d->call.hs->server_name;
    struct search_candidate exact = {.by_id = true};
    struct slice user_id = d->term;
    uint64_t user = 0;
    bool found = false;
    if (!ids_is_user(user_id)) {
        user_id = arena_printf(ctx->arena, "@%.*s:%.*s", (int)d->term.len, d->term.ptr,
                               (int)server.len, server.ptr);
    }
    if (ids_is_user(user_id)) {
        TRY(hs_user_find(d->call.hs, ctx, user_id, &user, &found));
    }
    if (found) {
        TRY(search_people_get(db, ctx, user, &exact.person, &found));
    }
    for (size_t i = 0; found && i < d->candidates.count; i++) {
        found = d->candidates.items[i].person.user != user;
    }
    if (found) {
        d->candidates.items[d->candidates.count++] = exact;
    }
    return OK;
}

static struct err find(struct directory *d)
{
    struct ctx *ctx = d->call.ctx;
    struct search_db *db = NULL;
    search_catch_up(d->call.hs->search);
    TRY(search_reader(d->call.hs->search, ctx, &db));
    TRY(search_people_find(db, ctx, d->term, CANDIDATES_MAX, &d->candidates));
    TRY(add_exact(d, db));
    TRY(search_rooms_open(db, ctx, &d->open.items, &d->open.count));
    d->found = arena_array(ctx->arena, d->candidates.count + 1, sizeof *d->found);
    d->scratch = (struct ctx){.arena = arena_new(), .now = ctx->now, .log = ctx->log};
    struct err err = OK;
    for (size_t i = 0; i < d->candidates.count && err.code == 0; i++) {
        err = judge(d, &d->candidates.items[i]);
    }
    ctx_finish(&d->scratch);
    arena_free(&d->scratch.arena);
    TRY(err);
    if (d->found_count) {
        qsort(d->found, d->found_count, sizeof *d->found, by_rank);
    }
    return OK;
}

static void write_user(struct json_out *out, const struct found *found)
{
    json_out_object(out);
    json_out_key_string(out, LIT("user_id"), found->person->user_id);
    if (found->shows_names && found->person->display_name.ptr) {
        json_out_key_string(out, LIT("display_name"), found->person->display_name);
    }
    if (found->shows_names && found->person->avatar_url.ptr) {
        json_out_key_string(out, LIT("avatar_url"), found->person->avatar_url);
    }
    json_out_object_end(out);
}

static struct err post_search(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct directory *d = arena_alloc(ctx->arena, sizeof *d);
    struct json_out *out = &d->call.out;
    cs_call_begin(&d->call, app, ctx, request, reply);
    TRY(parse(d));
    TRY(joined_rooms(d));
    TRY(find(d));
    size_t count = d->found_count < d->limit ? d->found_count : d->limit;
    json_out_object(out);
    json_out_key_array(out, LIT("results"));
    for (size_t i = 0; i < count; i++) {
        write_user(out, &d->found[i]);
    }
    json_out_array_end(out);
    json_out_key_bool(out, LIT("limited"), d->found_count > count || d->candidates.has_more);
    json_out_object_end(out);
    return OK;
}

static const struct http_route routes[] = {
    {HTTP_POST, "/_matrix/client/v3/user_directory/search", HTTP_AUTH_USER, HTTP_RATE_READ,
     HTTP_BODY_JSON, HTTP_LANE_NONE, 0, post_search, "User Directory", NULL, HTTP_ALLOW_SUSPENDED},
};
const struct http_route_table cs_user_directory_routes = {routes, COUNT_OF(routes)};
