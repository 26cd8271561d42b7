#include "homeserver/service/succession.h"

#include "homeserver/service/prefs.h"

struct succession {
    struct hs *hs;
    struct ctx *ctx;
    uint64_t user;
    uint64_t old_room, new_room;
    struct slice old_id, new_id;
};

/* The room that this one replaces, if the user was in it. */
static struct err find_old(struct succession *s, struct room *room, bool *found_out)
{
    struct stored_event create;
    struct user_room entry;
    bool found = false;
    *found_out = false;
    TRY(hs_state_event(s->hs, s->ctx, room, hs_room_head(room).root, LIT("m.room.create"), LIT(""),
                       &create, &found));
    if (!found) {
        return OK;
    }
    const struct json *predecessor = json_get_object(create.event.content, LIT("predecessor"));
    s->old_id = json_get_string(predecessor, LIT("room_id"));
    if (!ids_is_room(s->old_id)) {
        return OK;
    }
    TRY(hs_room_find(s->hs, s->ctx, s->old_id, &s->old_room, &found));
    return found ? hs_user_room(s->hs, s->ctx, s->user, s->old_room, &entry, found_out) : OK;
}

/* --- push rules --- */

static bool holds_rule(const struct json *rules, struct slice rule_id)
{
    for (uint32_t i = 0; rules && i < rules->count; i++) {
        if (json_is_string(json_get(&rules->items[i], LIT("rule_id")), rule_id)) {
            return true;
        }
    }
    return false;
}

static bool is_for_room(const struct json *condition, struct slice room_id)
{
    return json_is_string(json_get(condition, LIT("kind")), LIT("event_match")) &&
           json_is_string(json_get(condition, LIT("key")), LIT("room_id")) &&
           json_is_string(json_get(condition, LIT("pattern")), room_id);
}

/* The rule's conditions with the new room in place of the old; whether the old one was named. */
static bool move_conditions(const struct succession *s, struct json *rule)
{
    const struct json *conditions = json_get_array(rule, LIT("conditions"));
    struct json moved = json_array();
    bool named = false;
    for (uint32_t i = 0; conditions && i < conditions->count; i++) {
        struct json condition = conditions->items[i];
        if (is_for_room(&condition, s->old_id)) {
            static const struct slice pattern[] = {LIT("pattern")};
            named = true;
            condition = json_without(s->ctx->arena, &condition, pattern, 1);
            json_set(s->ctx->arena, &condition, pattern[0], json_string(s->new_id));
        }
        json_push(s->ctx->arena, &moved, condition);
    }
    if (named) {
        json_set(s->ctx->arena, rule, LIT("conditions"), moved);
    }
    return named;
}

/* The rules of one kind with that for the new room, if there is one to make, in front. */
static struct json carry_kind(const struct succession *s, enum push_kind kind,
                              const struct json *rules)
{
    static const struct slice id[] = {LIT("rule_id")};
    struct json result = json_array();
    for (uint32_t i = 0; i < rules->count; i++) {
        struct json rule = json_without(s->ctx->arena, &rules->items[i], id, 1);
        bool named = kind == PUSH_ROOM
                         ? json_is_string(json_get(&rules->items[i], id[0]), s->old_id)
                         : move_conditions(s, &rule);
        if (named && !holds_rule(rules, s->new_id) && !holds_rule(&result, s->new_id)) {
            json_set(s->ctx->arena, &rule, id[0], json_string(s->new_id));
            json_push(s->ctx->arena, &result, rule);
        }
    }
    for (uint32_t i = 0; i < rules->count; i++) {
        json_push(s->ctx->arena, &result, rules->items[i]);
    }
    return result;
}

