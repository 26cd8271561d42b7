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
bool picture_init(struct arena *arena);
/* The result's bytes are in the arena. */
void picture_run(struct arena *arena, const struct media_job *job, struct slice input,
                 struct media_reply *reply_out);

/* charset.c: before confine. */
struct charset_reader;
struct charset_reader *charset_reader_new(void);
void charset_reader_free(struct charset_reader **reader);
/* A page as UTF-8 without NULs: the charset that it was sent with counts (may be empty), then what
 * it says itself, then what its bytes look like. */
struct slice charset_convert(struct charset_reader *reader, struct arena *arena, struct slice page,
                             struct slice charset);

/* page.c: before confine. */
void page_init(void);
/* Made: pairs of a name and a value; og:..., "image", "base" and "oembed" (URLs as the page has
 * them). */
void page_run(struct charset_reader *reader, struct arena *arena, const struct media_job *job,
              struct slice input, struct media_reply *reply_out);
