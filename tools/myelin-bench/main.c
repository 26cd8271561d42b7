/* myelin-bench: measures any Matrix homeserver, and a second one beside it in the same run. */
#include "homeserver/base/mem.h"
#include "tools/myelin-bench/probe.h"
#include "tools/myelin-bench/made_up.h"
#include "tools/myelin-bench/rows.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    const char *name;
    row_fn fn;
    enum { IN_ALL, IN_FULL, NO_SERVER, FEDERATED } kind;
    const char *help;
};

static const struct row ROWS[] = {
    {"fresh", row_fresh, IN_ALL, "start and memory of a fresh server (start needs --start)"},
    {"sends-own", row_sends_own, IN_ALL, "durable sends, a room for each client"},
    {"sends-shared", row_sends_shared, IN_ALL, "durable sends, four rooms shared by all clients"},
    {"delivery-poll", row_delivery_poll, IN_ALL, "send to the other client's long poll"},
    {"delivery-stream", row_delivery_stream, IN_ALL, "send to the other client's stream"},
    {"fanout", row_fanout, IN_ALL, "one message into a room of 200 and 1,000 parked clients"},
    {"initial-sync", row_initial_sync, IN_ALL, "first syncs of many users at once"},
    {"sync-idle", row_sync_idle, IN_ALL, "sync with nothing new, 50 and 2,000 rooms"},
    {"sliding", row_sliding, IN_ALL, "sliding sync of an account with 2,000 rooms"},
    {"costs", row_costs, IN_ALL, "server CPU of registration, room creation, join"},
    {"loaded", row_loaded, IN_ALL, "memory after the load, start with its data"},
    {"idle-poll", row_idle_poll, IN_ALL, "memory of an idle long-poll client"},
    {"idle-stream", row_idle_stream, IN_ALL, "memory of an idle stream client"},
    {"state-size", row_state_size, NO_SERVER, "state records beside event JSON"},
    {"resolve", row_resolve, NO_SERVER, "state resolution in a room of 100,000 members"},
    {"purge", row_purge, NO_SERVER, "purge of a room with 1,000,000 events"},
    {"fed-delivery", row_fed_delivery, FEDERATED, "send on one server to sync on the other"},
    {"fed-burst", row_fed_burst, FEDERATED, "events a second from one server to the other"},
    {"fed-join", row_fed_join, FEDERATED, "joining a small room of the other server"},
    {"fed-join-large", row_fed_join_large, FEDERATED, "joining a room of 50,000 members"},
    {"fed-destinations", row_fed_destinations, FEDERATED,
     "one message to many servers, half of them dead (needs --made-up)"},
    {"million", row_million, IN_FULL, "start with 1,000,000 events (needs --start)"},
};

static const char USAGE[] =
    "usage: myelin-bench [OPTIONS] ROW... | all\n"
    "\n"
    "Measures a Matrix homeserver. It must allow registration with a password and no rate limits.\n"
    "\n"
    "  --server URL            plain http URL (default http://127.0.0.1:8008)\n"
    "  --name NAME             its name in the table (default myelin)\n"
    "  --pid PID               its process, for CPU and memory\n"
    "  --start COMMAND         start it by this command instead, and stop it at the end\n"
    "  --compare NAME=URL[,PID]  a second server beside it\n"
    "  --compare-start COMMAND   start the second server by this command\n"
    "  --seconds N             length of each timed part (default 8)\n"
    "  --clients N             that send at once (default 64)\n"
    "  --rate N                messages a second in the delivery rows (default 1000)\n"
    "  --peer-rate N           the same for the second server (default 40)\n"
    "  --connections N         idle ones (default: as many as descriptors allow)\n"
    "  --sync UxRxM            first syncs: users, rooms, members (default 20x50x20)\n"
    "  --beside URL[,PID]      a server that federates with the first one\n"
    "  --compare-beside URL[,PID]  and one that federates with the second\n"
    "  --members N             of the large federated room (default 50000; second server 1000)\n"
    "  --destinations N        made-up servers (default 1000; second server 50)\n"
    "  --made-up CERTIFICATE,KEY,PORT  TLS of those, for *.made-up.test and 127.1.0.1 to .50, and\n"
    "                          the first of five ports (see tools/bench-federation)\n"
    "  --full                  the large counts too\n"
    "  --scratch DIR           folder for the rows without a server (default /tmp)\n"
    "  --json                  one JSON object a line instead of the table\n"
    "  --help, --version\n"
    "\n"
    "Exit code: 0 all measured goals met, 1 some missed or a row failed, 2 wrong usage.\n"
    "\n"
    "rows:\n";

struct command {
    struct target targets[2], besides[2];
    size_t target_count;
    struct row_options options;
    enum report_form form;
};

