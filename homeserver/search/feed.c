#include "homeserver/search/feed.h"

#include "homeserver/room/join_rules.h"
#include "homeserver/room/relates.h"
#include "homeserver/room/visibility.h"
#include "homeserver/search/people.h"
#include "homeserver/search/words.h"
#include "homeserver/service/profiles.h"
#include "homeserver/service/relations.h"
#include "homeserver/service/users.h"

/* --- texts --- */

/* Spec: m.room.topic is searched by `topic` and by the text/plain form in `m.topic`. */
static struct slice text_of_topic(struct arena *arena, const struct json *content)
{
    struct slice topic = json_get_string(content, LIT("topic"));
    const struct json *forms =
        json_get_array(json_get_object(content, LIT("m.topic")), LIT("m.text"));
    for (size_t i = 0; forms && i < forms->count; i++) {
        struct slice kind = json_get_string(&forms->items[i], LIT("mimetype"));
        struct slice body = json_get_string(&forms->items[i], LIT("body"));
        if (body.ptr && (!kind.ptr || slice_eq(kind, LIT("text/plain"))) &&
            !slice_eq(body, topic)) {
            return topic.ptr ? arena_printf(arena, "%.*s\n%.*s", (int)topic.len, topic.ptr,
                                            (int)body.len, body.ptr)
                             : body;
        }
    }
    return topic;
}

static struct slice text_of_message(struct arena *arena, const struct json *content)
{
    struct slice body = json_get_string(content, LIT("body"));
    struct slice html = json_get_string(content, LIT("formatted_body"));
    return body.ptr || !html.ptr ? body : search_words_of_html(arena, html);
}

static bool is_message(const struct event *event)
{
    return !event->has_state_key && slice_eq(event->type, LIT("m.room.message"));
}

/* What of the event is looked for; ptr NULL = nothing. */
static struct slice text_of(struct arena *arena, const struct event *event, uint32_t *flags_out)
{
    *flags_out = 0;
    if (is_message(event)) {
        *flags_out = SEARCH_DOC_BODY;
        return text_of_message(arena, event->content);
    }
    if (event_is(event, LIT("m.room.name"), LIT(""))) {
        *flags_out = SEARCH_DOC_NAME;
        return json_get_string(event->content, LIT("name"));
    }
    if (event_is(event, LIT("m.room.topic"), LIT(""))) {
        *flags_out = SEARCH_DOC_TOPIC;
        return text_of_topic(arena, event->content);
    }
    return (struct slice){0};
}

static bool may_have_text(const struct event *event)
{
    return is_message(event) || event_is(event, LIT("m.room.name"), LIT("")) ||
           event_is(event, LIT("m.room.topic"), LIT(""));
}

/* The newest valid edit of a message. */
static struct err newest_edit(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                              const struct stored_event *target, struct stored_event *edit_out,
                              bool *found_out)
{
    struct hs_relations relations;
    *found_out = false;
    if (!is_message(&target->event) || !(target->flags & EVENT_RELATED)) {
        return OK;
    }
    TRY(hs_relations_of(feed->hs, ctx, room, target->event.id.s, 1, &relations));
    for (size_t i = 0; i < relations.count; i++) {
        const struct hs_relation *relation = &relations.items[i];
        struct stored_event edit;
        bool found = false;
        if (!slice_eq(relation->rel_type, LIT("m.replace")) || relation->sender != target->sender) {
            continue;
        }
        TRY(hs_event_load(feed->hs, ctx, room, relation->number, &edit, &found));
        if (found && !(edit.flags & (EVENT_HIDDEN | EVENT_REDACTED)) &&
            relates_is_valid_edit(&edit.event, &target->event) &&
            (!*found_out || relates_is_newer_edit(&edit.event, &edit_out->event))) {
            *edit_out = edit;
            *found_out = true;
        }
    }
    return OK;
}

