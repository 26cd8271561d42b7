/* Push rules: merging a user's changes with the default rules, compiling, evaluating.
 * Spec: client-server, "Push Rules". */
#pragma once
#include "homeserver/room/event.h"
#include "homeserver/room/power.h"

enum push_kind {
    PUSH_OVERRIDE,
    PUSH_CONTENT,
    PUSH_ROOM,
    PUSH_SENDER,
    PUSH_UNDERRIDE,
    PUSH_KIND_COUNT,
};

struct slice push_kind_word(enum push_kind kind);
bool push_kind_parse(struct slice word, enum push_kind *kind_out);

/* The value of account data m.push_rules, `{"global": {...}}`, in full: user rules of `stored` in
 * their order, and all default rules, with `enabled` and `actions` taken from `stored` where it has
 * them. `stored` has the same form and may be NULL or partly malformed (bad rules are dropped). */
struct json push_rules_merge(struct arena *arena, struct user_id user, const struct json *stored);
/* Whether there is a default rule of that kind and id. */
bool push_rules_has_default(enum push_kind kind, struct slice rule_id);

/* Compiled rules; immutable, so threads may share them while the arena lives. */
struct push_rules;
/* Compiles a merged document. Copies what it needs into the arena. Rules with unknown conditions
 * are compiled to nothing. */
struct push_rules *push_rules_compile(struct arena *arena, const struct json *merged);

/* The default rules for all who have changed nothing: conditions on the user's own names look at
 * the target. */
struct push_rules *push_rules_of_everybody(struct arena *arena);
bool push_rules_is_default(const struct push_rules *rules); /* made by push_rules_of_everybody */

struct push_target {
    struct user_id user;               /* whose rules these are */
    struct slice display_name;         /* in this room; may be empty */
    int64_t member_count;              /* joined members */
    const struct power_levels *levels; /* of the room, for sender_notification_permission */
};

struct push_verdict {
    bool notify;
    bool highlight;
    struct slice sound;   /* empty: none */
    struct slice rule_id; /* the rule that matched; empty: none did */
    struct slice actions; /* its actions as JSON, without historical ones; for tweaks */
    enum push_kind kind;
};

/* What the default rules say of an event to whoever has not changed them: the same for all but for
 * what depends on the user's own names. */
struct push_outlook {
    enum {
        PUSH_OUTLOOK_ASK, /* it depends on the user: push_rules_evaluate must tell */
        PUSH_OUTLOOK_SILENT,
        PUSH_OUTLOOK_NOTIFIES,
    } verdict;
    bool highlight;
    /* It depends on the user, too, when the user's localpart or display name stands in the body. */
    bool unless_named;
};
/* `rules` are those of everybody. Needs a content tree. */
struct push_outlook push_rules_foresee(const struct push_rules *rules, const struct event *event);

/* The first matching enabled rule decides. An event of the user himself gives nothing. Needs a
 * content tree. Result borrows from the rules. */
struct push_verdict push_rules_evaluate(const struct push_rules *rules, const struct event *event,
                                        const struct push_target *target);
