/* The room core behind a pipe: one JSON request per line on stdin, one JSON answer per line on
 * stdout. run.py compares the answers with another implementation.
 *
 *   {"op":"room","version":"10"}                      forget everything, choose the version
 *   {"op":"event","pdu":{...}}                        -> {"id","json","redacted","hash_ok"} or
 * {"error"}
 *   {"op":"auth","event":id,"state":[id...],"create":id}      -> {"allowed","rule"}
 *   {"op":"auth_events","event":id,"create":id}       the rule on auth_events -> {"allowed","rule"}
 *   {"op":"select","event":id}                        -> {"keys":[[type,state_key]...]}
 *   {"op":"resolve","sets":[[id...]...],"create":id}  -> {"state":[id...]}
 *   {"op":"push","user","rules","event":id,"display_name","member_count","levels":id,"create":id}
 *                                                     -> {"notify","highlight","sound","rule_id"}
 */
#include <stdio.h>
#include <stdlib.h>

#include "homeserver/base/json_out.h"
#include "homeserver/base/map.h"
#include "homeserver/room/auth.h"
#include "homeserver/room/push_eval.h"
#include "homeserver/room/redact.h"
#include "homeserver/room/resolve.h"

struct driver {
    struct arena *room; /* until the next room */
    struct arena *line; /* until the next line */
    const struct room_rules *rules;
    struct map *events; /* struct event * by id */
};

struct events {
    const struct event **items;
    size_t count;
};

static const struct event *find_event(const struct driver *d, struct slice id)
{
    return id.len ? map_get_ptr(d->events, id) : NULL;
}

static const struct event *named_event(const struct driver *d, const struct json *in,
                                       struct slice member)
{
    return find_event(d, json_get_string(in, member));
}

static struct events event_list(const struct driver *d, const struct json *ids)
{
    size_t count = ids && ids->type == JSON_ARRAY ? ids->count : 0;
    struct events list = {arena_array(d->line, count + 1, sizeof(const struct event *)), 0};
    for (size_t i = 0; i < count; i++) {
        const struct event *event = find_event(d, ids->items[i].text);
        if (event) {
            list.items[list.count++] = event;
        }
    }
    return list;
}

static void do_room(struct driver *d, const struct json *in)
{
    struct slice version = json_get_string(in, LIT("version"));
    map_free(&d->events);
    arena_reset(d->room);
    d->events = map_new();
    d->rules = room_rules_get(version);
}

static void do_event(struct driver *d, const struct json *in, struct json_out *out)
{
    struct event *event = arena_alloc(d->room, sizeof *event);
    struct slice bytes = arena_copy(d->room, json_canonical(d->line, json_get(in, LIT("pdu"))));
    struct err err = event_parse(d->room, d->rules, bytes, event);
    if (err.code != 0) {
        json_out_key_string(out, LIT("error"), slice_of(err.text));
        return;
    }
    struct json redacted = redact_event(d->line, d->rules, event->tree);
    map_set_ptr(d->events, event->id.s, event);
    json_out_key_string(out, LIT("id"), event->id.s);
    json_out_key_raw(out, LIT("json"), event->json);
    json_out_key(out, LIT("redacted"));
    json_out_value(out, &redacted);
    json_out_key_bool(out, LIT("hash_ok"), event_check_hash(d->line, event));
}

static const struct event *state_of_list(void *arg, struct slice type, struct slice state_key)
{
    const struct events *list = arg;
    for (size_t i = 0; i < list->count; i++) {
        if (event_is(list->items[i], type, state_key)) {
            return list->items[i];
        }
    }
    return NULL;
}

static void write_verdict(struct json_out *out, const struct auth_verdict *verdict)
{
    json_out_key_bool(out, LIT("allowed"), verdict->allowed);
    json_out_key_string(out, LIT("rule"), slice_of(verdict->rule));
}

static void do_auth(struct driver *d, const struct json *in, struct json_out *out)
{
    struct events state = event_list(d, json_get(in, LIT("state")));
    struct auth_input input = {.arena = d->line,
                               .event = named_event(d, in, LIT("event")),
                               .create = named_event(d, in, LIT("create")),
                               .state = state_of_list,
                               .state_arg = &state};
    struct auth_verdict verdict = auth_check_event(&input);
    write_verdict(out, &verdict);
}

static void do_auth_events(struct driver *d, const struct json *in, struct json_out *out)
{
    const struct event *event = named_event(d, in, LIT("event"));
    struct events cited = {
        arena_array(d->line, event->auth_event_count + 1, sizeof(const struct event *)), 0};
    for (size_t i = 0; i < event->auth_event_count; i++) {
        const struct event *found = find_event(d, event->auth_events[i].s);
        if (found) {
            cited.items[cited.count++] = found;
        }
    }
    struct auth_verdict verdict = auth_check_auth_events(event, cited.items, cited.count);
    write_verdict(out, &verdict);
}

