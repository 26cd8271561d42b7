#include "tests/support/names.h"

#include "homeserver/base/mem.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { HEADER = 12, QUERY_MAX = 512, ANSWER_MAX = 4096, NAME_MAX_BYTES = 256, LOG_MAX = 1000 };
enum { FAILED = 2, NO_SUCH_NAME = 3, ALIASES_MAX = 4 };

static const struct {
    const char *name;
    uint16_t number;
} types[] = {{"A", 1}, {"CNAME", 5}, {"AAAA", 28}, {"SRV", 33}};

struct question {
    char name[NAME_MAX_BYTES];
    uint16_t type;
};

struct names {
    int fd;
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t lock;
    const struct name_record *records;
    size_t count;
    enum names_manner manner;
    struct question asked[LOG_MAX];
    size_t asked_count;
};

struct message {
    uint8_t bytes[ANSWER_MAX];
    size_t len, answers;
};

static uint16_t type_number(const char *type)
{
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if (strcmp(types[i].name, type) == 0) {
            return types[i].number;
        }
    }
    return 0;
}

static void put_u16(struct message *message, unsigned value)
{
    message->bytes[message->len++] = (uint8_t)(value >> 8);
    message->bytes[message->len++] = (uint8_t)value;
}

static void put_name(struct message *message, const char *name)
{
    while (*name) {
        size_t label = strcspn(name, ".");
        message->bytes[message->len++] = (uint8_t)label;
        memcpy(message->bytes + message->len, name, label);
        message->len += label;
        name += label + (name[label] == '.');
    }
    message->bytes[message->len++] = 0;
}

static void put_service(struct message *message, const char *data)
{
    unsigned priority = 0;
    unsigned weight = 0;
    unsigned port = 0;
    char target[NAME_MAX_BYTES] = "";
    assert_true(sscanf(data, "%u %u %u %255s", &priority, &weight, &port, target) >= 3);
    put_u16(message, priority);
    put_u16(message, weight);
    put_u16(message, port);
    put_name(message, target);
}

static void put_data(struct message *message, const struct name_record *record)
{
    if (strcmp(record->type, "SRV") == 0) {
        put_service(message, record->data);
    } else if (strcmp(record->type, "CNAME") == 0) {
        put_name(message, record->data);
    } else {
        bool is_six = strcmp(record->type, "AAAA") == 0;
        inet_pton(is_six ? AF_INET6 : AF_INET, record->data, message->bytes + message->len);
        message->len += is_six ? 16 : 4;
    }
}

static void put_record(struct message *message, const struct name_record *record)
{
    put_name(message, record->name);
    put_u16(message, type_number(record->type));
    put_u16(message, 1);
    put_u16(message, 0);
    put_u16(message, record->ttl_s);
    size_t length_at = message->len;
    put_u16(message, 0);
    put_data(message, record);
    size_t length = message->len - length_at - 2;
    message->bytes[length_at] = (uint8_t)(length >> 8);
    message->bytes[length_at + 1] = (uint8_t)length;
    message->answers++;
}

/* Whether the name exists; the name it is an alias of, or NULL. */
static bool put_matches(struct names *names, const char *name, uint16_t type,
                        struct message *message, const char **alias_out)
{
    bool exists = false;
    *alias_out = NULL;
    for (size_t i = 0; i < names->count; i++) {
        const struct name_record *record = &names->records[i];
        if (strcmp(record->name, name) != 0) {
            continue;
        }
        exists = true;
        bool is_alias = strcmp(record->type, "CNAME") == 0;
        if (is_alias || type_number(record->type) == type) {
            put_record(message, record);
        }
        *alias_out = is_alias ? record->data : *alias_out;
    }
    return exists;
}

static void answer(struct names *names, const struct question *question, struct message *message)
{
    const char *name = question->name;
    bool exists = false;
    for (size_t i = 0; name && i < ALIASES_MAX; i++) {
        exists |= put_matches(names, name, question->type, message, &name);
    }
    message->bytes[2] = 0x85; /* an answer, by who knows */
    message->bytes[3] = exists ? 0 : NO_SUCH_NAME;
    if (names->manner == NAMES_FAIL) {
        message->bytes[3] = FAILED;
    }
    memset(message->bytes + 6, 0, 6);
    message->bytes[7] = (uint8_t)message->answers;
}

/* Copies the question; false when it is malformed. */
static bool read_question(const uint8_t *bytes, size_t len, struct question *question,
                          struct message *message)
{
    size_t at = HEADER;
    size_t used = 0;
    while (at < len && bytes[at] && used + bytes[at] + 2 < sizeof question->name) {
        for (size_t i = 1; i <= bytes[at] && at + i < len; i++) {
            char c = (char)bytes[at + i];
            question->name[used++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
        }
        question->name[used++] = '.';
        at += 1 + (size_t)bytes[at];
    }
    if (at + 5 > len || used == 0) {
        return false;
    }
    question->name[used - 1] = '\0';
    question->type = (uint16_t)(bytes[at + 1] << 8 | bytes[at + 2]);
    message->len = at + 5;
    memcpy(message->bytes, bytes, message->len);
    return true;
}

static bool serve_one(struct names *names)
{
    uint8_t bytes[QUERY_MAX];
    struct sockaddr_in from;
    socklen_t from_len = sizeof from;
    struct question question = {0};
    struct message message = {0};
    ssize_t len = recvfrom(names->fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &from_len);
    if (len <= 0) {
        return false;
    }
    if (!read_question(bytes, (size_t)len, &question, &message)) {
        return true;
    }
    pthread_mutex_lock(&names->lock);
    if (names->asked_count < LOG_MAX) {
        names->asked[names->asked_count++] = question;
    }
    answer(names, &question, &message);
    bool is_silent = names->manner == NAMES_SILENT;
    pthread_mutex_unlock(&names->lock);
    if (!is_silent) {
        (void)!sendto(names->fd, message.bytes, message.len, 0, (struct sockaddr *)&from, from_len);
    }
    return true;
}

static void *serve(void *arg)
{
    struct names *names = arg;
    while (serve_one(names)) {
    }
    return NULL;
}

struct names *names_open(const struct name_record *records, size_t count)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    struct names *names = mem_alloc(sizeof *names);
    names->records = records;
    names->count = count;
    pthread_mutex_init(&names->lock, NULL);
    names->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(names->fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(names->fd, (struct sockaddr *)&address, &len), 0);
    names->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&names->thread, NULL, serve, names), 0);
    return names;
}

void names_close(struct names **pointer)
{
    struct names *names = *pointer;
    shutdown(names->fd, SHUT_RDWR);
    pthread_join(names->thread, NULL);
    close(names->fd);
    pthread_mutex_destroy(&names->lock);
    mem_free(names);
    *pointer = NULL;
}

uint16_t names_port(const struct names *names)
{
    return names->port;
}

void names_change(struct names *names, const struct name_record *records, size_t count)
{
    pthread_mutex_lock(&names->lock);
    names->records = records;
    names->count = count;
    pthread_mutex_unlock(&names->lock);
}

void names_behave(struct names *names, enum names_manner manner)
{
    pthread_mutex_lock(&names->lock);
    names->manner = manner;
    pthread_mutex_unlock(&names->lock);
}

unsigned names_asked(struct names *names, const char *name, const char *type)
{
    unsigned times = 0;
    pthread_mutex_lock(&names->lock);
    for (size_t i = 0; i < names->asked_count; i++) {
        const struct question *one = &names->asked[i];
        times += strcmp(one->name, name) == 0 && one->type == type_number(type);
    }
    pthread_mutex_unlock(&names->lock);
    return times;
}
