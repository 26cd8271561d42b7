/* myelin-conform: plays scenes against a Matrix homeserver and says where it differs from the
 * specification. Exit codes: 0 all passed, 1 some scene failed, 2 wrong usage or no server. */
#include "tools/myelin-conform/coverage.h"
#include "tools/myelin-conform/run.h"

#include <curl/curl.h>
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

enum { PLAY_BYTES_MAX = 4 << 20, EXIT_FAILED = 1, EXIT_USAGE = 2, JOBS_DEFAULT = 4 };

struct options {
    struct stage_target target;
    const char *differences_file;
    const char *coverage_file;
    const char *record_file;
    const char *certificate_file;
    const char *key_file;
    struct slice filter;
    uint64_t jobs;
    bool lists;
    bool is_verbose;
    bool asks_help;
};

static const char usage[] =
    "usage: myelin-conform --base-url URL [option]... PLAY...\n"
    "       myelin-conform --list | --coverage FILE PLAY...\n"
    "\n"
    "Plays the scenes of the given files against a Matrix homeserver.\n"
    "\n"
    "  --base-url URL             the server's client API, such as http://127.0.0.1:8008\n"
    "  --play FILE                the same as naming the file\n"
    "  --registration-token TEXT  registers users with this token\n"
    "  --shared-secret TEXT       registers users by the administration call\n"
    "  --ca FILE                  certificate authority of the server\n"
    "  --server-certificate FILE  for servers that scenes play: a certificate for 127.0.0.1 by an\n"
    "                             authority that the server under test trusts\n"
    "  --server-key FILE          its key\n"
    "  --expect-differences FILE  scenes in which this server is known to differ\n"
    "  --filter TEXT              only scenes whose \"file: name\" contains TEXT\n"
    "  --jobs N                   scenes played at a time (default 4, at most 32)\n"
    "  --coverage FILE            writes which sentences of the specification are checked\n"
    "  --record FILE              writes every request and its answer, a line of JSON each\n"
    "  --list                     lists the scenes\n"
    "  --verbose                  prints passed scenes too\n"
    "  --help                     prints this\n"
    "\n"
    "Users register openly (m.login.dummy) unless a token or secret is given.\n"
    "Exit code: 0 all scenes passed, 1 some failed, 2 wrong usage or no answer.\n";

static struct err read_file(struct arena *arena, const char *path, struct slice *text_out)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        return err_publicf(arena, ERR_IO, "cannot read %s", path);
    }
    char *text = arena_alloc(arena, PLAY_BYTES_MAX);
    size_t len = fread(text, 1, PLAY_BYTES_MAX, file);
    bool is_whole = feof(file) && !ferror(file);
    fclose(file);
    *text_out = (struct slice){text, len};
    return is_whole ? OK : err_publicf(arena, ERR_LIMIT, "%s: unreadable or over 4 MiB", path);
}

static struct slice base_name(const char *path)
{
    struct slice s = slice_of(path);
    size_t slash = slice_find_last(s, '/');
    return slash < s.len ? slice_from(s, slash + 1) : s;
}

static struct err load_play(struct arena *arena, const char *path, struct play *play_out)
{
    struct slice text;
    TRY(read_file(arena, path, &text));
    struct err err = play_parse(arena, base_name(path), text, play_out);
    return err.code == 0 ? OK : err_publicf(arena, err.code, "%s: %s", path, err.text);
}

static struct err write_coverage(struct arena *arena, const char *path, const struct run *run)
{
    struct buf buf;
    buf_init_arena(&buf, arena, 64 << 20);
    coverage_write(&buf, arena, run->plays, run->play_count);
    FILE *file = fopen(path, "wb");
    if (!file) {
        return err_publicf(arena, ERR_IO, "cannot write %s", path);
    }
    size_t written = fwrite(buf.ptr, 1, buf.len, file);
    bool is_written = fclose(file) == 0 && written == buf.len;
    return is_written ? OK : err_publicf(arena, ERR_IO, "cannot write %s", path);
}

static void list_scenes(const struct run *run)
{
    for (size_t p = 0; p < run->play_count; p++) {
        for (size_t s = 0; s < run->plays[p].scene_count; s++) {
            const struct scene *scene = &run->plays[p].scenes[s];
            if (run_takes(run, &run->plays[p], scene)) {
                printf("%.*s: %.*s\n", (int)run->plays[p].file.len, run->plays[p].file.ptr,
                       (int)scene->name.len, scene->name.ptr);
            }
        }
    }
}

static bool was_played(const struct run *run, struct slice file)
{
    for (size_t i = 0; i < run->play_count; i++) {
        if (slice_eq(run->plays[i].file, file)) {
            return run->filter.len == 0;
        }
    }
    return false;
}

static void print_result(const struct run *run, const struct run_result *result)
{
    for (size_t i = 0; i < run->differences.count; i++) {
        const struct difference *entry = &run->differences.items[i];
        if (!entry->is_seen && was_played(run, entry->file)) {
            printf("not seen: the listed difference in %.*s: %.*s\n", (int)entry->file.len,
                   entry->file.ptr, (int)entry->scene.len, entry->scene.ptr);
        }
    }
    if (run->differences.count > 0) {
        printf("%zu differ as listed\n", result->differed);
    }
    if (result->skipped > 0) {
        printf("%zu left out: they play servers (--server-certificate, --server-key)\n",
               result->skipped);
    }
    printf("%zu passed, %zu failed\n", result->passed, result->failed);
}

