/* Spec: client-server, "Push Rules: API". */
#include "homeserver/client/push_priv.h"

#include "homeserver/client/rooms_priv.h"
#include "homeserver/service/prefs.h"

enum { RULE_ID_BYTES_MAX = 255, RULES_OF_KIND_MAX = 1000 };

/* The rule that a path names, and what is to become of it. */
struct rule_edit {
    enum push_kind kind;
    struct slice rule_id;
    struct json rule;           /* put: the whole rule, without `enabled` */
    struct slice before, after; /* put: its neighbour; ptr NULL = none */
    struct slice member;        /* set: `enabled` or `actions` */
    struct json value;          /* set: its value */
};

static struct err no_rule(void)
{
    return err_public(ERR_M_NOT_FOUND, "There is no such push rule.");
}

static size_t find(const struct json *rules, struct slice rule_id)
{
    size_t i = 0;
    while (i < rules->count &&
           !json_is_string(json_get(&rules->items[i], LIT("rule_id")), rule_id)) {
        i++;
    }
    return i;
}

/* A copy of the list that can be changed, and the way back. */
static struct json take_list(struct ctx *ctx, const struct json *document, enum push_kind kind)
{
    struct json list = json_array();
    const struct json *global = json_get_object(document, LIT("global"));
    const struct json *old = json_get_array(global, push_kind_word(kind));
    for (uint32_t i = 0; old && i < old->count; i++) {
        json_push(ctx->arena, &list, old->items[i]);
    }
    return list;
}

static void give_list(struct ctx *ctx, struct json *document, enum push_kind kind, struct json list)
{
    const struct json *old = json_get_object(document, LIT("global"));
    struct json global = old ? *old : json_object();
    json_set(ctx->arena, &global, push_kind_word(kind), list);
    json_set(ctx->arena, document, LIT("global"), global);
}

/* --- reading --- */

static struct err read_edit(const struct http_request *request, struct rule_edit *edit)
{
    *edit = (struct rule_edit){.rule_id = request->params[1]};
    return push_kind_parse(request->params[0], &edit->kind) ? OK : no_rule();
}

static struct err find_rule(struct cs_room_call *call, struct json *rule_out)
{
    struct rule_edit edit;
    struct json document;
    TRY(read_edit(call->request, &edit));
    TRY(hs_push_rules_read(call->hs, call->ctx, call->actor.user, &document));
    struct json list = take_list(call->ctx, &document, edit.kind);
    size_t at = find(&list, edit.rule_id);
    if (at == list.count) {
        return no_rule();
    }
    *rule_out = list.items[at];
    return OK;
}

static struct err get_all(void *app, struct ctx *ctx, const struct http_request *request,
                          struct http_reply *reply)
{
    struct cs_room_call call;
    struct json document;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_push_rules_read(call.hs, ctx, call.actor.user, &document));
    json_out_value(&call.out, &document);
    return OK;
}

static struct err get_global(void *app, struct ctx *ctx, const struct http_request *request,
                             struct http_reply *reply)
{
    struct cs_room_call call;
    struct json document;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(hs_push_rules_read(call.hs, ctx, call.actor.user, &document));
    json_out_value(&call.out, json_get_object(&document, LIT("global")));
    return OK;
}

static struct err get_rule(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct cs_room_call call;
    struct json rule;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(find_rule(&call, &rule));
    json_out_value(&call.out, &rule);
    return OK;
}

static struct err get_member(struct cs_room_call *call, struct slice member)
{
    struct json rule;
    TRY(find_rule(call, &rule));
    json_out_object(&call->out);
    json_out_key(&call->out, member);
    json_out_value(&call->out, json_get(&rule, member));
    json_out_object_end(&call->out);
    return OK;
}

static struct err get_enabled(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return get_member(&call, LIT("enabled"));
}

static struct err get_actions(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    cs_call_begin(&call, app, ctx, request, reply);
    return get_member(&call, LIT("actions"));
}

/* --- making and removing --- */

/* Spec: client-server, "Push Rules: API": ids that begin with a dot are the server's; slashes and
 * backslashes are not allowed. */
static struct err check_rule_id(struct slice rule_id)
{
    if (rule_id.len == 0 || rule_id.len > RULE_ID_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "A rule id has 1 to 255 bytes.");
    }
    if (rule_id.ptr[0] == '.') {
        return err_public(ERR_M_INVALID_PARAM, "Rule ids with a leading dot are reserved.");
    }
    bool has_slash =
        slice_find(rule_id, '/') < rule_id.len || slice_find(rule_id, '\\') < rule_id.len;
    return has_slash ? err_public(ERR_M_INVALID_PARAM,
                                  "A rule id must not contain slashes or backslashes.")
                     : OK;
}

