/* The program that reads pictures and pages for the server, where nothing can be done with it but
 * that: its parts. */
#pragma once
#include "homeserver/base/arena.h"
#include "homeserver/media/media_job.h"

/* confine.c: from here on no file can be opened, no socket made, no program run, and memory,
 * written bytes and time of the processor have an end. False: the system does not allow it. */
bool confine(void);
/* Whether what is forbidden is refused; says so line by line. */
bool confine_check(void);

/* picture.c: before confine; reads what the libraries read once. */
bool picture_init(void);
/* The result's bytes stay until the next call. */
void picture_run(const struct media_job *job, struct slice input, struct media_reply *reply_out);

/* page.c: before confine. */
void page_init(void);
void page_run(struct arena *arena, const struct media_job *job, struct slice input,
              struct media_reply *reply_out);
