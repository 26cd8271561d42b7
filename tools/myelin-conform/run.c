#include "tools/myelin-conform/run.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"

#include <pthread.h>
#include <stdio.h>

enum { WORKERS_MAX = 32 };

struct board {
    struct run *run;
    pthread_mutex_t lock; /* guards what follows, and standard output */
    size_t play;
    size_t scene;
    struct run_result result;
    peer_ports ports;
};

bool run_takes(const struct run *run, const struct play *play, const struct scene *scene)
{
    struct arena *arena = arena_new();
    struct slice full =
        arena_concat(arena, arena_concat(arena, play->file, LIT(": ")), scene->name);
    bool takes = run->filter.len == 0 || slice_contains(full, run->filter);
    arena_free(&arena);
    return takes;
}

/* The next scene to play, or NULL. */
static const struct scene *next_scene(struct board *board, const struct play **play_out)
{
    const struct scene *found = NULL;
    pthread_mutex_lock(&board->lock);
    while (!found && board->play < board->run->play_count) {
        const struct play *play = &board->run->plays[board->play];
        if (board->scene >= play->scene_count) {
            board->play++;
            board->scene = 0;
            continue;
        }
        const struct scene *scene = &play->scenes[board->scene++];
        if (!run_takes(board->run, play, scene)) {
            continue;
        }
        if (scene->peer_count > 0 && board->run->target->tls.certificate.len == 0) {
            board->result.skipped++;
        } else {
            found = scene;
            *play_out = play;
        }
    }
    pthread_mutex_unlock(&board->lock);
    return found;
}

static void print_line(const char *verdict, const struct play *play, const struct scene *scene,
                       int64_t ms)
{
    printf("%s %.*s: %.*s (%lld ms)\n", verdict, (int)play->file.len, play->file.ptr,
           (int)scene->name.len, scene->name.ptr, (long long)ms);
}

static void record(struct board *board, const struct play *play, const struct scene *scene,
                   struct slice report, int64_t ms)
{
    pthread_mutex_lock(&board->lock);
    struct difference *known = differences_find(&board->run->differences, play->file, scene->name);
    if (report.len == 0) {
        board->result.passed++;
        if (board->run->is_verbose) {
            print_line("ok    ", play, scene, ms);
        }
    } else if (known) {
        known->is_seen = true;
        board->result.differed++;
        if (board->run->is_verbose) {
            print_line("differs as listed", play, scene, ms);
        }
    } else {
        board->result.failed++;
        print_line("FAILED", play, scene, ms);
        printf("   %.*s\n", (int)report.len, report.ptr);
    }
    fflush(stdout);
    pthread_mutex_unlock(&board->lock);
}

static void *work(void *arg)
{
    struct board *board = arg;
    const struct play *play = NULL;
    const struct scene *scene;
    struct asker *asker = ask_new(board->run->target->ca_file);
    while ((scene = next_scene(board, &play)) != NULL) {
        struct arena *arena = arena_new();
        struct stage stage = {
            .arena = arena, .asker = asker, .target = board->run->target, .ports = &board->ports};
        struct slice report;
        int64_t start_us = now_mono_us();
        stage_play(&stage, scene, &report);
        record(board, play, scene, report, (now_mono_us() - start_us) / 1000);
        arena_free(&arena);
    }
    ask_free(&asker);
    return NULL;
}

struct err run_probe(struct arena *arena, struct stage_target *target)
{
    struct stage stage = {.arena = arena, .asker = ask_new(target->ca_file), .target = target};
    stage.vars = (struct vars){.arena = arena};
    struct err err = stage_register(&stage, LIT("probe"));
    ask_free(&stage.asker);
    TRY(err);
    target->server_name = slice_cut(stage.actors[0].user_id, ':', &(struct slice){0});
    return OK;
}

struct run_result run_all(struct run *run)
{
    struct board board = {.run = run, .ports = (unsigned)now_mono_us()};
    pthread_t workers[WORKERS_MAX];
    size_t count = run->jobs < WORKERS_MAX ? run->jobs : WORKERS_MAX;
    pthread_mutex_init(&board.lock, NULL);
    size_t started = 0;
    while (started < count && pthread_create(&workers[started], NULL, work, &board) == 0) {
        started++;
    }
    if (started == 0) {
        work(&board);
    }
    for (size_t i = 0; i < started; i++) {
        pthread_join(workers[i], NULL);
    }
    pthread_mutex_destroy(&board.lock);
    return board.result;
}
