/* What a server process costs, read from /proc, and starting and stopping it. */
#pragma once
#include "homeserver/base/slice.h"

#include <sys/types.h>

/* User and system time of the process and its living descendants, in microseconds. */
int64_t probe_cpu_us(pid_t pid);
/* Proportional set size of the process and its living descendants, in bytes. */
int64_t probe_memory_bytes(pid_t pid);
/* Open descriptors that this process may have, after raising the soft limit to the hard one. */
size_t probe_descriptors_max(void);
/* Runs `sh -c "exec COMMAND"` with its output in the file `log_path`; 0 when it cannot. */
pid_t probe_start(const char *command, const char *log_path);
/* SIGTERM, then waits; SIGKILL after ten seconds. */
void probe_stop(pid_t pid);
