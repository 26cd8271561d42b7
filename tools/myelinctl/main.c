/* myelinctl: looks after a server: its accounts, rooms and its store. */
#include "homeserver/admin/ops.h"
#include "homeserver/base/json_out.h"
#include "tools/myelinctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    PARAMS_MAX = 5,
    PASSWORD_BYTES_MAX = 512,
    PATH_BYTES_MAX = 4096,
    REPORT_BYTES_MAX = 1 << 20
};

/* What may stand behind a command: words in their order, then options. */
struct param {
    const char *name; /* of the option, with its dashes; of a word, as the help shows it */
    const char *key;  /* of the argument */
    enum {
        PARAM_NONE,
        PARAM_WORD,
        PARAM_PATH,
        PARAM_TEXT,
        PARAM_INT,
        PARAM_FLAG,
        PARAM_PASSWORD
    } kind;
};

struct command {
    const char *name; /* one or two words */
    const char *help;
    const char *op; /* of admin/ops.h; NULL: `run` does it */
    int (*run)(struct ctl *ctl);
    struct param params[PARAMS_MAX];
    const char *more; /* for the help of the command alone */
};

#define USER                                                                                       \
    {                                                                                              \
        "USER", "user", PARAM_WORD                                                                 \
    }
#define ROOM                                                                                       \
    {                                                                                              \
        "ROOM", "room", PARAM_WORD                                                                 \
    }
#define MXC                                                                                        \
    {                                                                                              \
        "MXC", "mxc", PARAM_WORD                                                                   \
    }
#define PASSWORD                                                                                   \
    {                                                                                              \
        "--password-file", "password", PARAM_PASSWORD                                              \
    }

