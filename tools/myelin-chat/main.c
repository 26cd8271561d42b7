/* myelin-chat: a terminal client for unencrypted rooms on any Matrix server. */
#include "tools/myelin-chat/chat.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name, *words, *help;
    struct err (*fn)(struct chat *chat, char **words);
    int words_min, words_max; /* -1 = any number */
    enum { NEEDS_SERVER, NEEDS_LOGIN } needs;
};

static const struct command COMMANDS[] = {
    {"register", "USER", "create an account and log in", auth_register, 1, 1, NEEDS_SERVER},
    {"login", "USER", "log in; the password is asked for", auth_login, 1, 1, NEEDS_SERVER},
    {"logout", "", "end the session and forget it", auth_logout, 0, 0, NEEDS_LOGIN},
    {"whoami", "", "who is logged in, where", auth_whoami, 0, 0, NEEDS_LOGIN},
    {"rooms", "", "list joined rooms and invitations", room_list, 0, 0, NEEDS_LOGIN},
    {"create", "NAME [public] [USER...]", "create a room and invite users", room_create, 1, -1,
     NEEDS_LOGIN},
    {"join", "ROOM", "join a room by id or alias", room_join, 1, 1, NEEDS_LOGIN},
    {"leave", "ROOM", "leave a room, or refuse an invitation", room_leave, 1, 1, NEEDS_LOGIN},
    {"invite", "ROOM USER", "invite a user", room_invite, 2, 2, NEEDS_LOGIN},
    {"send", "ROOM TEXT...", "send a message", room_send, 2, -1, NEEDS_LOGIN},
    {"history", "ROOM [COUNT]", "the last messages", room_history, 1, 2, NEEDS_LOGIN},
    {"follow", "[ROOM]", "print what happens, as it happens", follow_rooms, 0, 1, NEEDS_LOGIN},
    {"talk", "ROOM", "follow a room and send each line typed", follow_talk, 1, 1, NEEDS_LOGIN},
};

static const char USAGE[] =
    "usage: myelin-chat [OPTIONS] COMMAND [WORDS]\n"
    "\n"
    "A terminal client for Matrix, for unencrypted rooms only: it neither encrypts nor decrypts,\n"
    "and refuses to send into an encrypted room. ROOM is an id (!...), an alias (#name:server),\n"
    "or the beginning of the name of a room that you are in.\n"
    "\n"
    "  --server URL            the homeserver, for register and login (kept afterwards)\n"
    "  --profile NAME          which of several sessions (default: default)\n"
    "  --ca FILE               trust this certificate authority\n"
    "  --insecure              do not check the server's certificate\n"
    "  --password-file FILE    first line is the password\n"
    "  --registration-token T  for servers that ask for one\n"
    "  --help, --version\n"
    "\n"
    "Exit code: 0 done, 1 failed or refused, 2 wrong usage.\n"
    "\n"
    "commands:\n";

static void usage(FILE *out)
{
    fputs(USAGE, out);
    for (size_t i = 0; i < COUNT_OF(COMMANDS); i++) {
        char head[64];
        snprintf(head, sizeof head, "%s %s", COMMANDS[i].name, COMMANDS[i].words);
        fprintf(out, "  %-32s %s\n", head, COMMANDS[i].help);
    }
}

enum choice {
    CHOICE_SERVER = 256,
    CHOICE_PROFILE,
    CHOICE_CA,
    CHOICE_INSECURE,
    CHOICE_PASSWORD_FILE,
    CHOICE_REGISTRATION_TOKEN,
    CHOICE_HELP,
    CHOICE_VERSION,
};

static const struct option OPTIONS[] = {
    {"server", required_argument, NULL, CHOICE_SERVER},
    {"profile", required_argument, NULL, CHOICE_PROFILE},
    {"ca", required_argument, NULL, CHOICE_CA},
    {"insecure", no_argument, NULL, CHOICE_INSECURE},
    {"password-file", required_argument, NULL, CHOICE_PASSWORD_FILE},
    {"registration-token", required_argument, NULL, CHOICE_REGISTRATION_TOKEN},
    {"help", no_argument, NULL, CHOICE_HELP},
    {"version", no_argument, NULL, CHOICE_VERSION},
    {0},
};

static bool set_option(struct chat *chat, int option)
{
    switch (option) {
    case CHOICE_SERVER:
        chat->options.server = slice_of(optarg);
        return slice_has_prefix(chat->options.server, LIT("http://")) ||
               slice_has_prefix(chat->options.server, LIT("https://"));
    case CHOICE_PROFILE:
        chat->profile = slice_of(optarg);
        return true;
    case CHOICE_CA:
        chat->options.ca_file = optarg;
        return true;
    case CHOICE_INSECURE:
        chat->options.check = API_INSECURE;
        return true;
    case CHOICE_PASSWORD_FILE:
        chat->password_file = optarg;
        return true;
    case CHOICE_REGISTRATION_TOKEN:
        chat->registration_token = slice_of(optarg);
        return true;
    default:
        return false;
    }
}

static const struct command *find_command(const char *name, int word_count)
{
    for (size_t i = 0; i < COUNT_OF(COMMANDS); i++) {
        const struct command *command = &COMMANDS[i];
        if (strcmp(command->name, name) == 0) {
            bool fits = word_count >= command->words_min &&
                        (command->words_max < 0 || word_count <= command->words_max);
            return fits ? command : NULL;
        }
    }
    return NULL;
}

static struct err run(struct chat *chat, const struct command *command, char **words)
{
    TRY(conf_load(chat->arena, chat->profile, &chat->session));
    if (chat->options.server.len == 0) {
        chat->options.server = chat->session.server;
    }
    while (slice_has_suffix(chat->options.server, LIT("/"))) {
        chat->options.server.len--;
    }
    if (chat->options.server.len == 0) {
        return err_public(ERR_SYNTAX, "give the homeserver: --server https://...");
    }
    if (command->needs == NEEDS_LOGIN) {
        if (chat->session.access_token.len == 0) {
            return err_public(ERR_SYNTAX, "log in first: myelin-chat --server URL login USER");
        }
        chat->options.token = chat->session.access_token;
    }
    TRY(api_new(&chat->options, &chat->api));
    struct err err = command->fn(chat, words);
    api_free(&chat->api);
    return err;
}

int main(int argc, char **argv)
{
    struct chat chat = {.profile = LIT("default")};
    for (int option; (option = getopt_long(argc, argv, "+h", OPTIONS, NULL)) != -1;) {
        if (option == CHOICE_HELP || option == 'h') {
            usage(stdout);
            return CHAT_DONE;
        }
        if (option == CHOICE_VERSION) {
            printf("myelin-chat %s\n", MYELIN_VERSION);
            return CHAT_DONE;
        }
        if (!set_option(&chat, option)) {
            fputs("myelin-chat: wrong option or value; see --help\n", stderr);
            return CHAT_USAGE;
        }
    }
    const struct command *command =
        optind < argc ? find_command(argv[optind], argc - optind - 1) : NULL;
    if (!command) {
        usage(stderr);
        return CHAT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    chat.arena = arena_new();
    struct err err = run(&chat, command, argv + optind + 1);
    if (err.code != 0) {
        fprintf(stderr, "myelin-chat: %s\n", err.text);
    }
    arena_free(&chat.arena);
    return err.code == 0 ? CHAT_DONE : CHAT_FAILED;
}
