/* Events as a viewer sees them: client format with unsigned data.
 * Spec: client-server, "Room event format", "Aggregations of child events". */
#include "homeserver/room/client_event.h"
#include "homeserver/room/redact.h"
#include "homeserver/room/relates.h"
#include "homeserver/service/delayed.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/timeline.h"

struct view {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct viewer *viewer;
};

static struct err write_previous(struct view *v, const struct stored_event *event,
                                 struct json_out *out)
{
    struct stored_event previous;
    bool found = false;
    bool erased = false;
    if (!event->replaces) {
        return OK;
    }
    TRY(hs_event_scan(v->hs, v->ctx, v->room, event->replaces, &previous, &found));
    if (found) {
        TRY(hs_is_erased_for(v->hs, v->ctx, v->room, v->viewer, &previous, &erased));
    }
    if (found && !erased) {
        json_out_key_raw(out, LIT("prev_content"), previous.event.content_json);
        json_out_key_string(out, LIT("prev_sender"), previous.event.sender.s);
        json_out_key_string(out, LIT("replaces_state"), previous.event.id.s);
    }
    return OK;
}

static struct err write_redaction(struct view *v, const struct stored_event *event,
                                  struct json_out *out)
{
    struct stored_event redaction;
    bool found = false;
    if (!event->redacted_by) {
        return OK;
    }
    TRY(hs_event_scan(v->hs, v->ctx, v->room, event->redacted_by, &redaction, &found));
    if (found) {
        json_out_key_string(out, LIT("redacted_by"), redaction.event.id.s);
        json_out_key(out, LIT("redacted_because"));
        struct client_event_options options = {.room_id = CLIENT_EVENT_WITH_ROOM_ID};
        client_event_write(v->ctx->arena, out, &redaction.event, &options);
    }
    return OK;
}

/* Whether the event came before the viewer had any membership: when the join that began the stay
 * replaced none, no look at the state is needed. */
static struct err is_of_stranger(struct view *v, const struct stored_event *event, bool *is_out)
{
    struct view_memo *memo = v->viewer->memo;
    struct stored_event join;
    bool found = false;
    *is_out = false;
    if (!memo || v->viewer->joined_from <= 0) {
        return OK;
    }
    if (memo->stranger_room != v->room) {
        TRY(hs_event_scan(v->hs, v->ctx, v->room, v->viewer->joined_from, &join, &found));
        bool first = found && !join.replaces &&
                     event_is(&join.event, LIT("m.room.member"), v->viewer->user_id);
        memo->stranger_room = v->room;
        memo->stranger_until = first ? v->viewer->joined_from : INT64_MIN;
    }
    *is_out = event->number < memo->stranger_until;
    return OK;
}

static struct err write_membership(struct view *v, const struct stored_event *event,
                                   struct json_out *out)
{
    enum membership membership = MEMBERSHIP_NONE;
    bool stranger = false;
    if (!v->viewer->user) {
        return OK;
    }
    if (event->number >= v->viewer->joined_from && event->number < v->viewer->joined_until) {
        json_out_key_string(out, LIT("membership"), LIT("join"));
        return OK;
    }
    TRY(is_of_stranger(v, event, &stranger));
    if (stranger) {
        json_out_key_string(out, LIT("membership"), LIT("leave"));
        return OK;
    }
    bool own = event_is(&event->event, LIT("m.room.member"), v->viewer->user_id);
    TRY(hs_viewer_membership(v->hs, v->ctx, v->room, v->viewer,
                             own ? event->state_after : event->state_before, &membership));
    struct slice word = membership_word(membership);
    json_out_key_string(out, LIT("membership"), word.len ? word : LIT("leave"));
    return OK;
}

static bool is_own_send(const struct viewer *viewer, const struct stored_event *event)
{
    return event->txn_id.len && viewer->user && viewer->user == event->sender &&
           slice_eq(viewer->device_id, event->device_id);
}

/* Spec: client-server, "Room Event Format", `age`: may be negative. Before room version 6 the time
 * that the other server told is any 64-bit number. */
static int64_t age_of(const struct view *v, const struct stored_event *event)
{
    int64_t age = 0;
    int64_t ts = event->event.origin_server_ts;
    if (__builtin_sub_overflow(now_wall_ms(v->ctx->now), ts, &age)) {
        return ts < 0 ? JSON_INT_MAX : -JSON_INT_MAX;
    }
    age = age > JSON_INT_MAX ? JSON_INT_MAX : age;
    return age < -JSON_INT_MAX ? -JSON_INT_MAX : age;
}