static const struct command commands[] = {
    {"users list", "all accounts", "users/list", NULL, {{0}}, NULL},
    {"users show", "one account", "users/show", NULL, {USER}, NULL},
    {"users create",
     "create an account",
     "users/create",
     NULL,
     {USER, PASSWORD, {"--admin", "admin", PARAM_FLAG}},
     "Without --password-file a password is made up and printed. FILE may be - : then the\n"
     "password is the first line of the standard input.\n"},
    {"users reset-password",
     "give an account another password, and sign it out",
     "users/reset_password",
     NULL,
     {USER, PASSWORD, {"--keep-devices", "keep_devices", PARAM_FLAG}},
     "Without --password-file a password is made up and printed.\n"},
    {"users deactivate",
     "end an account",
     "users/deactivate",
     NULL,
     {USER, {"--erase", "erase", PARAM_FLAG}},
     "The account leaves all its rooms. Its name is never given out again.\n"},
    {"users lock", "keep an account from doing anything", "users/lock", NULL, {USER}, NULL},
    {"users unlock", "undo it", "users/unlock", NULL, {USER}, NULL},
    {"users suspend", "keep an account from writing", "users/suspend", NULL, {USER}, NULL},
    {"users unsuspend", "undo it", "users/unsuspend", NULL, {USER}, NULL},
    {"users make-admin",
     "make an account a server administrator",
     "users/make_admin",
     NULL,
     {USER},
     NULL},
    {"users remove-admin", "undo it", "users/remove_admin", NULL, {USER}, NULL},
    {"devices list", "devices of an account", "devices/list", NULL, {USER}, NULL},
    {"devices delete",
     "sign a device out and remove it",
     "devices/delete",
     NULL,
     {USER, {"DEVICE", "device", PARAM_WORD}},
     NULL},
    {"rooms list", "all rooms", "rooms/list", NULL, {{0}}, NULL},
    {"rooms show", "one room", "rooms/show", NULL, {ROOM}, "ROOM is an id or an alias.\n"},
    {"rooms members",
     "members of a room",
     "rooms/members",
     NULL,
     {ROOM, {"--membership", "membership", PARAM_TEXT}},
     "--membership join, invite, knock, leave or ban; without it all are shown.\n"},
    {"rooms partial",
     "rooms whose members are still on their way after a join",
     "rooms/partial",
     NULL,
     {{0}},
     NULL},
    {"registration-tokens list",
     "tokens that allow to register",
     "registration_tokens/list",
     NULL,
     {{0}},
     NULL},
    {"registration-tokens create",
     "make a token",
     "registration_tokens/create",
     NULL,
     {{"--token", "token", PARAM_TEXT},
      {"--uses", "uses_allowed", PARAM_INT},
      {"--days", "days", PARAM_INT}},
     "Without --token a name is made up; without --uses it may be used any number of times;\n"
     "without --days it does not expire.\n"},
    {"registration-tokens delete",
     "remove a token",
     "registration_tokens/delete",
     NULL,
     {{"TOKEN", "token", PARAM_WORD}},
     NULL},
    {"reports list",
     "what users reported about events, rooms and users",
     "reports/list",
     NULL,
     {{0}},
     NULL},
    {"reports dismiss",
     "remove a report",
     "reports/delete",
     NULL,
     {{"--number", "number", PARAM_INT}},
     NULL},
    {"media show", "one file", "media/show", NULL, {MXC}, "MXC is a URI: mxc://SERVER/ID.\n"},
    {"media quarantine",
     "keep a file from being served to anybody",
     "media/quarantine",
     NULL,
     {MXC},
     "A file of another server is not fetched again; it need not be here.\n"},
    {"media release", "undo it", "media/release", NULL, {MXC}, NULL},
    {"media delete", "remove a file with its thumbnails", "media/delete", NULL, {MXC}, NULL},
    {"media purge-remote",
     "remove files of other servers",
     "media/purge_remote",
     NULL,
     {{"--before", "before", PARAM_TEXT}},
     "Those that were fetched before a day, such as 2026-01-31. They are fetched again when\n"
     "somebody wants them; those in quarantine stay.\n"},
    {"notice send",
     "tell a user, or all, something in the name of the server",
     "notices/send",
     NULL,
     {{"[USER]", "user", PARAM_WORD}, {"[TEXT]", "text", PARAM_WORD}, {"--all", "all", PARAM_FLAG}},
     "USER TEXT, or --all TEXT. Each user has a room for such notices.\n"
     "server_notices.enabled must be set.\n"},
    {"purge-room",
     "remove a room with all its events",
     "rooms/purge",
     NULL,
     {ROOM},
     "Nothing of the room is kept on this server. An interrupted purge is finished by\n"
     "beginning it again.\n"},
    {"destinations",
     "servers that something waits for, or that fail",
     "destinations/list",
     NULL,
     {{"[SERVER]", "server", PARAM_WORD}},
     "With SERVER that one alone, whatever its state.\n"},
    {"refused",
     "events and EDUs that other servers refused, with their reasons",
     "destinations/refused",
     NULL,
     {{"[SERVER]", "server", PARAM_WORD}},
     "The newest hundred of each server are kept.\n"},
    {"retry",
     "send to a server that is waited for, now",
     "destinations/retry",
     NULL,
     {{"[SERVER]", "server", PARAM_WORD}, {"--all", "all", PARAM_FLAG}},
     "The server must run.\n"},
    {"appservices list",
     "application services, and what waits for them",
     "appservices/list",
     NULL,
     {{0}},
     NULL},
    {"appservices retry",
     "send to an application service that is waited for, now",
     "appservices/retry",
     NULL,
     {{"[ID]", "id", PARAM_WORD}, {"--all", "all", PARAM_FLAG}},
     "The server must run.\n"},
    {"search show", "how far the search index is", "search/show", NULL, {{0}}, NULL},
    {"search rebuild",
     "make the search index anew",
     "search/rebuild",
     NULL,
     {{0}},
     "A server that runs does it beside its work, one that does not run at its next start.\n"},
    {"backup",
     "copy everything into a new folder",
     "backup",
     NULL,
     {{"FOLDER", "path", PARAM_PATH}},
     "The server may run; it writes the copy itself, as its user, and FOLDER must not exist. The\n"
     "copy takes the place of data_dir. On the file system of data_dir it shares the files with\n"
     "it: bring it to another disk.\n"},
    {"rotate-key",
     "make a new key to sign with",
     "rotate_key",
     NULL,
     {{0}},
     "The server must not run. The present key stays published for the events that it signed.\n"},
    {"stats", "figures of the server and its store", "stats", NULL, {{0}}, NULL},
    {"compact", "give disk space of deleted rows back", "compact", NULL, {{0}}, NULL},
    {"check",
     "prove that all indexes are what the rooms' logs say",
     NULL,
     ctl_check,
     {{"--deep", "deep", PARAM_FLAG}},
     "The server must not run; nothing is changed. --deep also proves canonical form, hashes,\n"
     "ids and own signatures of all events. Exit code: 0 no differences, 1 differences.\n"},
    {"rebuild",
     "write the indexes anew where they differ from the rooms' logs",
     NULL,
     ctl_rebuild,
     {{0}},
     "The server must not run. May be interrupted and begun again. Exit code: 0 all is well\n"
     "now, 1 something could not be healed.\n"},
};