enum choice {
    OPTION_SERVER = 256,
    OPTION_NAME,
    OPTION_PID,
    OPTION_START,
    OPTION_COMPARE,
    OPTION_COMPARE_START,
    OPTION_SECONDS,
    OPTION_CLIENTS,
    OPTION_RATE,
    OPTION_PEER_RATE,
    OPTION_CONNECTIONS,
    OPTION_SYNC,
    OPTION_BESIDE,
    OPTION_COMPARE_BESIDE,
    OPTION_MEMBERS,
    OPTION_DESTINATIONS,
    OPTION_MADE_UP,
    OPTION_FULL,
    OPTION_SCRATCH,
    OPTION_JSON,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option OPTIONS[] = {
    {"server", required_argument, NULL, OPTION_SERVER},
    {"name", required_argument, NULL, OPTION_NAME},
    {"pid", required_argument, NULL, OPTION_PID},
    {"start", required_argument, NULL, OPTION_START},
    {"compare", required_argument, NULL, OPTION_COMPARE},
    {"compare-start", required_argument, NULL, OPTION_COMPARE_START},
    {"seconds", required_argument, NULL, OPTION_SECONDS},
    {"clients", required_argument, NULL, OPTION_CLIENTS},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"peer-rate", required_argument, NULL, OPTION_PEER_RATE},
    {"connections", required_argument, NULL, OPTION_CONNECTIONS},
    {"sync", required_argument, NULL, OPTION_SYNC},
    {"beside", required_argument, NULL, OPTION_BESIDE},
    {"compare-beside", required_argument, NULL, OPTION_COMPARE_BESIDE},
    {"members", required_argument, NULL, OPTION_MEMBERS},
    {"destinations", required_argument, NULL, OPTION_DESTINATIONS},
    {"made-up", required_argument, NULL, OPTION_MADE_UP},
    {"full", no_argument, NULL, OPTION_FULL},
    {"scratch", required_argument, NULL, OPTION_SCRATCH},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {0},
};

static void usage(FILE *out)
{
    fputs(USAGE, out);
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        const char *note = ROWS[i].kind == IN_FULL     ? " (in all with --full)"
                           : ROWS[i].kind == FEDERATED ? " (needs --beside)"
                                                       : "";
        fprintf(out, "  %-16s %s%s\n", ROWS[i].name, ROWS[i].help, note);
    }
}

static bool set_compare(struct command *command, const char *text)
{
    struct target *peer = &command->targets[1];
    struct slice rest = slice_cut(slice_of(text), '=', &peer->name), pid;
    pid = slice_cut(rest, ',', &peer->url);
    uint64_t number = 0;
    if (pid.len > 0 && !slice_parse_u64(pid, &number)) {
        return false;
    }
    peer->pid = (pid_t)number;
    command->target_count = 2;
    return peer->url.len > 0;
}

static bool set_beside(struct command *command, size_t index, const char *text)
{
    struct target *beside = &command->besides[index];
    struct slice pid = slice_cut(slice_of(text), ',', &beside->url);
    uint64_t number = 0;
    if (pid.len > 0 && !slice_parse_u64(pid, &number)) {
        return false;
    }
    beside->pid = (pid_t)number;
    beside->name = command->targets[index].name;
    beside->is_peer = index == 1;
    command->targets[index].beside = beside;
    return beside->url.len > 0;
}

static bool set_made_up(struct row_options *options, const char *text)
{
    struct slice rest = slice_cut(slice_of(text), ',', &options->made_up_certificate);
    rest = slice_cut(rest, ',', &options->made_up_key);
    uint64_t port = 0;
    bool good = slice_parse_u64(rest, &port) && port > 0 && port < UINT16_MAX - MADE_UP_PORTS;
    options->made_up_port = (uint16_t)port;
    return good;
}

static bool set_federation_option(struct command *command, int option)
{
    switch (option) {
    case OPTION_BESIDE:
        return set_beside(command, 0, optarg);
    case OPTION_COMPARE_BESIDE:
        return set_beside(command, 1, optarg);
    case OPTION_MEMBERS:
        command->options.members = strtoul(optarg, NULL, 10);
        return command->options.members > 0;
    case OPTION_DESTINATIONS:
        command->options.destinations = strtoul(optarg, NULL, 10);
        return command->options.destinations >= 4 && command->options.destinations <= MADE_UP_MAX;
    case OPTION_MADE_UP:
        return set_made_up(&command->options, optarg);
    default:
        return false;
    }
}