static struct err write_unsigned(struct view *v, const struct stored_event *event, uint32_t flags,
                                 struct json_out *out)
{
    json_out_object(out);
    json_out_key_int(out, LIT("age"), age_of(v, event));
    TRY(write_membership(v, event, out));
    TRY(write_previous(v, event, out));
    if (is_own_send(v->viewer, event)) {
        json_out_key_string(out, LIT("transaction_id"), event->txn_id);
    }
    if (event->txn_id.len && v->viewer->user == event->sender &&
        slice_eq(event->device_id, DELAYED_DEVICE)) {
        json_out_key_string(out, LIT("org.matrix.msc4140.delay_id"), event->txn_id);
    }
    TRY(write_redaction(v, event, out));
    if ((flags & (VIEW_BUNDLE | VIEW_IN_BUNDLE)) && (event->flags & EVENT_RELATED)) {
        struct slice members;
        struct stored_event target = *event;
        TRY(hs_event_parse_content(v->ctx, &target));
        struct bundle_wish wish = {v->room, v->viewer,
                                   flags & VIEW_IN_BUNDLE ? BUNDLE_WITHOUT_THREAD : BUNDLE_ALL};
        TRY(hs_bundle_relations(v->hs, v->ctx, &wish, &target, &members));
        if (members.len) {
            json_out_key(out, LIT("m.relations"));
            json_out_raw(out, arena_printf(v->ctx->arena, "{%.*s}", (int)members.len, members.ptr));
        }
    }
    json_out_object_end(out);
    return OK;
}

/* What is left of an event for those who come after its sender was erased. */
static struct err strip_erased(struct ctx *ctx, const struct stored_event *event,
                               struct stored_event *stripped_out)
{
    struct stored_event whole = *event;
    TRY(hs_event_parse_content(ctx, &whole));
    *stripped_out = whole;
    stripped_out->flags |= EVENT_REDACTED;
    stripped_out->client_open = (struct slice){0};
    return event_redacted(ctx->arena, &whole.event, &stripped_out->event);
}

static struct err write_event(struct view *v, const struct stored_event *event, uint32_t flags,
                              struct json_out *out)
{
    const struct viewer *viewer = v->viewer;
    struct ctx *ctx = v->ctx;
    if (event->client_open.len && !viewer->field_count && !(flags & VIEW_ROOM_ID)) {
        json_out_raw(out, event->client_open);
        json_out_key(out, LIT("unsigned"));
        TRY(write_unsigned(v, event, flags, out));
        json_out_object_end(out);
        return OK;
    }
    struct buf more;
    buf_init_arena(&more, ctx->arena, SIZE_MAX / 2);
    struct json_out unsigned_out = json_out_to(&more);
    TRY(write_unsigned(v, event, flags, &unsigned_out));
    struct client_event_options options = {
        .room_id = flags & VIEW_ROOM_ID ? CLIENT_EVENT_WITH_ROOM_ID : CLIENT_EVENT_WITHOUT_ROOM_ID,
        .unsigned_json = buf_slice(&more),
        .fields = viewer->fields,
        .field_count = viewer->field_count};
    client_event_write(ctx->arena, out, &event->event, &options);
    return OK;
}

struct err hs_write_event(struct hs *hs, struct ctx *ctx, struct room *room,
                          const struct viewer *viewer, const struct stored_event *event,
                          uint32_t flags, struct json_out *out)
{
    struct view view = {hs, ctx, room, viewer};
    struct stored_event stripped;
    bool erased = false;
    TRY(hs_is_erased_for(hs, ctx, room, viewer, event, &erased));
    if (erased) {
        TRY(strip_erased(ctx, event, &stripped));
    }
    return write_event(&view, erased ? &stripped : event, flags, out);
}

struct err hs_write_server_event(struct hs *hs, struct ctx *ctx, struct room *room,
                                 const struct viewer *viewer, const struct stored_event *event,
                                 struct json_out *out)
{
    struct stored_event stripped;
    bool erased = false;
    TRY(hs_is_erased_for(hs, ctx, room, viewer, event, &erased));
    if (erased) {
        TRY(strip_erased(ctx, event, &stripped));
    }
    json_out_raw(out, erased ? stripped.event.json : event->event.json);
    return OK;
}

void hs_write_stripped(struct json_out *out, const struct stored_event *event)
{
    client_event_write_stripped(out, &event->event);
}

struct err hs_write_stripped_state(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t root,
                                   struct slice also_member, struct json_out *out)
{
    /* Spec: client-server, "Stripped state": what a client needs to show an invite or a knock. */
    static const struct slice types[] = {
        {"m.room.create", 13},     {"m.room.name", 11},       {"m.room.avatar", 13},
        {"m.room.topic", 12},      {"m.room.join_rules", 17}, {"m.room.canonical_alias", 22},
        {"m.room.encryption", 17},
    };
    struct stored_event event;
    bool found = false;
    json_out_array(out);
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        TRY(hs_state_event(hs, ctx, room, root, types[i], LIT(""), &event, &found));
        if (found) {
            hs_write_stripped(out, &event);
        }
    }
    if (also_member.len) {
        TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.member"), also_member, &event, &found));
        if (found) {
            struct slice inviter = event.event.sender.s;
            hs_write_stripped(out, &event);
            if (!slice_eq(inviter, also_member)) {
                TRY(hs_state_event(hs, ctx, room, root, LIT("m.room.member"), inviter, &event,
                                   &found));
            } else {
                found = false;
            }
        }
        if (found) {
            hs_write_stripped(out, &event);
        }
    }
    json_out_array_end(out);
    return OK;
}