static void do_select(struct driver *d, const struct json *in, struct json_out *out)
{
    struct auth_key keys[AUTH_EVENTS_MAX];
    size_t count = auth_events_select(named_event(d, in, LIT("event")), keys);
    json_out_key_array(out, LIT("keys"));
    for (size_t i = 0; i < count; i++) {
        json_out_array(out);
        json_out_string(out, keys[i].type);
        json_out_string(out, keys[i].state_key);
        json_out_array_end(out);
    }
    json_out_array_end(out);
}

static const struct event *event_by_id(void *arg, struct event_id id)
{
    return find_event(arg, id.s);
}

static void do_resolve(struct driver *d, const struct json *in, struct json_out *out)
{
    const struct json *sets = json_get(in, LIT("sets"));
    struct resolve_set *states = arena_array(d->line, sets->count, sizeof *states);
    struct resolve_set resolved;
    for (uint32_t i = 0; i < sets->count; i++) {
        struct events list = event_list(d, &sets->items[i]);
        struct resolve_entry *entries = arena_array(d->line, list.count, sizeof *entries);
        for (size_t j = 0; j < list.count; j++) {
            entries[j] = (struct resolve_entry){list.items[j]->type, list.items[j]->state_key,
                                                list.items[j]->id};
        }
        states[i] = (struct resolve_set){entries, list.count};
    }
    struct resolve_input input = {.arena = d->line,
                                  .rules = d->rules,
                                  .create = named_event(d, in, LIT("create")),
                                  .sets = states,
                                  .set_count = sets->count,
                                  .event = event_by_id,
                                  .arg = d};
    resolve_states(&input, &resolved);
    json_out_key_array(out, LIT("state"));
    for (size_t i = 0; i < resolved.count; i++) {
        json_out_string(out, resolved.items[i].event.s);
    }
    json_out_array_end(out);
}

static void do_push(struct driver *d, const struct json *in, struct json_out *out)
{
    struct user_id user = ids_trust_user(json_get_string(in, LIT("user")));
    struct power_levels levels =
        power_load(d->rules, named_event(d, in, LIT("create")), named_event(d, in, LIT("levels")));
    struct push_target target = {
        .user = user, .display_name = json_get_string(in, LIT("display_name")), .levels = &levels};
    struct json merged = push_rules_merge(d->line, user, json_get(in, LIT("rules")));
    json_get_int(in, LIT("member_count"), &target.member_count);
    struct push_verdict verdict = push_rules_evaluate(push_rules_compile(d->line, &merged),
                                                      named_event(d, in, LIT("event")), &target);
    json_out_key_bool(out, LIT("notify"), verdict.notify);
    json_out_key_bool(out, LIT("highlight"), verdict.highlight);
    json_out_key_string(out, LIT("sound"), verdict.sound);
    json_out_key_string(out, LIT("rule_id"), verdict.rule_id);
}

static void do_line(struct driver *d, struct slice line, struct json_out *out)
{
    struct json in;
    struct err err = json_parse(d->line, line, &in);
    if (err.code != 0) {
        json_out_key_string(out, LIT("error"), slice_of(err.text));
        return;
    }
    struct slice op = json_get_string(&in, LIT("op"));
    if (slice_eq(op, LIT("room"))) {
        do_room(d, &in);
    } else if (slice_eq(op, LIT("event"))) {
        do_event(d, &in, out);
    } else if (slice_eq(op, LIT("auth"))) {
        do_auth(d, &in, out);
    } else if (slice_eq(op, LIT("auth_events"))) {
        do_auth_events(d, &in, out);
    } else if (slice_eq(op, LIT("select"))) {
        do_select(d, &in, out);
    } else if (slice_eq(op, LIT("resolve"))) {
        do_resolve(d, &in, out);
    } else if (slice_eq(op, LIT("push"))) {
        do_push(d, &in, out);
    } else {
        json_out_key_string(out, LIT("error"), LIT("unknown op"));
    }
}

int main(void)
{
    struct driver d = {.room = arena_new(), .line = arena_new(), .events = map_new()};
    char *line = NULL;
    size_t cap = 0;
    ssize_t len = 0;
    struct buf answer;
    buf_init(&answer, SIZE_MAX / 2);
    while ((len = getline(&line, &cap, stdin)) > 0) {
        struct json_out out = json_out_to(&answer);
        json_out_object(&out);
        do_line(&d, (struct slice){line, (size_t)len}, &out);
        json_out_object_end(&out);
        buf_add_byte(&answer, '\n');
        fwrite(answer.ptr, 1, answer.len, stdout);
        fflush(stdout);
        buf_clear(&answer);
        arena_reset(d.line);
    }
    free(line);
    buf_deinit(&answer);
    map_free(&d.events);
    arena_free(&d.room);
    arena_free(&d.line);
    return 0;
}
