#include "tests/support/pair.h"

#include "homeserver/http/selfsigned.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <ftw.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void prepare(struct pair_server *server)
{
    char key[80];
    snprintf(server->folder, sizeof server->folder, "/tmp/myelin-pair-XXXXXX");
    assert_non_null(mkdtemp(server->folder));
    snprintf(server->certificate, sizeof server->certificate, "%s/tls.crt", server->folder);
    snprintf(key, sizeof key, "%s/tls.key", server->folder);
    server->port = free_port();
    snprintf(server->name, sizeof server->name, "localhost:%u", server->port);
    assert_int_equal(
        http_selfsigned_make(slice_of(server->certificate), slice_of(key), slice_of(server->name))
            .code,
        0);
}

static void configure(struct pair *pair, size_t index, const char *more)
{
    struct pair_server *server = &pair->servers[index];
    struct buf problems;
    buf_init_arena(&problems, pair->arena, 1 << 16);
    struct slice text = arena_printf(
        pair->arena,
        "server_name: \"%s\"\ndata_dir: %s\npassword_hash_cost: lowest\n"
        "registration: {open: true}\nrate_limits: {enabled: false}\n"
        "listen: [{host: 127.0.0.1, port: %u, tls: true}, {host: 127.0.0.1, port: 0, tls: false}]\n"
        "tls: {certificate: %s/tls.crt, key: %s/tls.key, trusted_ca: [%s, %s]}\n"
        "threads: {workers: 4, loops: 1}\n%s",
        server->name, server->folder, server->port, server->folder, server->folder,
        pair->servers[0].certificate, pair->servers[1].certificate, more);
    struct err err = conf_parse(pair->arena, text, LIT("pair.yaml"), &server->conf, &problems);
    if (err.code) {
        print_error("%.*s\n", (int)problems.len, problems.ptr);
    }
    assert_int_equal(err.code, 0);
}

void pair_start(struct pair *pair, size_t index)
{
    struct pair_server *server = &pair->servers[index];
    struct app_options options = {.conf = &server->conf, .mode = APP_SERVE, .storage = APP_ON_DISK};
    struct err err = app_new(&options, &server->app);
    if (err.code) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(err.code, 0);
    server->hs = app_hs(server->app);
    assert_int_equal(app_start(server->app).code, 0);
}

void pair_stop(struct pair *pair, size_t index)
{
    app_free(&pair->servers[index].app);
    pair->servers[index].hs = NULL;
}

void pair_next_job(struct pair *pair)
{
    ctx_finish(&pair->ctx);
    arena_reset(pair->ctx.arena);
    pair->ctx = (struct ctx){.arena = pair->ctx.arena, .now = &pair->now, .may_wait = true};
}

void pair_open(struct pair *pair, const char *more)
{
    *pair = (struct pair){.arena = arena_new(), .now = now_system()};
    pair->ctx = (struct ctx){.arena = arena_new(), .now = &pair->now, .may_wait = true};
    prepare(&pair->servers[0]);
    prepare(&pair->servers[1]);
    for (size_t i = 0; i < 2; i++) {
        const char *net =
            strstr(more, "network:") ? "" : "network: {allow_private_addresses: true}\n";
        configure(pair, i, arena_cstr(pair->arena, arena_printf(pair->arena, "%s%s", net, more)));
        pair_start(pair, i);
    }
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

void pair_close(struct pair *pair)
{
    ctx_finish(&pair->ctx);
    for (size_t i = 0; i < 2; i++) {
        pair_stop(pair, i);
        assert_int_equal(nftw(pair->servers[i].folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    }
    arena_free(&pair->ctx.arena);
    arena_free(&pair->arena);
}
