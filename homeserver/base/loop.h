/* Event loops: one thread that owns sockets and timers and never blocks. Everything except
 * loop_post and loop_stop belongs to the thread that runs the loop (or to the thread that prepares
 * it, before loop_run). */
#pragma once
#include "homeserver/base/slice.h"

struct loop;
struct loop_watch;
struct loop_timer;

/* Embedded in what is posted; free again as soon as fn is called. */
struct loop_task {
    struct loop_task *next;
    void (*fn)(void *arg);
    void *arg;
};

enum loop_event { LOOP_READ = 1, LOOP_WRITE = 2 };

struct loop *loop_new(void);
/* Frees the loop; watches and timers must have been freed before. */
void loop_free(struct loop **loop);
/* Runs until loop_stop. What was posted before the stop is still called. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* any thread */
/* Calls task->fn on the loop, in the order of posting. Any thread; never blocks. */
void loop_post(struct loop *loop, struct loop_task *task);
/* Calls fn each time before the loop sleeps. */
void loop_before_sleep(struct loop *loop, void (*fn)(void *arg), void *arg);
/* Monotonic time, read once per turn. */
int64_t loop_mono_ms(const struct loop *loop);

/* Watches a descriptor; events is a set of enum loop_event. Starts with none. The descriptor stays
 * the caller's and must outlive the watch. */
struct loop_watch *loop_watch_new(struct loop *loop, int fd, void (*fn)(void *arg, unsigned events),
                                  void *arg);
void loop_watch_set(struct loop_watch *watch, unsigned events);
void loop_watch_free(struct loop_watch **watch);

/* A watch inside its owner, for sockets of which there are many: a tenth of the memory of the other
 * kind, for one more call into the kernel per turn of the loop. Zeroed: watches nothing. */
struct loop_socket {
    void (*fn)(void *arg, unsigned events);
    void *arg;
    int fd;
    unsigned events; /* set by loop_socket_set */
};
/* No events: stops watching, to be done before the descriptor is closed or the owner goes; fn is
 * not called any more. */
void loop_socket_set(struct loop *loop, struct loop_socket *socket, unsigned events);

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg);
/* Fires once after this time; replaces an earlier start. */
void loop_timer_start(struct loop_timer *timer, int64_t after_ms);
void loop_timer_stop(struct loop_timer *timer);
void loop_timer_free(struct loop_timer **timer);
