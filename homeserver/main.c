/* The server program: flags, configuration, start, signals, stop. */
#include "homeserver/app.h"
#include "homeserver/appservice/registrations.h"
#include "homeserver/base/mem.h"
#include "homeserver/http/certificate.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    REPORT_BYTES_MAX = 1 << 20,
    ALLOCATOR_ARENAS = 2,
    TEND_EVERY_S = 2,
    FILES_MIN = 256,
    CLOCK_MIN_S = 1735689600, /* 2025-01-01, before this program was written */
};

static const char usage[] =
    "usage: myelin --config FILE [--check-config]\n"
    "       myelin --example-config [SERVER_NAME]\n"
    "       myelin --help | --version\n"
    "\n"
    "Runs the Matrix homeserver in the foreground, logging to the standard error output.\n"
    "SIGTERM and SIGINT stop it, SIGHUP reads the TLS certificates and the\n"
    "registrations of application services again.\n"
    "\n"
    "  --config FILE        the configuration, in YAML (myelin.yaml(5))\n"
    "  --check-config       only report what is wrong with the configuration\n"
    "  --example-config     print an annotated configuration with all settings\n"
    "  --help, --version\n"
    "\n"
    "Exit codes: 0 stopped when asked, 1 could not start or run, 2 wrong usage.\n";

struct options {
    const char *config;
    const char *server_name;
    const char *unknown; /* WRONG: the word, or NULL: there is no --config FILE */
    enum { RUN, CHECK, EXAMPLE, HELP, VERSION, WRONG } action;
};

static struct options parse_options(int argc, char **argv)
{
    struct options options = {.action = RUN};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            options.config = argv[++i];
        } else if (strcmp(argv[i], "--check-config") == 0) {
            options.action = CHECK;
        } else if (strcmp(argv[i], "--example-config") == 0) {
            options.action = EXAMPLE;
            options.server_name = i + 1 < argc ? argv[++i] : "localhost";
        } else if (strcmp(argv[i], "--help") == 0) {
            options.action = HELP;
        } else if (strcmp(argv[i], "--version") == 0) {
            options.action = VERSION;
        } else {
            options.action = WRONG;
            options.unknown = argv[i];
            return options;
        }
    }
    if (!options.config && (options.action == RUN || options.action == CHECK)) {
        options.action = WRONG;
    }
    return options;
}

static void print_slice(FILE *to, struct slice s)
{
    fwrite(s.ptr, 1, s.len, to);
}

static int print_example(const char *server_name)
{
    struct buf text;
    buf_init(&text, REPORT_BYTES_MAX);
    conf_write_example(&text, slice_of(server_name));
    print_slice(stdout, buf_slice(&text));
    buf_deinit(&text);
    return 0;
}

static bool load_config(struct arena *arena, const char *path, struct conf *conf)
{
    struct buf problems;
    buf_init_arena(&problems, arena, REPORT_BYTES_MAX);
    struct appservice_table *services = NULL;
    struct err err = conf_load(arena, slice_of(path), conf, &problems);
    if (err.code == 0) {
        err = as_registrations_load(conf, &problems, &services);
        hs_appservice_table_free(&services);
    }
    if (err.code != 0) {
        print_slice(stderr, buf_slice(&problems));
        fprintf(stderr, "myelin: %s: %s\n", path, err.text);
        return false;
    }
    return true;
}

/* What a server cannot do without: open files, and a clock that somebody has set. */
static struct err check_machine(struct arena *arena, struct log *log)
{
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max < FILES_MIN) {
        return err_publicf(arena, ERR_LIMIT,
                           "the limit on open files is %llu, and %d are needed at least: raise it "
                           "(ulimit -n, or LimitNOFILE of systemd)",
                           (unsigned long long)files.rlim_max, FILES_MIN);
    }
    if (time(NULL) < CLOCK_MIN_S) {
        log_warn(log, "clock_wrong",
                 .err = LIT("the machine's clock is years behind: certificates of other servers "
                            "seem not to be valid yet, and what is sent now seems old; set it"));
    }
    return OK;
}

static struct err make_data_dir(struct arena *arena, const struct conf *conf)
{
    char *path = arena_cstr(arena, conf->data_dir);
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return err_publicf(arena, ERR_IO, "data_dir %s cannot be made: %s", path, strerror(errno));
    }
    return OK;
}