static bool take_option(struct options *options, int letter, const char *value)
{
    switch (letter) {
    case 'b':
        options->target.base_url = slice_of(value);
        break;
    case 't':
        options->target.registration_token = slice_of(value);
        break;
    case 's':
        options->target.shared_secret = slice_of(value);
        break;
    case 'a':
        options->target.ca_file = slice_of(value);
        break;
    case 'e':
        options->certificate_file = value;
        break;
    case 'k':
        options->key_file = value;
        break;
    case 'd':
        options->differences_file = value;
        break;
    case 'f':
        options->filter = slice_of(value);
        break;
    case 'j':
        return slice_parse_u64(slice_of(value), &options->jobs) && options->jobs > 0;
    case 'c':
        options->coverage_file = value;
        break;
    case 'r':
        options->record_file = value;
        break;
    case 'l':
        options->lists = true;
        break;
    case 'v':
        options->is_verbose = true;
        break;
    case 'h':
        options->asks_help = true;
        break;
    default:
        return false;
    }
    return true;
}

static bool parse_options(int argc, char **argv, struct options *options, const char **files,
                          size_t *file_count_out)
{
    static const struct option long_options[] = {
        {"base-url", required_argument, NULL, 'b'},
        {"play", required_argument, NULL, 'p'},
        {"registration-token", required_argument, NULL, 't'},
        {"shared-secret", required_argument, NULL, 's'},
        {"ca", required_argument, NULL, 'a'},
        {"server-certificate", required_argument, NULL, 'e'},
        {"server-key", required_argument, NULL, 'k'},
        {"expect-differences", required_argument, NULL, 'd'},
        {"filter", required_argument, NULL, 'f'},
        {"jobs", required_argument, NULL, 'j'},
        {"coverage", required_argument, NULL, 'c'},
        {"record", required_argument, NULL, 'r'},
        {"list", no_argument, NULL, 'l'},
        {"verbose", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    bool good = true;
    int letter;
    while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (letter == 'p') {
            files[(*file_count_out)++] = optarg;
        } else {
            good = good && take_option(options, letter, optarg);
        }
    }
    while (optind < argc) {
        files[(*file_count_out)++] = argv[optind++];
    }
    return good;
}

static struct err play_all(struct arena *arena, struct options *options, struct run *run,
                           struct run_result *result_out)
{
    TRY(run_probe(arena, &options->target));
    if (options->record_file) {
        TRY(recorder_open(arena, options->record_file, &options->target.recorder));
    }
    *result_out = run_all(run);
    print_result(run, result_out);
    return recorder_close(&options->target.recorder);
}

static struct err perform(struct arena *arena, struct options *options, struct run *run,
                          struct run_result *result_out)
{
    if (options->differences_file) {
        struct slice text;
        TRY(read_file(arena, options->differences_file, &text));
        TRY(differences_parse(arena, text, &run->differences));
    }
    if (options->certificate_file && options->key_file) {
        TRY(read_file(arena, options->certificate_file, &options->target.tls.certificate));
        TRY(read_file(arena, options->key_file, &options->target.tls.key));
    }
    if (options->coverage_file) {
        TRY(write_coverage(arena, options->coverage_file, run));
    }
    if (options->lists) {
        list_scenes(run);
    }
    return options->target.base_url.len > 0 ? play_all(arena, options, run, result_out) : OK;
}

/* Reads the plays and does what the options ask. */
static struct err load_and_perform(struct arena *arena, struct options *options, struct run *run,
                                   const char **files, struct run_result *result_out)
{
    struct play *plays = arena_array(arena, run->play_count, sizeof *plays);
    for (size_t i = 0; i < run->play_count; i++) {
        TRY(load_play(arena, files[i], &plays[i]));
    }
    run->plays = plays;
    if (sodium_init() < 0 || curl_global_init(CURL_GLOBAL_ALL) != 0) {
        return err_public(ERR_INTERNAL, "a library does not start");
    }
    struct err err = perform(arena, options, run, result_out);
    curl_global_cleanup();
    return err;
}

int main(int argc, char **argv)
{
    struct arena *arena = arena_new();
    struct options options = {.jobs = JOBS_DEFAULT};
    const char **files = arena_array(arena, (size_t)argc + 1, sizeof *files);
    size_t file_count = 0;
    bool good = parse_options(argc, argv, &options, files, &file_count);
    bool has_task = options.lists || options.coverage_file || options.target.base_url.len > 0;
    if (options.asks_help || !good || file_count == 0 || !has_task) {
        fputs(usage, options.asks_help ? stdout : stderr);
        arena_free(&arena);
        return options.asks_help ? 0 : EXIT_USAGE;
    }
    struct run run = {.target = &options.target,
                      .play_count = file_count,
                      .filter = options.filter,
                      .jobs = (size_t)options.jobs,
                      .is_verbose = options.is_verbose};
    struct run_result result = {0};
    struct err err = load_and_perform(arena, &options, &run, files, &result);
    int code = result.failed > 0 ? EXIT_FAILED : 0;
    if (err.code != 0) {
        fprintf(stderr, "myelin-conform: %s\n", err.text);
        code = EXIT_USAGE;
    }
    arena_free(&arena);
    return code;
}