static const char head[] =
    "usage: myelinctl [--config FILE] [--admin URL] [--json] COMMAND [WORDS] [OPTIONS]\n"
    "\n"
    "Works on the store of a server that does not run, and through the admin listener of one\n"
    "that does (settings admin.host and admin.port).\n"
    "\n"
    "  --config FILE   the server's configuration (default: myelin.yaml)\n"
    "  --admin URL     the admin listener, such as http://127.0.0.1:9008\n"
    "  --json          print JSON\n"
    "  --help, --version\n"
    "\n"
    "Exit code: 0 done, 1 failed (check: differences), 2 wrong usage.\n"
    "\n"
    "commands (myelinctl COMMAND --help says more):\n";

/* --- printing --- */

void ctl_print(struct slice text)
{
    fwrite(text.ptr, 1, text.len, stdout);
}

void ctl_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("myelinctl: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* Words stand by their place, options by their names. */
static bool is_word(const struct param *param)
{
    return param->kind == PARAM_WORD || param->kind == PARAM_PATH;
}

static void print_words(FILE *out, const struct command *command)
{
    for (size_t i = 0; i < PARAMS_MAX && command->params[i].kind; i++) {
        const struct param *param = &command->params[i];
        const char *value = param->kind == PARAM_FLAG       ? ""
                            : param->kind == PARAM_PASSWORD ? " FILE"
                            : param->kind == PARAM_INT      ? " N"
                                                            : " TEXT";
        if (is_word(param)) {
            fprintf(out, " %s", param->name);
        } else {
            fprintf(out, " [%s%s]", param->name, value);
        }
    }
}

/* All commands, or those that begin with this word. */
static void print_commands(FILE *out, const char *group)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        if (!group || strncmp(commands[i].name, group, strlen(group)) == 0) {
            fprintf(out, "  %-28s %s\n", commands[i].name, commands[i].help);
        }
    }
}

static void print_usage(FILE *out)
{
    fputs(head, out);
    print_commands(out, NULL);
}

static void print_help(const struct command *command)
{
    printf("usage: myelinctl %s", command->name);
    print_words(stdout, command);
    printf("\n\n%s\n%s", command->help, command->more ? command->more : "");
}

/* --- the store --- */

bool ctl_load(struct ctl *ctl)
{
    struct buf problems;
    buf_init_arena(&problems, ctl->arena, REPORT_BYTES_MAX);
    struct err err = conf_load(ctl->arena, slice_of(ctl->config_path), &ctl->conf, &problems);
    if (err.code != 0) {
        fwrite(problems.ptr, 1, problems.len, stderr);
        ctl_error("%s: %s", ctl->config_path, err.text);
    }
    return err.code == 0;
}

bool ctl_server_runs(struct ctl *ctl)
{
    struct slice dir = ctl->conf.data_dir;
    struct slice path = arena_printf(ctl->arena, "%.*s/store/lock", (int)dir.len, dir.ptr);
    int fd = open(path.ptr, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool runs = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return runs;
}

struct app *ctl_open(struct ctl *ctl, bool read_only)
{
    if (!ctl->log_owned) {
        ctl->log_owned = log_new(LOG_LEVEL_ERROR, STDERR_FILENO);
    }
    struct app_options options = {.conf = &ctl->conf,
                                  .log = ctl->log_owned,
                                  .texts = ctl->arena,
                                  .mode = APP_OFFLINE,
                                  .access = read_only ? APP_READ_ONLY : APP_READ_WRITE};
    struct app *app = NULL;
    struct err err = app_new(&options, &app);
    if (err.code != 0) {
        ctl_error("%s", err.text);
    }
    return app;
}

/* --- arguments --- */

static bool read_password(struct ctl *ctl, const char *path, struct slice *password_out)
{
    char line[PASSWORD_BYTES_MAX + 2];
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!file || !fgets(line, sizeof line, file)) {
        ctl_error("cannot read a password from %s", path);
        if (file && file != stdin) {
            fclose(file);
        }
        return false;
    }
    line[strcspn(line, "\r\n")] = '\0';
    if (file != stdin) {
        fclose(file);
    }
    *password_out = arena_copy(ctl->arena, slice_of(line));
    return true;
}

