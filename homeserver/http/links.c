#include "homeserver/http/links.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

struct link {
    size_t len;
    char peer[];
};

struct http_links {
    pthread_mutex_t lock; /* a leaf */
    struct map *fds;      /* by peer */
    struct link **links;  /* by descriptor */
    size_t cap;
};

struct http_links *http_links_new(void)
{
    struct http_links *links = mem_alloc(sizeof *links);
    links->fds = map_new();
    pthread_mutex_init(&links->lock, NULL);
    return links;
}

void http_links_free(struct http_links **pointer)
{
    struct http_links *links = *pointer;
    if (!links) {
        return;
    }
    for (size_t i = 0; i < links->cap; i++) {
        mem_free(links->links[i]);
    }
    mem_free(links->links);
    map_free(&links->fds);
    pthread_mutex_destroy(&links->lock);
    mem_free(links);
    *pointer = NULL;
}

static void grow(struct http_links *links, size_t need)
{
    if (need > links->cap) {
        size_t cap = links->cap ? links->cap : 64;
        while (cap < need) {
            cap *= 2;
        }
        links->links = mem_grow(links->links, cap * sizeof(struct link *));
        memset(links->links + links->cap, 0, (cap - links->cap) * sizeof(struct link *));
        links->cap = cap;
    }
}

/* Lock held. */
static void forget(struct http_links *links, size_t at)
{
    struct link *link = at < links->cap ? links->links[at] : NULL;
    uint64_t fd = 0;
    if (!link) {
        return;
    }
    struct slice peer = {link->peer, link->len};
    if (map_get(links->fds, peer, &fd) && fd == at) {
        map_remove(links->fds, peer);
    }
    mem_free(link);
    links->links[at] = NULL;
}

void http_links_add(struct http_links *links, int fd, struct slice peer)
{
    size_t at = (size_t)fd;
    struct link *link = mem_alloc(sizeof *link + peer.len + 1);
    link->len = peer.len;
    memcpy(link->peer, peer.ptr, peer.len);
    pthread_mutex_lock(&links->lock);
    forget(links, at);
    grow(links, at + 1);
    links->links[at] = link;
    map_set(links->fds, peer, at);
    pthread_mutex_unlock(&links->lock);
}

void http_links_remove(struct http_links *links, int fd)
{
    pthread_mutex_lock(&links->lock);
    forget(links, (size_t)fd);
    pthread_mutex_unlock(&links->lock);
}

bool http_links_has(struct http_links *links, struct slice peer)
{
    uint64_t fd = 0;
    pthread_mutex_lock(&links->lock);
    bool has = map_get(links->fds, peer, &fd);
    struct pollfd look = {.fd = (int)fd, .events = POLLRDHUP};
    has = has && poll(&look, 1, 0) == 0; /* not ended by the other side */
    pthread_mutex_unlock(&links->lock);
    return has;
}
