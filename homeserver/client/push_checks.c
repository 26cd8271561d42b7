#include "homeserver/client/push_priv.h"

#include "spec/errcodes.h"

/* Those of earlier versions are taken and do nothing. */
static bool is_action_word(const struct json *action)
{
    return json_is_string(action, LIT("notify")) || json_is_string(action, LIT("dont_notify")) ||
           json_is_string(action, LIT("coalesce"));
}

struct err cs_push_check_actions(const struct json *actions)
{
    if (!actions) {
        return err_public(ERR_M_MISSING_PARAM, "`actions` is missing.");
    }
    if (actions->type != JSON_ARRAY) {
        return err_public(ERR_M_BAD_JSON, "`actions` must be an array.");
    }
    for (uint32_t i = 0; i < actions->count; i++) {
        const struct json *action = &actions->items[i];
        bool is_tweak =
            action->type == JSON_OBJECT && json_get_string(action, LIT("set_tweak")).ptr;
        if (!is_tweak && !is_action_word(action)) {
            return err_public(ERR_M_INVALID_PARAM,
                              "An action must be \"notify\" or an object with `set_tweak`.");
        }
    }
    return OK;
}

/* Which members a condition of a kind must have. */
struct condition_form {
    struct slice kind;
    struct slice strings[2];
    bool has_value; /* and a `value` that is neither object nor array */
};

static const struct condition_form forms[] = {
    {LIT("event_match"), {LIT("key"), LIT("pattern")}, false},
    {LIT("event_property_is"), {LIT("key")}, true},
    {LIT("event_property_contains"), {LIT("key")}, true},
    {LIT("room_member_count"), {LIT("is")}, false},
    {LIT("sender_notification_permission"), {LIT("key")}, false},
};

static bool has_form(const struct json *condition, const struct condition_form *form)
{
    for (size_t i = 0; i < COUNT_OF(form->strings) && form->strings[i].len; i++) {
        if (!json_get_string(condition, form->strings[i]).ptr) {
            return false;
        }
    }
    const struct json *value = json_get(condition, LIT("value"));
    return !form->has_value || (value && value->type != JSON_OBJECT && value->type != JSON_ARRAY);
}

static bool is_condition(const struct json *condition)
{
    struct slice kind = json_get_string(condition, LIT("kind"));
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        if (slice_eq(kind, forms[i].kind)) {
            return has_form(condition, &forms[i]);
        }
    }
    return kind.ptr != NULL;
}

struct err cs_push_check_conditions(const struct json *conditions)
{
    if (!conditions) {
        return OK;
    }
    if (conditions->type != JSON_ARRAY) {
        return err_public(ERR_M_BAD_JSON, "`conditions` must be an array.");
    }
    for (uint32_t i = 0; i < conditions->count; i++) {
        const struct json *condition = &conditions->items[i];
        if (condition->type != JSON_OBJECT || !is_condition(condition)) {
            return err_public(ERR_M_INVALID_PARAM,
                              "A condition lacks its `kind`, or what its kind needs.");
        }
    }
    return OK;
}
