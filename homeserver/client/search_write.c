/* Writing what a search found: events with their surroundings, groups, state of rooms.
 * Spec: client-server, "Server Side Search". */
#include "homeserver/client/search_priv.h"
#include "homeserver/service/intake.h"
#include "homeserver/service/prefs.h"

#include <inttypes.h>

/* --- the surroundings of an event --- */

struct surroundings {
    struct stored_events before, after;
};

static struct err read_side(struct search_page *page, const struct search_result *result,
                            struct event_range range, struct stored_events *events_out)
{
    struct hs *hs = page->call.hs;
    struct ctx *ctx = page->call.ctx;
    struct viewer viewer = page->call.viewer;
    viewer.memo = &result->visit->memo;
    *events_out = (struct stored_events){0};
    if (range.limit == 0) {
        return OK;
    }
    range.from = result->event.number;
    range.form = EVENTS_SCANNED;
    TRY(hs_events_read(hs, ctx, result->visit->room, range, events_out));
    TRY(hs_keep_visible(hs, ctx, result->visit->room, &viewer, events_out));
    return hs_drop_ignored(hs, ctx, viewer.user, events_out);
}

/* What lies beyond a gap is no neighbour. */
static struct err read_surroundings(struct search_page *page, const struct search_result *result,
                                    struct surroundings *out)
{
    struct event_range back = {.limit = page->options.before, .order = EVENTS_REVERSE};
    struct event_range on = {.limit = page->options.after, .order = EVENTS_FORWARD};
    struct intake_edge *edges = NULL;
    size_t count = 0;
    back.to = INT64_MIN + 1;
    TRY(hs_intake_edges(page->call.hs, page->call.ctx, result->visit->room, &edges, &count));
    for (size_t i = 0; i < count; i++) {
        int64_t at = edges[i].cited_by;
        if (at <= result->event.number) {
            back.to = at - 1 > back.to ? at - 1 : back.to;
        } else {
            on.to = !on.to || at < on.to ? at : on.to;
        }
    }
    TRY(read_side(page, result, back, &out->before));
    return read_side(page, result, on, &out->after);
}

static struct err write_events(struct search_page *page, const struct search_result *result,
                               struct slice key, const struct stored_events *events)
{
    struct viewer viewer = page->call.viewer;
    viewer.memo = &result->visit->memo;
    json_out_key_array(&page->call.out, key);
    for (size_t i = 0; i < events->count; i++) {
        TRY(hs_write_event(page->call.hs, page->call.ctx, result->visit->room, &viewer,
                           &events->items[i], VIEW_ROOM_ID | VIEW_BUNDLE, &page->call.out));
    }
    json_out_array_end(&page->call.out);
    return OK;
}

/* The profile that a sender had in the room when the result was sent. */
static struct err write_profile(struct search_page *page, const struct search_result *result,
                                struct slice user_id)
{
    static const struct slice fields[] = {{"displayname", 11}, {"avatar_url", 10}};
    struct json_out *out = &page->call.out;
    struct stored_event member;
    bool found = false;
    TRY(hs_state_event(page->call.hs, page->call.ctx, result->visit->room,
                       result->event.state_before, LIT("m.room.member"), user_id, &member, &found));
    json_out_key_object(out, user_id);
    for (size_t i = 0; found && i < COUNT_OF(fields); i++) {
        struct slice text = json_get_string(member.event.content, fields[i]);
        if (text.ptr) {
            json_out_key_string(out, fields[i], text);
        }
    }
    json_out_object_end(out);
    return OK;
}

static bool is_among(const struct slice *names, size_t count, struct slice name)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(names[i], name)) {
            return true;
        }
    }
    return false;
}

static struct err write_profiles(struct search_page *page, const struct search_result *result,
                                 const struct surroundings *around)
{
    const struct stored_events own = {(struct stored_event *)(uintptr_t)&result->event, 1};
    const struct stored_events *const lists[] = {&own, &around->before, &around->after};
    struct slice senders[2 * SEARCH_CONTEXT_MAX + 1];
    size_t count = 0;
    json_out_key_object(&page->call.out, LIT("profile_info"));
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        for (size_t j = 0; j < lists[i]->count; j++) {
            struct slice sender = lists[i]->items[j].event.sender.s;
            if (!is_among(senders, count, sender)) {
                senders[count++] = sender;
                TRY(write_profile(page, result, sender));
            }
        }
    }
    json_out_object_end(&page->call.out);
    return OK;
}

static struct err write_context(struct search_page *page, const struct search_result *result)
{
    struct json_out *out = &page->call.out;
    struct surroundings around;
    TRY(read_surroundings(page, result, &around));
    int64_t first = around.before.count ? around.before.items[around.before.count - 1].number
                                        : result->event.number;
    int64_t last = around.after.count ? around.after.items[around.after.count - 1].number
                                      : result->event.number;
    json_out_key_object(out, LIT("context"));
    json_out_key_string(out, LIT("start"), hs_token_of_number(page->call.ctx, first));
    json_out_key_string(out, LIT("end"), hs_token_of_number(page->call.ctx, last + 1));
    TRY(write_events(page, result, LIT("events_before"), &around.before));
    TRY(write_events(page, result, LIT("events_after"), &around.after));
    if (page->options.wants_profiles) {
        TRY(write_profiles(page, result, &around));
    }
    json_out_object_end(out);
    return OK;
}