static struct err put_text(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                           struct stored_event *event)
{
    struct stored_event edit;
    bool is_edited = false;
    uint64_t number = hs_room_info(room).number;
    struct search_doc doc = {.room = number,
                             .number = event->number,
                             .ts_ms = event->event.origin_server_ts,
                             .sender = event->sender};
    TRY(hs_event_parse_content(ctx, event));
    doc.text = text_of(ctx->arena, &event->event, &doc.flags);
    TRY(newest_edit(feed, ctx, room, event, &edit, &is_edited));
    if (is_edited) {
        const struct json *now = json_get_object(edit.event.content, LIT("m.new_content"));
        doc.text = text_of_message(ctx->arena, now);
        doc.edit = edit.number;
    }
    if (!doc.text.ptr || (event->flags & (EVENT_REDACTED | EVENT_HIDDEN))) {
        return search_index_drop(feed->index, number, event->number);
    }
    doc.flags |= json_get_string(event->event.content, LIT("url")).ptr ? SEARCH_DOC_URL : 0;
    doc.text = search_words_spread(ctx->arena, doc.text);
    return search_index_put(feed->index, &doc);
}

/* The text of an event as it is now. */
static struct err put_text_of(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                              int64_t number)
{
    struct stored_event event;
    bool found = false;
    TRY(hs_event_load(feed->hs, ctx, room, number, &event, &found));
    if (found && may_have_text(&event.event)) {
        return put_text(feed, ctx, room, &event);
    }
    return search_index_drop(feed->index, hs_room_info(room).number, number);
}

struct err search_feed_text(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                            struct stored_event *event, enum search_edits edits)
{
    if ((event->flags & EVENT_HIDDEN) || !may_have_text(&event->event)) {
        return OK;
    }
    TRY(hs_event_parse_content(ctx, event));
    struct relation relation = relates_parse(event->event.content);
    if (!is_message(&event->event) || !relates_is(&relation, LIT("m.replace"))) {
        return put_text(feed, ctx, room, event);
    }
    /* An edit is no text of its own. */
    struct stored_event target;
    bool found = false;
    if (edits == SEARCH_WITH_EDITS) {
        TRY(hs_event_find(feed->hs, ctx, room, relation.event_id.s, &target, &found));
    }
    if (found && relates_is_valid_edit(&event->event, &target.event)) {
        return put_text(feed, ctx, room, &target);
    }
    return OK;
}

/* What was redacted loses its text; if it was an edit, its target gets the one before back. */
static struct err take_redaction(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                                 const struct stored_event *redaction)
{
    struct stored_event target;
    int64_t edited = 0;
    bool found = false;
    uint64_t number = hs_room_info(room).number;
    TRY(hs_event_find(feed->hs, ctx, room, redaction->event.redacts.s, &target, &found));
    if (!found || !(target.flags & EVENT_REDACTED) || !may_have_text(&target.event)) {
        return OK;
    }
    TRY(search_index_drop(feed->index, number, target.number));
    TRY(search_index_edited(feed->index, number, target.number, &edited, &found));
    return found ? put_text_of(feed, ctx, room, edited) : OK;
}

struct err search_feed_takes_room(const struct search_feed *feed, struct ctx *ctx,
                                  struct room *room, bool *takes_out)
{
    struct stored_event event;
    bool is_encrypted = false;
    *takes_out = false;
    if (feed->takes_texts) {
        TRY(hs_state_event(feed->hs, ctx, room, hs_room_head(room).root, LIT("m.room.encryption"),
                           LIT(""), &event, &is_encrypted));
        *takes_out = !is_encrypted;
    }
    return OK;
}

/* --- people --- */

/* Spec: users "who are joined to rooms known to the homeserver that have a `public` join rule" or
 * "a `world_readable` history visibility" can be found by everybody. Of a room that nobody here is
 * in any more, the members are not known. */
static struct err is_open(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                          bool *open_out)
{
    struct stored_event event;
    bool found = false;
    uint64_t root = hs_room_head(room).root;
    *open_out = false;
    if (!hs_room_is_resident(room)) {
        return OK;
    }
    TRY(hs_state_event(feed->hs, ctx, room, root, LIT("m.room.join_rules"), LIT(""), &event,
                       &found));
    if (found && join_rules_rule(&event.event) == JOIN_RULE_PUBLIC) {
        *open_out = true;
        return OK;
    }
    TRY(hs_state_event(feed->hs, ctx, room, root, LIT("m.room.history_visibility"), LIT(""), &event,
                       &found));
    *open_out = found && visibility_of(&event.event) == HISTORY_WORLD_READABLE;
    return OK;
}

struct err search_feed_account(const struct search_feed *feed, struct ctx *ctx, uint64_t user)
{
    struct account account;
    struct search_person person = {.user = user};
    bool found = false;
    TRY(hs_account_get(feed->hs, ctx, user, &account, &found));
    if (!found || (account.flags & ACCOUNT_DEACTIVATED)) {
        return search_people_drop(feed->index, ctx, user);
    }
    person.user_id = account.user_id;
    TRY(hs_profile_names(feed->hs, ctx, user, &person.display_name, &person.avatar_url));
    return search_people_put(feed->index, ctx, &person);
}