static struct err make_rule(struct ctx *ctx, const struct json *body, struct rule_edit *edit)
{
    const struct json *conditions = json_get(body, LIT("conditions"));
    const struct json *pattern = json_get(body, LIT("pattern"));
    struct json rule = json_object();
    TRY(cs_push_check_actions(json_get(body, LIT("actions"))));
    json_set(ctx->arena, &rule, LIT("rule_id"), json_string(edit->rule_id));
    json_set(ctx->arena, &rule, LIT("actions"), *json_get(body, LIT("actions")));
    if (edit->kind == PUSH_CONTENT) {
        if (!pattern || pattern->type != JSON_STRING) {
            return err_public(ERR_M_INVALID_PARAM, "A content rule needs a `pattern`.");
        }
        json_set(ctx->arena, &rule, LIT("pattern"), *pattern);
    }
    if (edit->kind == PUSH_OVERRIDE || edit->kind == PUSH_UNDERRIDE) {
        TRY(cs_push_check_conditions(conditions));
        json_set(ctx->arena, &rule, LIT("conditions"), conditions ? *conditions : json_array());
    }
    edit->rule = rule;
    return OK;
}

/* Where a rule belongs in a list that does not hold it: `before` wins over `after`; else first. */
static struct err find_place(const struct rule_edit *edit, const struct json *list,
                             size_t *place_out)
{
    struct slice neighbour = edit->before.ptr ? edit->before : edit->after;
    *place_out = 0;
    if (!neighbour.ptr) {
        return OK;
    }
    size_t at = find(list, neighbour);
    if (at == list->count || slice_has_prefix(neighbour, LIT("."))) {
        return err_public(ERR_M_INVALID_PARAM,
                          "`before` and `after` must name an own rule of the same kind.");
    }
    *place_out = edit->before.ptr ? at : at + 1;
    return OK;
}

static struct json without_rule(struct ctx *ctx, const struct json *list, size_t at)
{
    struct json kept = json_array();
    for (size_t i = 0; i < list->count; i++) {
        if (i != at) {
            json_push(ctx->arena, &kept, list->items[i]);
        }
    }
    return kept;
}

/* Spec: client-server, "Push Rules: API": a rule that exists keeps its place unless a neighbour is
 * named, and stays switched on or off as it was. */
static struct err put_in_document(void *arg, struct ctx *ctx, struct json *stored)
{
    struct rule_edit *edit = arg;
    struct json list = take_list(ctx, stored, edit->kind);
    size_t at = find(&list, edit->rule_id);
    size_t place = 0;
    bool exists = at < list.count;
    if (exists) {
        const struct json *enabled = json_get(&list.items[at], LIT("enabled"));
        if (enabled) {
            json_set(ctx->arena, &edit->rule, LIT("enabled"), *enabled);
        }
    } else if (list.count >= RULES_OF_KIND_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "There are too many rules of this kind.");
    }
    struct json others = without_rule(ctx, &list, at);
    TRY(find_place(edit, &others, &place));
    if (exists && !edit->before.ptr && !edit->after.ptr) {
        place = at;
    }
    struct json result = json_array();
    for (size_t i = 0; i <= others.count; i++) {
        if (i == place) {
            json_push(ctx->arena, &result, edit->rule);
        }
        if (i < others.count) {
            json_push(ctx->arena, &result, others.items[i]);
        }
    }
    give_list(ctx, stored, edit->kind, result);
    return OK;
}

static struct err put_rule(void *app, struct ctx *ctx, const struct http_request *request,
                           struct http_reply *reply)
{
    struct cs_room_call call;
    struct rule_edit edit = {.rule_id = request->params[1]};
    cs_call_begin(&call, app, ctx, request, reply);
    if (!push_kind_parse(request->params[0], &edit.kind)) {
        return err_public(ERR_M_INVALID_PARAM,
                          "The kind must be override, underride, sender, room or content.");
    }
    TRY(check_rule_id(edit.rule_id));
    TRY(make_rule(ctx, &request->json, &edit));
    edit.before = http_query_get(ctx, request, LIT("before"));
    edit.after = http_query_get(ctx, request, LIT("after"));
    TRY(hs_push_rules_edit(call.hs, ctx, call.actor.user, put_in_document, &edit));
    http_reply_empty(reply);
    return OK;
}

