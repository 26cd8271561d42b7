#include "homeserver/room/relates.h"

struct relation relates_parse(const struct json *content)
{
    const struct json *relates = json_get_object(content, LIT("m.relates_to"));
    const struct json *reply = json_get_object(relates, LIT("m.in_reply_to"));
    struct relation relation = {
        .in_reply_to = ids_trust_event(json_get_string(reply, LIT("event_id"))),
    };
    struct slice rel_type = json_get_string(relates, LIT("rel_type"));
    struct slice event_id = json_get_string(relates, LIT("event_id"));
    if (rel_type.len && event_id.len) {
        relation.rel_type = rel_type;
        relation.event_id = ids_trust_event(event_id);
        relation.key = json_get_string(relates, LIT("key"));
        relation.is_falling_back = json_get_bool(relates, LIT("is_falling_back"), false);
    }
    return relation;
}

bool relates_is(const struct relation *relation, struct slice rel_type)
{
    return slice_eq(relation->rel_type, rel_type);
}

static bool is_edit(const struct event *event)
{
    struct relation relation = relates_parse(event->content);
    return relates_is(&relation, LIT("m.replace"));
}

bool relates_is_valid_edit(const struct event *edit, const struct event *original)
{
    struct relation relation = relates_parse(edit->content);
    if (!relates_is(&relation, LIT("m.replace")) ||
        !ids_event_eq(relation.event_id, original->id)) {
        return false;
    }
    if (!ids_room_eq(edit->room_id, original->room_id) ||
        !ids_user_eq(edit->sender, original->sender) || !slice_eq(edit->type, original->type)) {
        return false;
    }
    if (edit->has_state_key || original->has_state_key || is_edit(original)) {
        return false;
    }
    return slice_eq(edit->type, LIT("m.room.encrypted")) ||
           json_get_object(edit->content, LIT("m.new_content"));
}

bool relates_is_newer_edit(const struct event *edit, const struct event *than)
{
    if (edit->origin_server_ts != than->origin_server_ts) {
        return edit->origin_server_ts > than->origin_server_ts;
    }
    return slice_cmp(edit->id.s, than->id.s) > 0;
}

struct event_id relates_thread_root(const struct json *content)
{
    struct relation relation = relates_parse(content);
    return relates_is(&relation, LIT("m.thread")) ? relation.event_id : (struct event_id){0};
}

bool relates_may_be_thread_root(const struct json *content)
{
    const struct json *relates = json_get_object(content, LIT("m.relates_to"));
    return json_get(relates, LIT("rel_type")) == NULL;
}
