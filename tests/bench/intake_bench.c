/* Joins a room with many members through another server and measures what that takes, then what an
 * event on a second branch takes. usage: bench_intake [members] */
#include "homeserver/service/intake.h"

#include "tests/support/house.h"
#include "tests/support/peer.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { FORKS = 40 };

static struct house h;
static struct peer far;
static struct peer_room r;

static double cpu_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double peak_mb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void must(struct err err)
{
    if (err.code != 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

/* Member event `i`, as bytes that the join has to parse. */
static struct slice member_json(struct arena *arena, size_t i)
{
    struct slice user = arena_printf(arena, "@member%zu:far", i);
    struct json content;
    struct event event;
    struct event_id prev[] = {peer_get(&r, 4)->id};
    struct event_id auth[] = {peer_get(&r, 0)->id, peer_get(&r, 2)->id, peer_get(&r, 3)->id};
    must(json_parse(
        arena, arena_printf(arena, "{\"membership\":\"join\",\"displayname\":\"Member %zu\"}", i),
        &content));
    struct event_draft draft = {.rules = r.rules,
                                .room_id = ids_trust_room(r.room_id),
                                .sender = ids_trust_user(user),
                                .type = LIT("m.room.member"),
                                .state_key = &user,
                                .content = &content,
                                .origin_server_ts = r.ts++,
                                .depth = 6,
                                .prev_events = prev,
                                .prev_event_count = 1,
                                .auth_events = auth,
                                .auth_event_count = 3};
    struct json tree = event_draft_tree(arena, &draft);
    must(event_seal(arena, r.rules, &tree, &far.signer, &event));
    return event.json;
}

static void add_members(struct intake_join *join, size_t members)
{
    struct arena *arena = arena_new();
    double making = 0;
    double adding = 0;
    for (size_t i = 0; i < members; i++) {
        struct event event;
        double began = cpu_s();
        struct slice json = member_json(arena, i);
        making += cpu_s() - began;
        began = cpu_s();
        must(event_parse(arena, r.rules, json, &event));
        must(hs_intake_join_add(join, &h.ctx, INTAKE_JOIN_STATE, &event));
        adding += cpu_s() - began;
        arena_reset(arena);
    }
    printf("%zu members: parsed and stored in %.2f s of CPU (made in %.2f), peak %.0f MB\n",
           members, adding, making, peak_mb());
    arena_free(&arena);
}

static struct room *join_room(const struct guest *ann, size_t members)
{
    struct intake_join *join = NULL;
    struct room *room = NULL;
    struct hs_sent sent;
    struct peer_draft by_ann = {.peer = &far, .sender = ann->actor.user_id};
    size_t mine = peer_member(&r, &by_ann, ann->actor.user_id, "join");
    struct intake_join_start start = {
        .room_id = r.room_id, .version = r.rules->version, .join = peer_get(&r, mine)};
    must(hs_intake_join_begin(&h.hs, &h.ctx, &start, &join));
    for (size_t i = 0; i < mine; i++) {
        must(hs_intake_join_add(join, &h.ctx, INTAKE_JOIN_STATE, peer_get(&r, i)));
    }
    add_members(join, members);
    double began = cpu_s();
    must(hs_intake_join_finish(&join, &h.ctx, &room, &sent));
    printf("finished in %.2f s of CPU, peak %.0f MB\n", cpu_s() - began, peak_mb());
    return room;
}

static double take(struct room *room, size_t at)
{
    struct intake_report report;
    struct intake intake = {.event = peer_get(&r, at)};
    double began = cpu_s();
    must(hs_intake_event(&h.hs, &h.ctx, room, &intake, &report));
    double took = cpu_s() - began;
    if (report.result != INTAKE_ACCEPTED) {
        fprintf(stderr, "refused: %.*s\n", (int)report.reason.len, report.reason.ptr);
        exit(1);
    }
    return took * 1000;
}

/* Two branches that each change some state, again and again. */
static void fork_room(struct room *room, struct slice ria)
{
    static const char *const types[] = {"m.room.topic", "m.room.power_levels"};
    double worst = 0;
    double all = 0;
    size_t ends[2] = {r.count - 1, r.count - 1};
    double first = 0;
    for (size_t i = 0; i < FORKS; i++) {
        struct peer_draft draft = {.peer = &far, .sender = ria, .state_key = ""};
        draft.type = types[i / 2 % 2];
        draft.content =
            arena_printf(r.arena_owned,
                         "{\"topic\":\"%zu\",\"users\":{\"@ria:far\":100,\"@x:y\":%zu}}", i, i)
                .ptr;
        draft.prev = &ends[i % 2];
        draft.prev_count = 1;
        ends[i % 2] = peer_make(&r, &draft);
        double took = take(room, ends[i % 2]);
        first = i == 1 ? took : first;
        worst = i > 1 && took > worst ? took : worst;
        all += i > 1 ? took : 0;
    }
    printf("an event on one of two branches: first %.2f ms, then %.2f ms, at most %.2f ms of CPU\n",
           first, all / (FORKS - 2), worst);
}

int main(int argc, char **argv)
{
    uint64_t members = 50000;
    if (argc > 1 && !slice_parse_u64(slice_of(argv[1]), &members)) {
        return 2;
    }
    house_open(&h);
    struct guest ann = house_guest(&h, "ann");
    peer_init(&far, "far");
    struct slice ria = peer_user(h.conf_arena, &far, "ria");
    peer_room_open(&r, "10", &far, ria);
    struct room *room = join_room(&ann, members);
    fork_room(room, ria);
    double began = cpu_s();
    struct slice *servers = NULL;
    size_t count = 0;
    must(hs_room_servers(&h.hs, &h.ctx, room, &servers, &count));
    printf("servers in the room: %.1f ms of CPU\n", (cpu_s() - began) * 1000);
    peer_room_close(&r);
    house_close(&h);
    return 0;
}
