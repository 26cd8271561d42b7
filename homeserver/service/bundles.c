/* Aggregations bundled with an event. Spec: client-server, "Aggregations of child events",
 * "Server-side aggregation of m.replace / m.thread / m.reference relationships". */
#include "homeserver/room/relates.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/timeline.h"

struct bundle {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    const struct viewer *viewer;
    const struct stored_event *target;
    struct relation_rows rows;
    struct json_out *out;
};

/* Reads a child without its content; found is false when the viewer may not see it, ignores its
 * sender, or it is gone.
 */
static struct err load_child(struct bundle *b, int64_t number, struct stored_event *child_out,
                             bool *found_out)
{
    bool visible = false;
    TRY(hs_event_scan(b->hs, b->ctx, b->room, number, child_out, found_out));
    if (!*found_out || (child_out->flags & (EVENT_REJECTED | EVENT_SOFT_FAILED | EVENT_OUTLIER))) {
        *found_out = false;
        return OK;
    }
    TRY(hs_can_see(b->hs, b->ctx, b->room, b->viewer, child_out, &visible));
    struct stored_events one = {child_out, visible ? 1 : 0};
    if (visible && b->viewer->user) {
        TRY(hs_drop_ignored(b->hs, b->ctx, b->viewer->user, &one));
    }
    *found_out = one.count != 0;
    return OK;
}

static struct err bundle_edit(struct bundle *b)
{
    struct stored_event newest = {0};
    if (b->target->flags & EVENT_REDACTED) {
        return OK;
    }
    for (size_t i = 0; i < b->rows.count; i++) {
        struct stored_event edit;
        bool found = false;
        if (!slice_eq(b->rows.items[i].rel_type, LIT("m.replace")) ||
            b->rows.items[i].sender != b->target->sender) {
            continue;
        }
        TRY(load_child(b, b->rows.items[i].child, &edit, &found));
        if (found) {
            TRY(hs_event_parse_content(b->ctx, &edit));
        }
        if (found && relates_is_valid_edit(&edit.event, &b->target->event) &&
            (!newest.number || relates_is_newer_edit(&edit.event, &newest.event))) {
            newest = edit;
        }
    }
    if (newest.number) {
        json_out_key(b->out, LIT("m.replace"));
        return hs_write_event(b->hs, b->ctx, b->room, b->viewer, &newest, VIEW_ROOM_ID, b->out);
    }
    return OK;
}

static struct err bundle_thread(struct bundle *b)
{
    struct stored_event latest = {0};
    int64_t count = 0;
    bool participated = b->viewer->user && b->viewer->user == b->target->sender;
    for (size_t i = 0; i < b->rows.count; i++) {
        struct stored_event reply;
        bool found = false;
        if (!slice_eq(b->rows.items[i].rel_type, LIT("m.thread"))) {
            continue;
        }
        TRY(load_child(b, b->rows.items[i].child, &reply, &found));
        if (found) {
            latest = reply;
            count++;
            participated = participated || reply.sender == b->viewer->user;
        }
    }
    if (count == 0) {
        return OK;
    }
    json_out_key_object(b->out, LIT("m.thread"));
    json_out_key(b->out, LIT("latest_event"));
    /* Spec: "The server should be careful to avoid loops": other servers send replies to replies.
     */
    TRY(hs_write_event(b->hs, b->ctx, b->room, b->viewer, &latest, VIEW_ROOM_ID | VIEW_IN_BUNDLE,
                       b->out));
    json_out_key_int(b->out, LIT("count"), count);
    json_out_key_bool(b->out, LIT("current_user_participated"), participated);
    json_out_object_end(b->out);
    return OK;
}

static struct err bundle_references(struct bundle *b)
{
    bool any = false;
    for (size_t i = 0; i < b->rows.count; i++) {
        struct stored_event child;
        bool found = false;
        if (!slice_eq(b->rows.items[i].rel_type, LIT("m.reference"))) {
            continue;
        }
        TRY(load_child(b, b->rows.items[i].child, &child, &found));
        if (!found) {
            continue;
        }
        if (!any) {
            json_out_key_object(b->out, LIT("m.reference"));
            json_out_key_array(b->out, LIT("chunk"));
        }
        any = true;
        json_out_object(b->out);
        json_out_key_string(b->out, LIT("event_id"), child.event.id.s);
        json_out_object_end(b->out);
    }
    if (any) {
        json_out_array_end(b->out);
        json_out_object_end(b->out);
    }
    return OK;
}

struct err hs_bundle_relations(struct hs *hs, struct ctx *ctx, const struct bundle_wish *wish,
                               const struct stored_event *event, struct slice *members_out)
{
    struct buf text;
    buf_init_arena(&text, ctx->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&text);
    struct bundle bundle = {hs, ctx, wish->room, wish->viewer, event, .out = &out};
    *members_out = (struct slice){0};
    /* Spec: "Servers MUST NOT bundle with state events". */
    if (event->event.has_state_key) {
        return OK;
    }
    TRY(room_relations(hs, ctx, wish->room, event->event.id.s, &bundle.rows));
    TRY(bundle_edit(&bundle));
    if (wish->depth == BUNDLE_ALL) {
        TRY(bundle_thread(&bundle));
    }
    TRY(bundle_references(&bundle));
    *members_out = buf_slice(&text);
    return OK;
}