static void print_addresses(const struct app *app, const struct conf *conf, struct log *log)
{
    for (size_t i = 0; i < conf->listen.count; i++) {
        char where[300];
        const struct conf_listener *listener = &conf->listen.items[i];
        snprintf(where, sizeof where, "%s://%.*s:%u", listener->tls ? "https" : "http",
                 (int)listener->host.len, listener->host.ptr, app_port(app, i));
        log_info(log, "listening", .note = slice_of(where));
    }
}

/* Waits for signals, which all threads have blocked, and tends the server meanwhile. */
static void run_until_stopped(struct app *app, struct log *log, const sigset_t *signals)
{
    const struct timespec pause = {.tv_sec = TEND_EVERY_S};
    for (;;) {
        int number = sigtimedwait(signals, NULL, &pause);
        if (number < 0) { /* none came */
            app_tend(app);
            continue;
        }
        if (number != SIGHUP) {
            log_info(log, "stopping", .note = slice_of(strsignal(number)));
            return;
        }
        struct err err = app_reload(app);
        if (err.code != 0) {
            log_error(log, "reload_failed", .err = slice_of(err.text));
        } else {
            log_info(log, "reloaded", .note = LIT("certificates, registrations"));
        }
    }
}

static sigset_t block_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signals;
}

static int serve(struct arena *arena, const struct conf *conf)
{
    sigset_t signals = block_signals();
    struct log *log = log_new((enum log_level)conf->log_level, STDERR_FILENO);
    struct app_options options = {.conf = conf, .log = log, .texts = arena};
    struct app *app = NULL;
    struct err err = check_machine(arena, log);
    if (err.code == 0) {
        err = make_data_dir(arena, conf);
    }
    if (err.code == 0) {
        err = app_new(&options, &app);
    }
    if (err.code == 0) {
        err = app_start(app);
    }
    if (err.code != 0) {
        log_error(log, "start_failed", .err = slice_of(err.text));
        app_free(&app);
        log_free(&log);
        return 1;
    }
    print_addresses(app, conf, log);
    run_until_stopped(app, log, &signals);
    app_free(&app);
    log_info(log, "stopped", .note = LIT("all written"));
    log_free(&log);
    return 0;
}

/* What --check-config looks at beside the configuration: the files that it names. Those in data_dir
 * the server makes itself. */
static int report_certificate(struct arena *arena, const struct conf *conf)
{
    struct now now = now_system();
    struct slice warning = {0};
    if (!conf->tls_certificate.len) {
        return 0;
    }
    struct err err = http_certificate_check(arena, conf->tls_certificate, conf->tls_key,
                                            now_wall_ms(&now), &warning);
    if (err.code != 0) {
        fprintf(stderr, "myelin: %s\n", err.text);
        return 1;
    }
    if (warning.len) {
        fprintf(stderr, "myelin: %s: %s\n", arena_cstr(arena, conf->tls_certificate), warning.ptr);
    }
    return 0;
}

static int run(const struct options *options)
{
    struct arena *arena = arena_new();
    struct conf conf = {0};
    int status = 1;
    if (load_config(arena, options->config, &conf)) {
        status = options->action == CHECK ? report_certificate(arena, &conf) : serve(arena, &conf);
    }
    if (status == 0 && options->action == CHECK) {
        printf("%s is fine\n", options->config);
    }
    arena_free(&arena);
    return status;
}

static int refuse_usage(const struct options *options)
{
    if (options->unknown) {
        fprintf(stderr, "myelin: what is %s?\n\n", options->unknown);
    } else {
        fputs("myelin: --config FILE is needed\n\n", stderr);
    }
    fputs(usage, stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    struct options options = parse_options(argc, argv);
    mem_limit_arenas(ALLOCATOR_ARENAS);
    switch (options.action) {
    case RUN:
    case CHECK:
        return run(&options);
    case EXAMPLE:
        return print_example(options.server_name);
    case HELP:
        fputs(usage, stdout);
        return 0;
    case VERSION:
        puts("myelin " MYELIN_VERSION);
        return 0;
    case WRONG:
        return refuse_usage(&options);
    }
    return EXIT_USAGE;
}