static struct err carry_rules(void *arg, struct ctx *ctx, struct json *stored)
{
    static const enum push_kind kinds[] = {PUSH_OVERRIDE, PUSH_ROOM, PUSH_UNDERRIDE};
    const struct succession *s = arg;
    const struct json *old = json_get_object(stored, LIT("global"));
    if (!old) {
        return OK;
    }
    struct json global = *old;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct slice word = push_kind_word(kinds[i]);
        const struct json *rules = json_get_array(&global, word);
        if (rules) {
            json_set(ctx->arena, &global, word, carry_kind(s, kinds[i], rules));
        }
    }
    json_set(ctx->arena, stored, LIT("global"), global);
    return OK;
}

/* --- tags and direct chats --- */

static struct err take_tags(void *arg, struct ctx *ctx, struct slice old, struct slice *content_out)
{
    (void)ctx;
    *content_out = old.ptr ? (struct slice){0} : *(const struct slice *)arg;
    return OK;
}

static struct err carry_tags(struct succession *s)
{
    struct slice tags;
    bool found = false;
    TRY(hs_account_data_get(s->hs, s->ctx, s->user, s->old_room, LIT("m.tag"), &tags, &found));
    struct account_data_edit edit = {.user = s->user,
                                     .room = s->new_room,
                                     .type = LIT("m.tag"),
                                     .make = take_tags,
                                     .arg = &tags};
    return found ? hs_account_data_edit(s->hs, s->ctx, &edit) : OK;
}

static bool holds(const struct json *list, struct slice text)
{
    for (uint32_t i = 0; list->type == JSON_ARRAY && i < list->count; i++) {
        if (json_is_string(&list->items[i], text)) {
            return true;
        }
    }
    return false;
}

static struct err add_direct(void *arg, struct ctx *ctx, struct slice old,
                             struct slice *content_out)
{
    const struct succession *s = arg;
    struct json direct;
    bool changed = false;
    if (!old.ptr) {
        return OK;
    }
    TRY(json_parse(ctx->arena, old, &direct));
    for (uint32_t i = 0; direct.type == JSON_OBJECT && i < direct.count; i++) {
        struct json *rooms = &direct.members[i].value;
        if (holds(rooms, s->old_id) && !holds(rooms, s->new_id)) {
            json_push(ctx->arena, rooms, json_string(s->new_id));
            changed = true;
        }
    }
    *content_out = changed ? json_canonical(ctx->arena, &direct) : (struct slice){0};
    return OK;
}

/* Image packs of the old room that the user has enabled everywhere: the new room has them too. */
static struct err add_image_packs(void *arg, struct ctx *ctx, struct slice old,
                                  struct slice *content_out)
{
    const struct succession *s = arg;
    struct json packs;
    if (!old.ptr) {
        return OK;
    }
    TRY(json_parse(ctx->arena, old, &packs));
    const struct json *rooms = json_get_object(&packs, LIT("rooms"));
    const struct json *enabled = json_get_object(rooms, s->old_id);
    if (!enabled || enabled->count == 0 || json_get(rooms, s->new_id)) {
        return OK;
    }
    struct json more = *rooms;
    json_set(ctx->arena, &more, s->new_id, *enabled);
    json_set(ctx->arena, &packs, LIT("rooms"), more);
    *content_out = json_canonical(ctx->arena, &packs);
    return OK;
}

struct err hs_succession_carry(struct hs *hs, struct ctx *ctx, struct room *room,
                               const struct actor *actor)
{
    struct succession s = {.hs = hs,
                           .ctx = ctx,
                           .user = actor->user,
                           .new_room = hs_room_info(room).number,
                           .new_id = hs_room_info(room).room_id};
    struct account_data_edit direct = {
        .user = actor->user, .type = LIT("m.direct"), .make = add_direct, .arg = &s};
    struct account_data_edit packs = {
        .user = actor->user, .type = LIT("m.image_pack.rooms"), .make = add_image_packs, .arg = &s};
    bool found = false;
    TRY(find_old(&s, room, &found));
    if (!found) {
        return OK;
    }
    TRY(hs_push_rules_edit(hs, ctx, actor->user, carry_rules, &s));
    TRY(carry_tags(&s));
    TRY(hs_account_data_edit(hs, ctx, &packs));
    return hs_account_data_edit(hs, ctx, &direct);
}
