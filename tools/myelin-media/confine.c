#include "tools/myelin-media/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* its shadow takes terabytes of addresses */
#else
enum { SANITIZED = 0 };
#endif

enum { WORK_BYTES_MAX = 768 << 20, WRITTEN_BYTES_MAX = 65536, PROCESSOR_SECONDS_MAX = 1200 };

/* --- limits --- */

/* Bytes of addresses in use; 0 when the system does not say. */
static rlim_t address_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file) {
        int got = fscanf(file, "%llu", &pages);
        pages = got == 1 ? pages : 0;
        fclose(file);
    }
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static bool limit(int what, rlim_t value)
{
    const struct rlimit both = {value, value};
    return setrlimit((__rlimit_resource_t)what, &both) == 0;
}

static bool set_limits(void)
{
    rlim_t used = address_bytes();
    bool good = limit(RLIMIT_CORE, 0) && limit(RLIMIT_FSIZE, WRITTEN_BYTES_MAX) &&
                limit(RLIMIT_CPU, PROCESSOR_SECONDS_MAX) && limit(RLIMIT_NOFILE, 16);
    return good && (SANITIZED || (used && limit(RLIMIT_AS, used + WORK_BYTES_MAX)));
}

/* --- system calls --- */

/* Memory, threads of this process, descriptors that it has. */
static const int allowed[] = {
    SCMP_SYS(read),           SCMP_SYS(write),
    SCMP_SYS(readv),          SCMP_SYS(writev),
    SCMP_SYS(pread64),        SCMP_SYS(lseek),
    SCMP_SYS(close),          SCMP_SYS(fstat),
    SCMP_SYS(recvmsg),        SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),       SCMP_SYS(sendto),
    SCMP_SYS(poll),           SCMP_SYS(ppoll),
    SCMP_SYS(munmap),         SCMP_SYS(mremap),
    SCMP_SYS(madvise),        SCMP_SYS(brk),
    SCMP_SYS(futex),          SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),           SCMP_SYS(set_tid_address),
    SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),   SCMP_SYS(sigaltstack),
    SCMP_SYS(exit),           SCMP_SYS(exit_group),
    SCMP_SYS(gettid),         SCMP_SYS(getpid),
    SCMP_SYS(sched_yield),    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sched_getattr),  SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),   SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),      SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),      SCMP_SYS(sysinfo),
    SCMP_SYS(getrusage),      SCMP_SYS(restart_syscall),
    SCMP_SYS(membarrier),
};

/* What no library of ours does by itself: whoever tries has taken the process over. */
static const int deadly[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(ptrace),
    SCMP_SYS(connect),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(bind),
    SCMP_SYS(listen),
    SCMP_SYS(bpf),
};

/* Memory that can be run is not made any more. */
static bool add_memory(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp runs = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, &runs) == 0 &&
           seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, &runs) == 0;
}

/* Threads, no processes; and signals to this process alone (abort). libc takes the older call where
 * the newer one, whose flags cannot be seen here, is not known. */
static bool add_threads(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp thread = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD);
    const struct scmp_arg_cmp self = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0);
    const struct scmp_arg_cmp name = SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0);
    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, &thread) == 0 &&
           seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0 &&
           seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self) == 0 &&
           seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, &name) == 0;
}

static bool add_lists(scmp_filter_ctx filter)
{
    bool good = true;
    for (size_t i = 0; good && i < COUNT_OF(allowed); i++) {
        good = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0) == 0;
    }
    for (size_t i = 0; good && i < COUNT_OF(deadly); i++) {
        good = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly[i], 0) == 0;
    }
    return good;
}

static bool set_filter(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    bool good = filter && add_lists(filter) && add_memory(filter) && add_threads(filter) &&
                seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) == 0 &&
                seccomp_load(filter) == 0;
    if (filter) {
        seccomp_release(filter);
    }
    return good;
}

bool confine(void)
{
    return prctl(PR_SET_DUMPABLE, 0) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           set_limits() && set_filter();
}

/* --- proof --- */

static bool refused(const char *what, bool done)
{
    int error = errno;
    bool good = !done && error == EPERM;
    printf("%s: %s\n", what, good ? "refused" : done ? "POSSIBLE" : strerror(error));
    return good;
}

bool confine_check(void)
{
    char letter = 0;
    bool good = refused("open a file to read", open("/etc/hostname", O_RDONLY) >= 0);
    good &= refused("open a file to write", open("/tmp/x", O_WRONLY | O_CREAT, 0600) >= 0);
    good &= refused("make a socket", socket(AF_INET, SOCK_STREAM, 0) >= 0);
    good &= refused("make a local socket", socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
    good &= refused("make a process", fork() >= 0);
    good &= refused("signal another process", kill(getppid(), 0) == 0);
    good &= refused("remove a file", unlink("/tmp/x") == 0);
    good &= refused("read a link", readlink("/proc/self/exe", &letter, 1) >= 0);
    good &= refused("map memory to run", mmap(NULL, 4096, PROT_READ | PROT_EXEC,
                                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    fflush(stdout);
    return good;
}
