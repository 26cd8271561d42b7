/* Runs the scenes of all plays with several workers and prints what happened. */
#pragma once
#include "tools/myelin-conform/differences.h"
#include "tools/myelin-conform/stage.h"

struct run {
    const struct stage_target *target;
    const struct play *plays;
    size_t play_count;
    struct slice filter; /* part of "file: scene"; empty takes all */
    struct differences differences;
    size_t jobs;
    bool is_verbose;
};

struct run_result {
    size_t passed;
    size_t failed;
    size_t differed; /* failed as the list of differences says */
    size_t skipped;  /* play servers, for which no certificate is given */
};

/* Registers one user to learn the server's name; ERR_IO when the server does not answer. */
struct err run_probe(struct arena *arena, struct stage_target *target) MUST_USE;
bool run_takes(const struct run *run, const struct play *play, const struct scene *scene);
struct run_result run_all(struct run *run);
