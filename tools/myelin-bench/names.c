#include "tools/myelin-bench/names.h"

#include "homeserver/base/mem.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = 12, MESSAGE_MAX = 512, TYPE_A = 1, TTL_S = 300 };

struct names {
    int fd;
    pthread_t thread;
};

/* The end of the question, and the number in its name; 0 = malformed. */
static size_t read_question(const uint8_t *bytes, size_t len, unsigned *index_out)
{
    size_t at = HEADER, label_len = len > HEADER ? bytes[HEADER] : 0;
    char label[64] = "";
    if (label_len < sizeof label && HEADER + 1 + label_len < len) {
        memcpy(label, bytes + HEADER + 1, label_len);
    }
    while (at < len && bytes[at]) {
        at += 1 + (size_t)bytes[at];
    }
    return at + 5 <= len && sscanf(label, "d%u", index_out) == 1 ? at + 5 : 0;
}

/* Its only answer has the address of the name; other kinds of records it has none. */
static size_t answer(uint8_t *bytes, size_t end, unsigned index)
{
    bool has_address = bytes[end - 4] == 0 && bytes[end - 3] == TYPE_A;
    const uint8_t record[] = {0xC0,
                              HEADER,
                              0,
                              TYPE_A,
                              0,
                              1,
                              0,
                              0,
                              TTL_S >> 8,
                              TTL_S & 255,
                              0,
                              4,
                              127,
                              1,
                              (uint8_t)(index / NAMES_A_NET),
                              (uint8_t)(index % NAMES_A_NET + 1)};
    bytes[2] = 0x84; /* an answer, by who knows */
    bytes[3] = 0;
    memset(bytes + 6, 0, 6);
    bytes[7] = has_address ? 1 : 0;
    if (!has_address) {
        return end;
    }
    memcpy(bytes + end, record, sizeof record);
    return end + sizeof record;
}

static void *serve(void *arg)
{
    const struct names *names = arg;
    for (;;) {
        uint8_t bytes[MESSAGE_MAX + 64];
        struct sockaddr_in from;
        socklen_t from_len = sizeof from;
        unsigned index = 0;
        ssize_t len =
            recvfrom(names->fd, bytes, MESSAGE_MAX, 0, (struct sockaddr *)&from, &from_len);
        if (len <= 0) {
            return NULL; /* shut down */
        }
        size_t end = read_question(bytes, (size_t)len, &index);
        if (end) {
            size_t size = answer(bytes, end, index);
            (void)!sendto(names->fd, bytes, size, 0, (struct sockaddr *)&from, from_len);
        }
    }
}

struct err names_new(uint16_t port, struct names **names_out)
{
    struct names *names = mem_alloc(sizeof *names);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int bytes = 4 << 20;
    names->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(names->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    bool good = names->fd >= 0 &&
                bind(names->fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                pthread_create(&names->thread, NULL, serve, names) == 0;
    if (!good) {
        close(names->fd);
        mem_free(names);
        return err_public(ERR_IO, "the port for DNS is taken");
    }
    *names_out = names;
    return OK;
}

void names_free(struct names **pointer)
{
    struct names *names = *pointer;
    if (!names) {
        return;
    }
    shutdown(names->fd, SHUT_RDWR);
    pthread_join(names->thread, NULL);
    close(names->fd);
    mem_free(names);
    *pointer = NULL;
}