/* The option of the command that this word names. */
static const struct param *find_option(const struct command *command, const char *word)
{
    for (size_t i = 0; i < PARAMS_MAX && command->params[i].kind; i++) {
        if (!is_word(&command->params[i]) && strcmp(command->params[i].name, word) == 0) {
            return &command->params[i];
        }
    }
    return NULL;
}

static struct slice absolute(struct arena *arena, const char *path)
{
    char here[PATH_BYTES_MAX];
    if (path[0] == '/' || !getcwd(here, sizeof here)) {
        return slice_of(path);
    }
    return arena_printf(arena, "%s/%s", here, path);
}

static bool set_option(struct ctl *ctl, struct json *args, const struct param *param,
                       const char *value)
{
    int64_t number = 0;
    struct slice password;
    struct slice key = slice_of(param->key);
    switch (param->kind) {
    case PARAM_FLAG:
        json_set(ctl->arena, args, key, json_bool(true));
        return true;
    case PARAM_INT:
        if (!slice_parse_i64(slice_of(value), &number)) {
            ctl_error("%s takes a number", param->name);
            return false;
        }
        json_set(ctl->arena, args, key, json_int(number));
        return true;
    case PARAM_PASSWORD:
        if (!read_password(ctl, value, &password)) {
            return false;
        }
        json_set(ctl->arena, args, key, json_string(password));
        return true;
    case PARAM_PATH: /* the server has a working folder of its own */
        json_set(ctl->arena, args, key, json_string(absolute(ctl->arena, value)));
        return true;
    case PARAM_NONE:
    case PARAM_WORD:
    case PARAM_TEXT:
        json_set(ctl->arena, args, key, json_string(slice_of(value)));
        return true;
    }
    return false;
}

static const struct param *next_word(const struct command *command, size_t *at)
{
    while (*at < PARAMS_MAX && is_word(&command->params[*at])) {
        return &command->params[(*at)++];
    }
    return NULL;
}

static int read_arguments(struct ctl *ctl, const struct command *command, char **words,
                          struct json *args)
{
    size_t at = 0;
    for (; *words; words++) {
        const struct param *option = find_option(command, *words);
        const struct param *word = option || **words == '-' ? NULL : next_word(command, &at);
        const char *value = *words;
        if (option && option->kind != PARAM_FLAG && !*++words) {
            ctl_error("%s takes a value", option->name);
            return CTL_USAGE;
        }
        if (!option && !word) {
            ctl_error("what is %s? See myelinctl %s --help", *words, command->name);
            return CTL_USAGE;
        }
        if (!set_option(ctl, args, option ? option : word, option ? *words : value)) {
            return CTL_FAILED;
        }
    }
    const struct param *missing = next_word(command, &at);
    if (missing && missing->name[0] != '[') {
        ctl_error("%s needs %s", command->name, command->params[at - 1].name);
        return CTL_USAGE;
    }
    return CTL_DONE;
}

/* --- operations --- */

static bool run_here(struct ctl *ctl, const char *op, struct slice args, struct json *answer_out)
{
    struct now now = now_system();
    struct ctx ctx = {.arena = ctl->arena, .now = &now};
    struct buf text;
    struct json json;
    struct app *app = ctl_open(ctl, false);
    if (!app) {
        return false;
    }
    buf_init_arena(&text, ctl->arena, SIZE_MAX / 2);
    struct json_out out = json_out_to(&text);
    struct err err = json_parse(ctl->arena, args, &json);
    if (err.code == 0) {
        err = admin_run(app_hs(app), &ctx, slice_of(op), &json, &out);
    }
    if (err.code == 0 && ctx.write_ticket) {
        err = store_wait_durable(app_hs(app)->store, ctx.write_ticket);
    }
    ctx_finish(&ctx);
    app_free(&app);
    if (err.code == 0) {
        err = json_parse(ctl->arena, buf_slice(&text), answer_out);
    }
    if (err.code != 0) {
        ctl_error("%s", err.text);
    }
    return err.code == 0;
}

