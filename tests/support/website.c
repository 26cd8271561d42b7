#include "tests/support/website.h"

#include "homeserver/base/err.h"
#include "homeserver/base/mem.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct website {
    const struct website_page *pages;
    size_t count;
    pthread_t thread;
    int listener;
    uint16_t port;
    _Atomic int asked;
};

static void send_all(int fd, struct slice bytes)
{
    while (bytes.len) {
        ssize_t sent = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (sent <= 0) {
            return;
        }
        bytes = slice_from(bytes, (size_t)sent);
    }
}

static void answer(struct website *website, int fd)
{
    static const struct website_page none = {"", "404 Not Found", "", {"", 0}};
    char request[8192];
    char head[1024];
    ssize_t got = recv(fd, request, sizeof request - 1, 0);
    struct slice method;
    struct slice path;
    struct slice rest = slice_cut((struct slice){request, got > 0 ? (size_t)got : 0}, ' ', &method);
    const struct website_page *page = &none;
    slice_cut(rest, ' ', &path);
    atomic_fetch_add(&website->asked, 1);
    for (size_t i = 0; i < website->count; i++) {
        page = slice_eq(path, slice_of(website->pages[i].path)) ? &website->pages[i] : page;
    }
    int len = snprintf(head, sizeof head,
                       "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n%s\r\n",
                       page->status, page->body.len, page->head);
    send_all(fd, (struct slice){head, (size_t)len});
    send_all(fd, page->body);
}

static void *run(void *arg)
{
    struct website *website = arg;
    int fd = accept(website->listener, NULL, NULL);
    while (fd >= 0) {
        answer(website, fd);
        close(fd);
        fd = accept(website->listener, NULL, NULL);
    }
    return NULL;
}

struct website *website_new(const struct website_page *pages, size_t count)
{
    struct website *website = mem_alloc(sizeof *website);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    website->pages = pages;
    website->count = count;
    website->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(website->listener >= 0);
    int failed = bind(website->listener, (struct sockaddr *)&address, len);
    ASSERT(!failed);
    failed = listen(website->listener, 64) ||
             getsockname(website->listener, (struct sockaddr *)&address, &len) ||
             pthread_create(&website->thread, NULL, run, website);
    ASSERT(!failed);
    website->port = ntohs(address.sin_port);
    return website;
}

void website_free(struct website **website)
{
    shutdown((*website)->listener, SHUT_RDWR);
    pthread_join((*website)->thread, NULL);
    close((*website)->listener);
    mem_free(*website);
    *website = NULL;
}

uint16_t website_port(const struct website *website)
{
    return website->port;
}

int website_asked(struct website *website)
{
    return atomic_load(&website->asked);
}
