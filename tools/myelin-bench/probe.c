#include "tools/myelin-bench/probe.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES_MAX = 256 };

struct process {
    pid_t pid, parent;
    int64_t cpu_us;
};

static bool read_process(pid_t pid, struct process *process_out)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file) {
        return false;
    }
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    const char *rest = strrchr(text, ')');
    int parent = 0;
    unsigned long user = 0, kernel = 0;
    if (!rest || sscanf(rest + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &parent,
                        &user, &kernel) != 3) {
        return false;
    }
    int64_t tick_us = 1000000 / sysconf(_SC_CLK_TCK);
    *process_out = (struct process){pid, parent, (int64_t)(user + kernel) * tick_us};
    return true;
}

/* The process and its descendants; pids grow, so a parent is nearly always met before its child. */
static size_t family(pid_t pid, struct process *members)
{
    size_t count = 0;
    if (!read_process(pid, &members[0])) {
        return 0;
    }
    count = 1;
    DIR *dir = opendir("/proc");
    for (struct dirent *entry; dir && (entry = readdir(dir)) && count < PROCESSES_MAX;) {
        struct process process;
        pid_t candidate = (pid_t)strtol(entry->d_name, NULL, 10);
        if (candidate <= 0 || !read_process(candidate, &process)) {
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            if (process.parent == members[i].pid && candidate != pid) {
                members[count++] = process;
                break;
            }
        }
    }
    if (dir) {
        closedir(dir);
    }
    return count;
}

int64_t probe_cpu_us(pid_t pid)
{
    struct process members[PROCESSES_MAX];
    int64_t sum = 0;
    for (size_t i = 0, count = family(pid, members); i < count; i++) {
        sum += members[i].cpu_us;
    }
    return sum;
}

static int64_t memory_of(pid_t pid)
{
    char path[64], line[256];
    long long kilobytes = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "Pss: %lld kB", &kilobytes) == 1) {
            break;
        }
    }
    if (file) {
        fclose(file);
    }
    return kilobytes * 1024;
}

int64_t probe_memory_bytes(pid_t pid)
{
    struct process members[PROCESSES_MAX];
    int64_t sum = 0;
    for (size_t i = 0, count = family(pid, members); i < count; i++) {
        sum += memory_of(members[i].pid);
    }
    return sum;
}

size_t probe_descriptors_max(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur == RLIM_INFINITY ? 1000000 : (size_t)limit.rlim_cur;
}

pid_t probe_start(const char *command, const char *log_path)
{
    char line[4096];
    snprintf(line, sizeof line, "exec %s", command);
    pid_t pid = fork();
    if (pid != 0) {
        return pid < 0 ? 0 : pid;
    }
    int log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null_fd, 0);
    dup2(log_fd, 1);
    dup2(log_fd, 2);
    setpgid(0, 0);
    execl("/bin/sh", "sh", "-c", line, (char *)NULL);
    _exit(127);
}

void probe_stop(pid_t pid)
{
    if (pid <= 0) {
        return;
    }
    kill(pid, SIGTERM);
    struct timespec pause = {0, 10000000};
    for (int i = 0; i < 1000; i++) {
        if (waitpid(pid, NULL, WNOHANG) != 0) {
            return;
        }
        nanosleep(&pause, NULL);
    }
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
