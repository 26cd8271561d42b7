/* Asks the admin listener of a running server: one HTTP request on one connection. */
#include "tools/myelinctl/ctl.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 256 << 20, READ_BYTES = 65536, TOKEN_BYTES_MAX = 256 };

struct place {
    struct slice host, port;
};

static bool find_place(struct ctl *ctl, struct place *place_out)
{
    struct slice url = ctl->admin_url;
    if (!url.len) {
        place_out->host = ctl->conf.admin_host;
        place_out->port = arena_printf(ctl->arena, "%lld", (long long)ctl->conf.admin_port);
        return true;
    }
    if (!slice_has_prefix(url, LIT("http://"))) {
        ctl_error("--admin takes a URL like http://127.0.0.1:9008");
        return false;
    }
    url = slice_from(url, 7);
    url = slice_sub(url, 0, slice_find(url, '/'));
    size_t colon = slice_find_last(url, ':');
    bool has_port = colon < url.len && url.ptr[url.len - 1] != ']';
    place_out->port = has_port ? slice_from(url, colon + 1) : LIT("80");
    place_out->host = has_port ? slice_sub(url, 0, colon) : url;
    if (place_out->host.len > 2 && place_out->host.ptr[0] == '[') {
        place_out->host = slice_sub(place_out->host, 1, place_out->host.len - 2);
    }
    return true;
}

static int connect_to(struct ctl *ctl, const struct place *place)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    const char *host = arena_cstr(ctl->arena, place->host);
    const char *port = arena_cstr(ctl->arena, place->port);
    int fd = -1;
    if (getaddrinfo(host, port, &hints, &found) == 0) {
        for (struct addrinfo *at = found; at && fd < 0; at = at->ai_next) {
            fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
            if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
                close(fd);
                fd = -1;
            }
        }
        freeaddrinfo(found);
    }
    if (fd < 0) {
        ctl_error("cannot reach the admin listener at %s port %s: %s", host, port, strerror(errno));
    }
    return fd;
}

/* Who may read the server's folder may administer it. */
static bool read_token(struct ctl *ctl, struct slice *token_out)
{
    char line[TOKEN_BYTES_MAX];
    struct slice dir = ctl->conf.data_dir;
    struct slice path = arena_printf(ctl->arena, "%.*s/admin.token", (int)dir.len, dir.ptr);
    FILE *file = fopen(path.ptr, "re");
    bool has = file && fgets(line, sizeof line, file);
    if (has) {
        *token_out = slice_trim(arena_copy(ctl->arena, slice_of(line)));
    } else {
        ctl_error("cannot read %s: %s", path.ptr, strerror(errno));
    }
    if (file) {
        fclose(file);
    }
    return has;
}

static bool send_all(int fd, struct slice bytes)
{
    while (bytes.len) {
        ssize_t sent = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        bytes = slice_from(bytes, (size_t)sent);
    }
    return true;
}

static bool receive_all(int fd, struct buf *answer)
{
    for (;;) {
        char *room = buf_reserve(answer, READ_BYTES);
        ssize_t got = room ? recv(fd, room, READ_BYTES, 0) : -1;
        if (got <= 0) {
            return got == 0;
        }
        buf_filled(answer, (size_t)got);
    }
}

static bool exchange(struct ctl *ctl, const char *op, struct slice args, struct buf *answer)
{
    struct place place;
    struct slice token;
    struct buf request;
    if (!find_place(ctl, &place) || !read_token(ctl, &token)) {
        return false;
    }
    int fd = connect_to(ctl, &place);
    if (fd < 0) {
        return false;
    }
    buf_init_arena(&request, ctl->arena, SIZE_MAX / 2);
    buf_printf(&request,
               "POST /admin/v1/%s HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n"
               "Content-Type: application/json\r\nContent-Length: %zu\r\n"
               "Authorization: Bearer %.*s\r\n\r\n",
               op, args.len, (int)token.len, token.ptr);
    buf_add(&request, args);
    bool done = send_all(fd, buf_slice(&request)) && receive_all(fd, answer);
    close(fd);
    if (!done) {
        ctl_error("the server hung up");
    }
    return done;
}

bool ctl_ask(struct ctl *ctl, const char *op, struct slice args, struct json *answer_out)
{
    struct buf answer;
    buf_init_arena(&answer, ctl->arena, ANSWER_BYTES_MAX);
    if (!exchange(ctl, op, args, &answer)) {
        return false;
    }
    struct slice text = buf_slice(&answer);
    bool is_fine = slice_has_prefix(text, LIT("HTTP/1.1 200"));
    size_t at = 0;
    while (at + 4 <= text.len && memcmp(text.ptr + at, "\r\n\r\n", 4) != 0) {
        at++;
    }
    struct err err = json_parse(ctl->arena, slice_from(text, at + 4), answer_out);
    if (err.code != 0) {
        ctl_error("what answers there is no admin listener");
        return false;
    }
    struct slice error = json_get_string(answer_out, LIT("error"));
    if (!is_fine) {
        ctl_error("%.*s", (int)error.len, error.ptr);
    }
    return is_fine;
}