static bool run_once(struct ctl *ctl, const char *op, const struct json *args, bool online,
                     struct json *answer_out)
{
    struct slice text = json_canonical(ctl->arena, args);
    return online ? ctl_ask(ctl, op, text, answer_out) : run_here(ctl, op, text, answer_out);
}

/* Long lists come in pages, each naming where the next begins. */
static int run_op(struct ctl *ctl, const struct command *command, struct json *args)
{
    bool online = ctl->admin_url.len || ctl_server_runs(ctl);
    struct json answer;
    int64_t next = 0;
    if (online && !ctl->admin_url.len && !ctl->conf.admin_port) {
        ctl_error("the server is running: stop it, or set admin.port, or use --admin URL");
        return CTL_FAILED;
    }
    do {
        if (!run_once(ctl, command->op, args, online, &answer)) {
            return CTL_FAILED;
        }
        ctl_print_answer(ctl, &answer);
    } while (json_get_int(&answer, LIT("next"), &next) &&
             (json_set(ctl->arena, args, LIT("from"), json_int(next)), true));
    return CTL_DONE;
}

/* --- the command line --- */

static const struct command *find_command(char **words, size_t *used_out)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        struct slice second;
        struct slice first;
        second = slice_cut(slice_of(commands[i].name), ' ', &first);
        bool fits = words[0] && slice_eq(first, slice_of(words[0]));
        bool fits_second =
            !second.ptr || (fits && words[1] && slice_eq(second, slice_of(words[1])));
        if (fits && fits_second) {
            *used_out = second.ptr ? 2 : 1;
            return &commands[i];
        }
    }
    return NULL;
}

/* Options before the command. Gives the index of the first word after them, or -1. */
static int read_globals(struct ctl *ctl, int argc, char **argv)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            ctl->json = true;
        } else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            ctl->config_path = argv[++i];
        } else if (strcmp(argv[i], "--admin") == 0 && i + 1 < argc) {
            ctl->admin_url = slice_of(argv[++i]);
        } else {
            return -1;
        }
    }
    return i < argc ? i : -1;
}

static int run_command(struct ctl *ctl, const struct command *command, char **words)
{
    struct json args = json_object();
    for (char **word = words; *word; word++) {
        if (strcmp(*word, "--help") == 0) {
            print_help(command);
            return CTL_DONE;
        }
    }
    int status = read_arguments(ctl, command, words, &args);
    if (status != CTL_DONE) {
        return status;
    }
    ctl->deep = json_get_bool(&args, LIT("deep"), false);
    if (!ctl_load(ctl)) {
        return CTL_FAILED;
    }
    return command->op ? run_op(ctl, command, &args) : command->run(ctl);
}

/* `words`: what stands in place of a command; NULL = an option before it is wrong. */
static int refuse_usage(char **words)
{
    if (words) {
        ctl_error("there is no command %s%s%s", words[0], words[1] ? " " : "",
                  words[1] ? words[1] : "");
    }
    if (words && strlen(words[0]) > 3) {
        fprintf(stderr, "usage: myelinctl COMMAND [WORDS] [OPTIONS], COMMAND being one of\n");
        print_commands(stderr, words[0]);
    } else {
        print_usage(stderr);
    }
    return CTL_USAGE;
}

int main(int argc, char **argv)
{
    struct ctl ctl = {.config_path = "myelin.yaml"};
    size_t used = 0;
    bool is_version =
        argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0);
    if (is_version) {
        puts("myelinctl " MYELIN_VERSION);
        return CTL_DONE;
    }
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
        print_usage(stdout);
        return CTL_DONE;
    }
    int first = read_globals(&ctl, argc, argv);
    const struct command *command = first < 0 ? NULL : find_command(argv + first, &used);
    if (!command) {
        return refuse_usage(first < 0 ? NULL : argv + first);
    }
    ctl.arena = arena_new();
    int status = run_command(&ctl, command, argv + first + used);
    log_free(&ctl.log_owned);
    arena_free(&ctl.arena);
    return status;
}