static struct err put_remote(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                             const struct room_member *member, bool open)
{
    const struct search_person person = {.user = member->user,
                                         .user_id = member->user_id,
                                         .display_name = member->display_name,
                                         .avatar_url = member->avatar_url,
                                         .told_in = open ? 0 : hs_room_info(room).number};
    return search_people_put(feed->index, ctx, &person);
}

/* A user of another server stays as long as a room of this server has them. */
static struct err drop_if_gone(const struct search_feed *feed, struct ctx *ctx, uint64_t user)
{
    struct user_rooms rooms;
    TRY(hs_user_rooms(feed->hs, ctx, user, &rooms));
    for (size_t i = 0; i < rooms.count; i++) {
        if (rooms.items[i].membership == MEMBERSHIP_JOIN) {
            return OK;
        }
    }
    return search_people_drop(feed->index, ctx, user);
}

static struct err take_member(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                              const struct stored_event *event, bool *room_changed_out)
{
    struct room_member member;
    uint64_t user = 0;
    bool found = false;
    bool open = false;
    TRY(hs_user_find(feed->hs, ctx, event->event.state_key, &user, &found));
    if (!found) {
        return OK;
    }
    TRY(is_open(feed, ctx, room, &open));
    if (hs_user_is_local(feed->hs, event->event.state_key)) {
        *room_changed_out = (event->flags & EVENT_RESTART) != 0;
        TRY(search_rooms_set_open(feed->index, hs_room_info(room).number, open));
        return search_feed_account(feed, ctx, user);
    }
    TRY(hs_room_member(feed->hs, ctx, room, user, &member, &found));
    if (found && member.membership == MEMBERSHIP_JOIN) {
        return put_remote(feed, ctx, room, &member, open);
    }
    return drop_if_gone(feed, ctx, user);
}

struct remotes {
    const struct search_feed *feed;
    struct room *room;
    bool is_open;
};

static struct err put_if_remote(void *arg, struct ctx *page, const struct room_member *member)
{
    const struct remotes *remotes = arg;
    bool is_remote = member->membership == MEMBERSHIP_JOIN &&
                     !hs_user_is_local(remotes->feed->hs, member->user_id);
    return is_remote ? put_remote(remotes->feed, page, remotes->room, member, remotes->is_open)
                     : OK;
}

struct err search_feed_room(const struct search_feed *feed, struct ctx *ctx, struct room *room)
{
    bool open = false;
    TRY(is_open(feed, ctx, room, &open));
    TRY(search_rooms_set_open(feed->index, hs_room_info(room).number, open));
    if (!hs_room_is_resident(room)) {
        return OK;
    }
    struct remotes remotes = {feed, room, open};
    return hs_room_members_each(feed->hs, ctx, room, put_if_remote, &remotes);
}

/* --- events --- */

struct err search_feed_event(const struct search_feed *feed, struct ctx *ctx, struct room *room,
                             const struct stored_event *event, bool *room_changed_out)
{
    struct stored_event own = *event;
    bool takes = false;
    *room_changed_out = false;
    if (event_is_state(&event->event) && slice_eq(event->event.type, LIT("m.room.member"))) {
        return take_member(feed, ctx, room, event, room_changed_out);
    }
    if (event_is(&event->event, LIT("m.room.join_rules"), LIT("")) ||
        event_is(&event->event, LIT("m.room.history_visibility"), LIT(""))) {
        *room_changed_out = true;
        return OK;
    }
    bool encrypts = event_is(&event->event, LIT("m.room.encryption"), LIT(""));
    bool redacts = slice_eq(event->event.type, LIT("m.room.redaction"));
    if (!encrypts && !redacts && !may_have_text(&event->event)) {
        return OK;
    }
    TRY(search_feed_takes_room(feed, ctx, room, &takes));
    if (encrypts) {
        return takes ? OK : search_index_drop_room(feed->index, hs_room_info(room).number);
    }
    if (takes && redacts) {
        return take_redaction(feed, ctx, room, event);
    }
    return takes ? search_feed_text(feed, ctx, room, &own, SEARCH_WITH_EDITS) : OK;
}