static struct err write_result(struct search_page *page, const struct search_result *result)
{
    struct json_out *out = &page->call.out;
    struct viewer viewer = page->call.viewer;
    int64_t score = result->hit->score;
    if (page->options.order != SEARCH_BY_RANK) {
        TRY(search_score(page->db, &page->hits, result->hit->id, &score));
    }
    viewer.memo = &result->visit->memo;
    json_out_object(out);
    json_out_key_raw(
        out, LIT("rank"),
        arena_printf(page->call.ctx->arena, "%" PRId64 ".%03d", score / 1000, (int)(score % 1000)));
    json_out_key(out, LIT("result"));
    TRY(hs_write_event(page->call.hs, page->call.ctx, result->visit->room, &viewer, &result->event,
                       VIEW_ROOM_ID | VIEW_BUNDLE, out));
    if (page->options.wants_context) {
        TRY(write_context(page, result));
    }
    json_out_object_end(out);
    return OK;
}

/* --- rooms and groups --- */

static struct err write_state(struct search_page *page, struct search_visit *visit)
{
    struct hs *hs = page->call.hs;
    struct ctx *ctx = page->call.ctx;
    struct viewer viewer = page->call.viewer;
    struct room_view view;
    struct state_entries entries;
    viewer.memo = &visit->memo;
    TRY(hs_room_view(hs, ctx, visit->room, viewer.user, &view));
    TRY(state_read(hs->states, ctx, visit->number, view.root, &entries));
    json_out_key_array(&page->call.out, hs_room_info(visit->room).room_id);
    for (size_t i = 0; i < entries.count; i++) {
        struct stored_event event;
        bool found = false;
        TRY(hs_event_scan(hs, ctx, visit->room, entries.items[i].event, &event, &found));
        if (found) {
            TRY(hs_write_event(hs, ctx, visit->room, &viewer, &event, VIEW_ROOM_ID,
                               &page->call.out));
        }
    }
    json_out_array_end(&page->call.out);
    return OK;
}

static struct err write_states(struct search_page *page)
{
    json_out_key_object(&page->call.out, LIT("state"));
    for (size_t i = 0; i < page->visit_count; i++) {
        if (page->visits[i]->is_shown) {
            TRY(write_state(page, page->visits[i]));
        }
    }
    json_out_object_end(&page->call.out);
    return OK;
}

static struct search_place place_of(const struct search_page *page, size_t result)
{
    return search_place_of(page->options.order, page->results[result].hit);
}

static uint64_t number_of(const struct search_result *result, char kind)
{
    return kind == 'r' ? result->visit->number : result->event.sender;
}

/* The group's results on this page, and where the group goes on. */
static void write_group(struct search_page *page, const struct search_group *group, char kind)
{
    struct json_out *out = &page->call.out;
    struct search_from next = {.group = kind, .number = group->number};
    json_out_key_array(out, LIT("results"));
    for (size_t i = 0; i < page->result_count; i++) {
        if (number_of(&page->results[i], kind) == group->number) {
            json_out_string(out, page->results[i].event.event.id.s);
            next.place = place_of(page, i);
            next.seen++;
        }
    }
    json_out_array_end(out);
    /* A group within a group has no token: the next page of the outer one brings the rest. */
    bool is_within = page->options.from.group != 'a' && page->options.from.group != kind;
    if ((group->has_more || page->hits.has_more) && !is_within) {
        json_out_key_string(out, LIT("next_batch"), cs_search_token(page, next));
    }
}

static void write_groups(struct search_page *page, const struct search_groups *groups,
                         struct slice key, char kind)
{
    struct json_out *out = &page->call.out;
    json_out_key_object(out, key);
    for (size_t i = 0; i < groups->count; i++) {
        json_out_key_object(out, groups->items[i].name);
        json_out_key_int(out, LIT("order"), (int64_t)i + 1);
        write_group(page, &groups->items[i], kind);
        json_out_object_end(out);
    }
    json_out_object_end(out);
}

static void write_all_groups(struct search_page *page)
{
    json_out_key_object(&page->call.out, LIT("groups"));
    if (page->options.by_room) {
        write_groups(page, &page->rooms, LIT("room_id"), 'r');
    }
    if (page->options.by_sender) {
        write_groups(page, &page->senders, LIT("sender"), 's');
    }
    json_out_object_end(&page->call.out);
}

/* --- the page --- */

static void write_highlights(struct search_page *page)
{
    json_out_key_array(&page->call.out, LIT("highlights"));
    for (size_t i = 0; i < page->hits.word_count; i++) {
        if (!is_among(page->hits.words, i, page->hits.words[i])) {
            json_out_string(&page->call.out, page->hits.words[i]);
        }
    }
    json_out_array_end(&page->call.out);
}

/* A full page always has a next one, which may be empty: clients count on it. When little of what
 * was looked through could be shown, and there is more, it goes on after what was looked through.
 */
static void write_next(struct search_page *page)
{
    struct search_from next = page->options.from;
    bool is_full = page->result_count == page->options.limit;
    if (!is_full && !page->hits.has_more) {
        return;
    }
    const struct search_hit *last = is_full ? page->results[page->result_count - 1].hit
                                            : &page->hits.items[page->hits.count - 1];
    next.place = search_place_of(page->options.order, last);
    next.seen += (int64_t)page->result_count;
    json_out_key_string(&page->call.out, LIT("next_batch"), cs_search_token(page, next));
}

struct err cs_search_write(struct search_page *page)
{
    struct json_out *out = &page->call.out;
    json_out_object(out);
    /* Only of what the reader may see: a count of all hits would tell of words in the rest. */
    json_out_key_int(out, LIT("count"), page->options.from.seen + page->visible_count);
    write_highlights(page);
    json_out_key_array(out, LIT("results"));
    for (size_t i = 0; i < page->result_count; i++) {
        TRY(write_result(page, &page->results[i]));
    }
    json_out_array_end(out);
    if (page->options.wants_state) {
        TRY(write_states(page));
    }
    if (page->options.by_room || page->options.by_sender) {
        write_all_groups(page);
    }
    write_next(page);
    json_out_object_end(out);
    return OK;
}
