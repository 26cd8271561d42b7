#include "homeserver/service/verdicts.h"

#include "homeserver/service/invite_filter.h"
#include "homeserver/service/prefs_priv.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

enum {
    EVENT_TELLS_NOBODY = EVENT_HIDDEN | EVENT_REDACTED | EVENT_HISTORY,
};

struct weighing {
    struct hs *hs;
    struct ctx *ctx;
    struct room *room;
    struct room_head head;
    const struct power_levels *levels;
    struct known_event known;
    struct stored_event event;
    bool is_parsed;
};

static struct err weigh(struct weighing *w, uint64_t user, const struct push_rules *rules,
                        struct push_verdict *verdict_out)
{
    struct room_member member = {0};
    struct slice user_id;
    bool found = false;
    if (!w->is_parsed) {
        TRY(hs_event_parse_content(w->ctx, &w->event));
        w->head = hs_room_head(w->room);
        TRY(room_levels_get(w->hs, w->ctx, w->room, &w->head, &w->levels));
        w->is_parsed = true;
    }
    TRY(hs_user_id_of(w->hs, w->ctx, user, &user_id));
    TRY(hs_room_member(w->hs, w->ctx, w->room, user, &member, &found));
    struct push_target target = {.user = ids_trust_user(user_id),
                                 .display_name = found ? member.display_name : (struct slice){0},
                                 .member_count = w->head.joined_count,
                                 .levels = w->levels};
    *verdict_out = push_rules_evaluate(rules, &w->event.event, &target);
    return OK;
}

/* What the default rules say to everybody alike. */
static bool is_silent(const struct weighing *w, const struct push_rules *rules)
{
    const struct event_facts *facts = w->known.facts;
    return facts && push_rules_is_default(rules) && !facts->outlook.unless_named &&
           facts->outlook.verdict == PUSH_OUTLOOK_SILENT;
}

/* Nobody hears of those whom he ignores, nor of invites that he does not see. */
static struct err is_kept_from(struct weighing *w, uint64_t user, bool *kept_out)
{
    const struct event *event = &w->event.event;
    struct slice user_id;
    *kept_out = false;
    if (slice_eq(event->type, LIT("m.room.member"))) {
        TRY(hs_user_id_of(w->hs, w->ctx, user, &user_id));
        TRY(hs_event_parse_content(w->ctx, &w->event));
        if (slice_eq(event->state_key, user_id) && membership_of(event) == MEMBERSHIP_INVITE) {
            return hs_invite_is_hidden(w->hs, w->ctx, user, event->sender.s, kept_out);
        }
    }
    return hs_is_ignored(w->hs, w->ctx, user, event->sender.s, kept_out);
}

static struct err weigh_for(struct weighing *w, uint64_t user, struct push_verdict *verdict_out)
{
    const struct push_rules *rules = NULL;
    bool kept = false;
    *verdict_out = (struct push_verdict){0};
    if (w->event.sender == user) {
        return OK;
    }
    TRY(hs_push_rules_get(w->hs, w->ctx, user, &rules));
    if (is_silent(w, rules)) {
        return OK;
    }
    TRY(is_kept_from(w, user, &kept));
    return kept ? OK : weigh(w, user, rules, verdict_out);
}

static struct err weigh_all(struct weighing *w, const struct hs_verdict_request *request,
                            struct hs_verdicts *verdicts)
{
    for (size_t i = 0; i < request->count; i++) {
        struct push_verdict verdict;
        TRY(weigh_for(w, request->users[i], &verdict));
        if (verdict.notify) {
            verdicts->items[verdicts->count++] = (struct hs_verdict){request->users[i], verdict};
        }
    }
    return OK;
}

struct err hs_verdicts_of(struct hs *hs, struct ctx *ctx, const struct hs_verdict_request *request,
                          struct hs_verdicts *verdicts_out)
{
    struct weighing w = {.hs = hs, .ctx = ctx, .room = request->room};
    bool found = true;
    *verdicts_out = (struct hs_verdicts){
        .items = arena_array(ctx->arena, request->count + 1, sizeof(struct hs_verdict))};
    TRY(room_event_known(hs, ctx, request->room, request->number, &w.known));
    if (w.known.row) {
        row_cache_release_later(ctx, w.known.row);
        w.event = *w.known.event;
    } else {
        TRY(hs_event_load(hs, ctx, request->room, request->number, &w.event, &found));
    }
    if (!found || (w.event.flags & EVENT_TELLS_NOBODY)) {
        return OK;
    }
    verdicts_out->sender = w.event.sender;
    return weigh_all(&w, request, verdicts_out);
}

struct err hs_verdict_of(struct hs *hs, struct ctx *ctx, struct room *room, uint64_t user,
                         const struct stored_event *event, struct push_verdict *verdict_out)
{
    struct weighing w = {.hs = hs, .ctx = ctx, .room = room, .event = *event};
    const struct push_rules *rules = NULL;
    *verdict_out = (struct push_verdict){0};
    if (event->sender == user || (event->flags & EVENT_REDACTED)) {
        return OK;
    }
    TRY(hs_push_rules_get(hs, ctx, user, &rules));
    return weigh(&w, user, rules, verdict_out);
}

struct err hs_event_is_read(struct hs *hs, struct ctx *ctx, struct room *room,
                            const struct receipts *receipts, const struct stored_event *event,
                            bool *read_out)
{
    struct thread_place place;
    *read_out = false;
    if (receipts->count == 0) {
        return OK;
    }
    TRY(counts_thread_of(hs, ctx, room, event, &place));
    struct slice thread = place.root.len ? place.root : LIT("main");
    for (size_t i = 0; i < receipts->count; i++) {
        const struct receipt *receipt = &receipts->items[i];
        bool applies = !receipt->thread.ptr || slice_eq(receipt->thread, thread);
        *read_out = *read_out || (applies && receipt->number >= event->number);
    }
    return OK;
}
