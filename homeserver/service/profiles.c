#include "homeserver/service/appservices.h"
#include "homeserver/service/news.h"
#include "homeserver/service/profile_log.h"
#include "homeserver/service/users_priv.h"

static bool is_field_name(struct slice field)
{
    for (size_t i = 0; i < field.len; i++) {
        char c = field.ptr[i];
        bool letter = c >= 'a' && c <= 'z';
        bool other = (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
        if (!letter && (i == 0 || !other)) {
            return false;
        }
    }
    return field.len > 0;
}

static bool is_name_field(struct slice field)
{
    return slice_eq(field, LIT("displayname")) || slice_eq(field, LIT("avatar_url"));
}

/* Spec: client-server, "Profiles": the grammar of keys, the types of the known ones. */
static struct err check_field(struct slice field, const struct json *value)
{
    if (field.len > PROFILE_KEY_BYTES_MAX) {
        return err_make(ERR_M_KEY_TOO_LARGE, "profile key");
    }
    if (!is_field_name(field)) {
        return err_public(ERR_M_INVALID_PARAM, "This is not a valid name of a profile field.");
    }
    if (value && value->type != JSON_STRING &&
        (is_name_field(field) || slice_eq(field, LIT("m.tz")))) {
        return err_public(ERR_M_BAD_JSON, "The value of this profile field must be a string.");
    }
    return OK;
}

struct err hs_profile_load(struct hs *hs, struct ctx *ctx, uint64_t user, struct json *profile_out)
{
    struct store_rows rows;
    *profile_out = json_object();
    TRY(users_rows(hs, ctx, user, USER_ROW_PROFILE, &rows));
    for (size_t i = 0; i < rows.count; i++) {
        struct json value;
        if (json_parse(ctx->arena, rows.rows[i].value, &value).code != 0) {
            return err_make(ERR_CORRUPT, "a profile field is not JSON");
        }
        json_set(ctx->arena, profile_out, slice_from(rows.rows[i].key, 1), value);
    }
    return OK;
}

struct err hs_profile_get(struct hs *hs, struct ctx *ctx, struct slice user_id,
                          struct json *profile_out)
{
    uint64_t user = 0;
    bool found = false;
    if (!hs_user_is_local(hs, user_id)) {
        return hs->users->profile_remote
                   ? hs->users->profile_remote(hs, ctx, user_id, profile_out)
                   : err_public(ERR_M_NOT_FOUND, "The server of this user cannot be asked.");
    }
    TRY(hs_appservices_find_user(hs, ctx, user_id, &user, &found));
    if (!found) {
        return err_public(ERR_M_NOT_FOUND, "There is no such user.");
    }
    return hs_profile_load(hs, ctx, user, profile_out);
}

static struct err load_text(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice field,
                            struct slice *text_out)
{
    struct slice value;
    struct json json;
    bool found = false;
    *text_out = (struct slice){0};
    TRY(store_get(hs->store, ctx, users_object(ctx, user),
                  users_row_key(ctx, USER_ROW_PROFILE, field), &value, &found));
    if (found && json_parse(ctx->arena, value, &json).code == 0 && json.type == JSON_STRING) {
        *text_out = json.text;
    }
    return OK;
}

struct err hs_profile_names(struct hs *hs, struct ctx *ctx, uint64_t user,
                            struct slice *displayname_out, struct slice *avatar_url_out)
{
    TRY(load_text(hs, ctx, user, LIT("displayname"), displayname_out));
    return load_text(hs, ctx, user, LIT("avatar_url"), avatar_url_out);
}

static struct err set_in_lane(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice field,
                              const struct json *value)
{
    struct json profile;
    TRY(hs_profile_load(hs, ctx, user, &profile));
    const struct json *before = json_get(&profile, field);
    if (value ? before && json_eq(before, value) : before == NULL) {
        return OK;
    }
    struct store_update *update = store_update_new(ctx, users_object(ctx, user));
    struct slice key = users_row_key(ctx, USER_ROW_PROFILE, field);
    if (value) {
        json_set(ctx->arena, &profile, field, *value);
        if (json_canonical(ctx->arena, &profile).len > PROFILE_BYTES_MAX) {
            return err_make(ERR_M_PROFILE_TOO_LARGE, "profile");
        }
        store_put(update, key, json_canonical(ctx->arena, value));
    } else {
        store_delete(update, key);
    }
    TRY(store_write(hs->store, ctx, &update, 1));
    hs_profile_publish(hs, ctx, user, field);
    return OK;
}

struct err hs_profile_set(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice field,
                          const struct json *value)
{
    TRY(check_field(field, value));
    /* Clients take an empty name or picture for "none". */
    if (value && value->type == JSON_STRING && value->text.len == 0 && is_name_field(field)) {
        value = NULL;
    }
    hs_user_lane_enter(hs, user);
    struct err err = set_in_lane(hs, ctx, user, field, value);
    hs_user_lane_leave(hs, user);
    TRY(err);
    hs_news_account(hs, user);
    /* Also when the field had this value: the first attempt may have stopped half-way. */
    for (size_t i = 0; i < HOOKS_MAX && hs->users->on_profile_change[i]; i++) {
        TRY(hs->users->on_profile_change[i](hs, ctx, user, field));
    }
    return OK;
}

void hs_on_profile_change(struct hs *hs, hs_profile_fn fn)
{
    size_t i = 0;
    while (i < HOOKS_MAX && hs->users->on_profile_change[i]) {
        i++;
    }
    ASSERT(i < HOOKS_MAX);
    hs->users->on_profile_change[i] = fn;
}

void hs_profile_set_remote(struct hs *hs, hs_profile_remote_fn fn)
{
    hs->users->profile_remote = fn;
}