static struct err remove_from_document(void *arg, struct ctx *ctx, struct json *stored)
{
    const struct rule_edit *edit = arg;
    struct json list = take_list(ctx, stored, edit->kind);
    size_t at = find(&list, edit->rule_id);
    if (at == list.count) {
        return no_rule();
    }
    give_list(ctx, stored, edit->kind, without_rule(ctx, &list, at));
    return OK;
}

static struct err delete_rule(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    struct rule_edit edit;
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(read_edit(request, &edit));
    if (push_rules_has_default(edit.kind, edit.rule_id)) {
        return err_public(ERR_M_INVALID_PARAM,
                          "A default rule cannot be removed; it can be switched off.");
    }
    TRY(hs_push_rules_edit(call.hs, ctx, call.actor.user, remove_from_document, &edit));
    http_reply_empty(reply);
    return OK;
}

/* --- switching, and changing actions --- */

static struct err set_in_document(void *arg, struct ctx *ctx, struct json *stored)
{
    const struct rule_edit *edit = arg;
    struct json list = take_list(ctx, stored, edit->kind);
    size_t at = find(&list, edit->rule_id);
    if (at == list.count) {
        struct json change = json_object();
        if (!push_rules_has_default(edit->kind, edit->rule_id)) {
            return no_rule();
        }
        json_set(ctx->arena, &change, LIT("rule_id"), json_string(edit->rule_id));
        json_push(ctx->arena, &list, change);
    }
    json_set(ctx->arena, &list.items[at], edit->member, edit->value);
    give_list(ctx, stored, edit->kind, list);
    return OK;
}

static struct err set_member(struct cs_room_call *call, struct slice member,
                             const struct json *value)
{
    struct rule_edit edit;
    TRY(read_edit(call->request, &edit));
    edit.member = member;
    edit.value = *value;
    TRY(hs_push_rules_edit(call->hs, call->ctx, call->actor.user, set_in_document, &edit));
    http_reply_empty(call->reply);
    return OK;
}

static struct err put_enabled(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    const struct json *enabled = json_get(&request->json, LIT("enabled"));
    cs_call_begin(&call, app, ctx, request, reply);
    if (!enabled) {
        return err_public(ERR_M_MISSING_PARAM, "`enabled` is missing.");
    }
    if (enabled->type != JSON_BOOL) {
        return err_public(ERR_M_BAD_JSON, "`enabled` must be true or false.");
    }
    return set_member(&call, LIT("enabled"), enabled);
}

static struct err put_actions(void *app, struct ctx *ctx, const struct http_request *request,
                              struct http_reply *reply)
{
    struct cs_room_call call;
    const struct json *actions = json_get(&request->json, LIT("actions"));
    cs_call_begin(&call, app, ctx, request, reply);
    TRY(cs_push_check_actions(actions));
    return set_member(&call, LIT("actions"), actions);
}

#define RULES "/_matrix/client/v3/pushrules/"
#define RULE RULES "global/{kind}/{ruleId}"
#define READ HTTP_AUTH_USER, HTTP_RATE_READ, HTTP_BODY_NONE, HTTP_LANE_NONE, 0
#define WRITE HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_JSON, HTTP_LANE_NONE, RULE_BYTES_MAX
#define SECTION "Push Rules: API", NULL, OPEN
enum { RULE_BYTES_MAX = 65536, OPEN = HTTP_ALLOW_GUEST | HTTP_ALLOW_SUSPENDED };

static const struct http_route routes[] = {
    {HTTP_GET, RULES, READ, get_all, SECTION},
    {HTTP_GET, RULES "global/", READ, get_global, SECTION},
    {HTTP_GET, RULE, READ, get_rule, SECTION},
    {HTTP_PUT, RULE, WRITE, put_rule, SECTION},
    {HTTP_DELETE, RULE, HTTP_AUTH_USER, HTTP_RATE_WRITE, HTTP_BODY_NONE, HTTP_LANE_NONE, 0,
     delete_rule, SECTION},
    {HTTP_GET, RULE "/enabled", READ, get_enabled, SECTION},
    {HTTP_PUT, RULE "/enabled", WRITE, put_enabled, SECTION},
    {HTTP_GET, RULE "/actions", READ, get_actions, SECTION},
    {HTTP_PUT, RULE "/actions", WRITE, put_actions, SECTION},
};
const struct http_route_table cs_push_rules_routes = {routes, COUNT_OF(routes)};