static bool set_option(struct command *command, int option)
{
    struct row_options *options = &command->options;
    switch (option) {
    case OPTION_SERVER:
        command->targets[0].url = slice_of(optarg);
        return true;
    case OPTION_NAME:
        command->targets[0].name = slice_of(optarg);
        return true;
    case OPTION_PID:
        command->targets[0].pid = (pid_t)strtol(optarg, NULL, 10);
        return command->targets[0].pid > 0;
    case OPTION_START:
        command->targets[0].start_command = optarg;
        return true;
    case OPTION_COMPARE:
        return set_compare(command, optarg);
    case OPTION_COMPARE_START:
        command->targets[1].start_command = optarg;
        return true;
    case OPTION_SECONDS:
        options->seconds = strtod(optarg, NULL);
        return options->seconds > 0;
    case OPTION_CLIENTS:
        options->clients = strtoul(optarg, NULL, 10);
        return options->clients >= 4;
    case OPTION_RATE:
        options->rate = strtod(optarg, NULL);
        return options->rate > 0;
    case OPTION_PEER_RATE:
        options->peer_rate = strtod(optarg, NULL);
        return options->peer_rate > 0;
    case OPTION_CONNECTIONS:
        options->connections = strtoul(optarg, NULL, 10);
        return options->connections > 0;
    case OPTION_SYNC:
        return sscanf(optarg, "%zux%zux%zu", &options->sync_users, &options->sync_rooms,
                      &options->sync_members) == 3;
    case OPTION_FULL:
        options->size = ROW_FULL;
        return true;
    case OPTION_SCRATCH:
        options->scratch = optarg;
        return true;
    case OPTION_JSON:
        command->form = REPORT_JSON;
        return true;
    default:
        return set_federation_option(command, option);
    }
}

static bool is_in_all(const struct command *command, const struct row *row)
{
    return row->kind == FEDERATED ? command->targets[0].beside != NULL
                                  : row->kind != IN_FULL || command->options.size == ROW_FULL;
}

static bool is_wanted(const struct command *command, const struct row *row, char **names)
{
    for (; *names; names++) {
        bool all = strcmp(*names, "all") == 0;
        if (strcmp(*names, row->name) == 0 || (all && is_in_all(command, row))) {
            return true;
        }
    }
    return false;
}

static bool is_row(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        if (strcmp(name, ROWS[i].name) == 0) {
            return true;
        }
    }
    return strcmp(name, "all") == 0;
}

static bool run_row(struct command *command, struct report *report, const struct row *row)
{
    bool good = true;
    size_t servers = row->kind == NO_SERVER ? 1 : command->target_count;
    for (size_t i = 0; i < servers; i++) {
        struct target *target = &command->targets[i];
        if (row->kind == FEDERATED && !target->beside) {
            continue;
        }
        struct row_run run = {row->kind == NO_SERVER ? NULL : target, report, &command->options};
        fprintf(stderr, "%s: %.*s\n", row->name, (int)target->name.len, target->name.ptr);
        report_server(report, target->name);
        struct err err = row->fn(&run);
        if (err.code != 0) {
            fprintf(stderr, "%s: FAILED: %s\n", row->name, err.text);
            good = false;
        }
    }
    return good;
}

static bool needs_server(const struct command *command, char **names)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        if (ROWS[i].kind != NO_SERVER && is_wanted(command, &ROWS[i], names)) {
            return true;
        }
    }
    return false;
}

static int bench(struct command *command, char **names)
{
    struct report *report = report_new(command->form);
    bool good = true;
    size_t opened = 0;
    size_t wanted = needs_server(command, names) ? command->target_count : 0;
    for (; opened < wanted && good; opened++) {
        struct err err = target_open(&command->targets[opened]);
        if (err.code != 0) {
            fprintf(stderr, "myelin-bench: %s\n", err.text);
            good = false;
        }
    }
    for (size_t i = 0; i < COUNT_OF(ROWS) && (good || opened == wanted); i++) {
        if (is_wanted(command, &ROWS[i], names)) {
            good = run_row(command, report, &ROWS[i]) && good;
        }
    }
    size_t missed = report_print(report);
    for (size_t i = 0; i < opened; i++) {
        target_close(&command->targets[i]);
    }
    report_free(&report);
    return good && missed == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], MADE_UP_ARGUMENT) == 0) {
        return made_up_main(argc, argv);
    }
    struct command command = {
        .targets = {{.name = LIT("myelin"),
                     .url = LIT("http://127.0.0.1:8008"),
                     .log_path = "/tmp/myelin-bench-server.log"},
                    {.name = LIT("peer"),
                     .log_path = "/tmp/myelin-bench-peer.log",
                     .is_peer = true}},
        .target_count = 1,
        .options = {.seconds = 8,
                    .clients = 64,
                    .rate = 1000,
                    .peer_rate = 40,
                    .sync_users = 20,
                    .sync_rooms = 50,
                    .sync_members = 20,
                    .sync_events = 20,
                    .scratch = "/tmp"},
    };
    for (int option; (option = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1;) {
        if (option == OPTION_HELP || option == 'h') {
            usage(stdout);
            return 0;
        }
        if (option == OPTION_VERSION) {
            printf("myelin-bench %s\n", MYELIN_VERSION);
            return 0;
        }
        if (!set_option(&command, option)) {
            fprintf(stderr, "myelin-bench: wrong option or value; see --help\n");
            return 2;
        }
    }
    if (optind == argc) {
        usage(stderr);
        return 2;
    }
    for (int i = optind; i < argc; i++) {
        if (!is_row(argv[i])) {
            fprintf(stderr, "myelin-bench: no row is called %s; see --help\n", argv[i]);
            return 2;
        }
    }
    probe_descriptors_max();
    return bench(&command, argv + optind);
}
