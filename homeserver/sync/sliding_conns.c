#include "homeserver/sync/sliding_conns.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/base/workers.h"
#include "spec/errcodes.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct sliding_conns {
    pthread_mutex_t lock; /* protects all below, and `taken`; leaf */
    pthread_cond_t put_back;
    struct map *by_key;
    struct sliding_conn *newest, *oldest; /* by last use */
    size_t bytes;
    uint64_t last_epoch;
};

enum { KEY_BYTES_MAX = 8 + 512 + 1 + 512 };

/* --- contents --- */

static void drop_mark(struct sliding_mark *mark)
{
    mem_free(mark->lists_owned);
    *mark = (struct sliding_mark){0};
}

static void drop_given(struct sliding_given *given)
{
    drop_mark(&given->mark);
    mem_free(given->changes_owned);
    *given = (struct sliding_given){0};
}

static void drop_all_given(struct sliding_conn *conn)
{
    for (size_t i = 0; i < COUNT_OF(conn->given); i++) {
        drop_given(&conn->given[i]);
    }
}

static void drop_contents(struct sliding_conn *conn)
{
    drop_all_given(conn);
    drop_mark(&conn->had);
    for (size_t i = 0; i < conn->config_count; i++) {
        mem_free((void *)(uintptr_t)conn->configs_owned[i].ptr);
    }
    mem_free(conn->configs_owned);
    mem_free(conn->sent_owned);
    conn->configs_owned = NULL;
    conn->sent_owned = NULL;
    conn->config_count = conn->sent_count = conn->sent_cap = 0;
    conn->seq = 0;
}

static size_t bytes_of(const struct sliding_conn *conn)
{
    size_t bytes = sizeof *conn + conn->key_len + conn->had.lists_len;
    bytes += conn->sent_cap * sizeof *conn->sent_owned;
    for (size_t i = 0; i < COUNT_OF(conn->given); i++) {
        bytes += conn->given[i].change_count * sizeof *conn->sent_owned;
    }
    for (size_t i = 0; i < conn->config_count; i++) {
        bytes += sizeof *conn->configs_owned + conn->configs_owned[i].len;
    }
    return bytes;
}

/* --- the table, under the lock --- */

static void unlink_conn(struct sliding_conns *conns, struct sliding_conn *conn)
{
    *(conn->newer ? &conn->newer->older : &conns->newest) = conn->older;
    *(conn->older ? &conn->older->newer : &conns->oldest) = conn->newer;
    conn->newer = NULL;
    conn->older = NULL;
}

static void link_newest(struct sliding_conns *conns, struct sliding_conn *conn)
{
    conn->older = conns->newest;
    *(conns->newest ? &conns->newest->newer : &conns->oldest) = conn;
    conns->newest = conn;
}

static void drop_conn(struct sliding_conns *conns, struct sliding_conn *conn)
{
    unlink_conn(conns, conn);
    map_remove(conns->by_key, (struct slice){conn->key_owned, conn->key_len});
    conns->bytes -= conn->bytes;
    drop_contents(conn);
    mem_free(conn->key_owned);
    mem_free(conn);
}

static bool same_device(const struct sliding_conn *a, const struct sliding_conn *b)
{
    return a->device_len == b->device_len && memcmp(a->key_owned, b->key_owned, a->device_len) == 0;
}

/* A device with too many loses the one that it used longest ago. Looks at its newest neighbours
 * only: a table so busy that they are not among them is held down by its bytes. */
static void limit_device(struct sliding_conns *conns, const struct sliding_conn *conn)
{
    enum { LOOK_MAX = 2000 };
    struct sliding_conn *last = NULL;
    size_t count = 0;
    int looked = 0;
    for (struct sliding_conn *at = conns->newest; at && looked < LOOK_MAX; at = at->older) {
        looked++;
        if (same_device(at, conn)) {
            count++;
            last = at->taken ? last : at;
        }
    }
    if (count > SLIDING_CONNS_PER_DEVICE_MAX && last) {
        drop_conn(conns, last);
    }
}

static void limit_bytes(struct sliding_conns *conns)
{
    struct sliding_conn *conn = conns->oldest;
    while (conn && conns->bytes > SLIDING_CONNS_BYTES_MAX) {
        struct sliding_conn *next = conn->newer;
        if (!conn->taken) {
            drop_conn(conns, conn);
        }
        conn = next;
    }
}

/* --- life --- */

struct sliding_conns *sync_sliding_conns_new(uint64_t first_epoch)
{
    struct sliding_conns *conns = mem_alloc(sizeof *conns);
    pthread_mutex_init(&conns->lock, NULL);
    pthread_cond_init(&conns->put_back, NULL);
    conns->by_key = map_new();
    conns->last_epoch = first_epoch;
    return conns;
}

void sync_sliding_conns_free(struct sliding_conns **conns)
{
    if (*conns == NULL) {
        return;
    }
    while ((*conns)->newest) {
        drop_conn(*conns, (*conns)->newest);
    }
    map_free(&(*conns)->by_key);
    pthread_cond_destroy(&(*conns)->put_back);
    pthread_mutex_destroy(&(*conns)->lock);
    mem_free(*conns);
    *conns = NULL;
}

/* --- taking --- */

/* user, device id, NUL, conn_id; what is longer than any device id may be enters as its hash. */
static struct slice pack_key(char packed[KEY_BYTES_MAX], const struct sliding_key *key,
                             size_t *device_len_out)
{
    size_t len = sizeof key->user;
    uint64_t hash = slice_hash(key->device_id);
    struct slice device = key->device_id.len <= 512
                              ? key->device_id
                              : (struct slice){(const char *)&hash, sizeof hash};
    memcpy(packed, &key->user, sizeof key->user);
    if (device.len > 0) {
        memcpy(packed + len, device.ptr, device.len);
    }
    len += device.len;
    packed[len++] = '\0';
    *device_len_out = len;
    if (key->conn_id.len > 0) {
        memcpy(packed + len, key->conn_id.ptr, key->conn_id.len);
    }
    return (struct slice){packed, len + key->conn_id.len};
}

/* Under the lock; waits while another request has it. */
static struct sliding_conn *find_free(struct sliding_conns *conns, struct slice packed)
{
    struct sliding_conn *conn = map_get_ptr(conns->by_key, packed);
    if (conn == NULL || !conn->taken) {
        return conn;
    }
    workers_pause();
    while (conn && conn->taken) {
        pthread_cond_wait(&conns->put_back, &conns->lock);
        conn = map_get_ptr(conns->by_key, packed);
    }
    workers_resume();
    return conn;
}

static void take(struct sliding_conns *conns, struct sliding_conn *conn)
{
    conn->taken = true;
    unlink_conn(conns, conn);
    link_newest(conns, conn);
}

struct err sync_sliding_take(struct sliding_conns *conns, const struct ctx *ctx,
                             const struct sliding_key *key, struct sliding_conn **conn_out)
{
    char bytes[KEY_BYTES_MAX];
    size_t device_len = 0;
    struct slice packed = pack_key(bytes, key, &device_len);
    *conn_out = NULL;
    pthread_mutex_lock(&conns->lock);
    const struct sliding_conn *there = map_get_ptr(conns->by_key, packed);
    bool waits = ctx->on_loop && there && there->taken;
    if (!waits) {
        *conn_out = find_free(conns, packed);
    }
    if (*conn_out) {
        take(conns, *conn_out);
    }
    pthread_mutex_unlock(&conns->lock);
    return waits ? err_make(ERR_WAITS, "another request has the connection") : OK;
}

static struct sliding_conn *add_conn(struct sliding_conns *conns, struct slice packed,
                                     size_t device_len)
{
    struct sliding_conn *conn = mem_alloc(sizeof *conn);
    conn->key_owned = mem_alloc_raw(packed.len);
    memcpy(conn->key_owned, packed.ptr, packed.len);
    conn->key_len = packed.len;
    conn->device_len = device_len;
    conn->bytes = bytes_of(conn);
    conns->bytes += conn->bytes;
    map_set_ptr(conns->by_key, packed, conn);
    link_newest(conns, conn);
    return conn;
}

struct sliding_conn *sync_sliding_begin(struct sliding_conns *conns, const struct sliding_key *key)
{
    char bytes[KEY_BYTES_MAX];
    size_t device_len = 0;
    struct slice packed = pack_key(bytes, key, &device_len);
    pthread_mutex_lock(&conns->lock);
    struct sliding_conn *conn = find_free(conns, packed);
    if (conn) {
        drop_contents(conn);
        take(conns, conn);
    } else {
        conn = add_conn(conns, packed, device_len);
        conn->taken = true;
        limit_device(conns, conn);
    }
    conn->epoch = ++conns->last_epoch;
    conn->lazy = conn->epoch << 20;
    pthread_mutex_unlock(&conns->lock);
    return conn;
}

void sync_sliding_put_back(struct sliding_conns *conns, struct sliding_conn *conn)
{
    size_t bytes = bytes_of(conn);
    pthread_mutex_lock(&conns->lock);
    conns->bytes = conns->bytes - conn->bytes + bytes;
    conn->bytes = bytes;
    conn->taken = false;
    limit_bytes(conns);
    pthread_cond_broadcast(&conns->put_back);
    pthread_mutex_unlock(&conns->lock);
}

/* --- what was told --- */

static int by_room(const void *a, const void *b)
{
    const struct sliding_sent *left = a;
    const struct sliding_sent *right = b;
    return (left->room > right->room) - (left->room < right->room);
}

const struct sliding_sent *sync_sliding_sent(const struct sliding_conn *conn, uint64_t room)
{
    struct sliding_sent wanted = {.room = room};
    return conn->sent_count == 0
               ? NULL
               : bsearch(&wanted, conn->sent_owned, conn->sent_count, sizeof wanted, by_room);
}

/* Both lists are sorted: merged from behind, in place. */
static void merge_changes(struct sliding_conn *conn, const struct sliding_given *given)
{
    size_t added = 0;
    for (size_t i = 0; i < given->change_count; i++) {
        added += sync_sliding_sent(conn, given->changes_owned[i].room) == NULL ? 1 : 0;
    }
    if (conn->sent_count + added > conn->sent_cap) {
        conn->sent_cap = conn->sent_count + added + conn->sent_count / 4;
        conn->sent_owned = mem_grow(conn->sent_owned, conn->sent_cap * sizeof *conn->sent_owned);
    }
    struct sliding_sent *sent = conn->sent_owned;
    size_t old = conn->sent_count;
    size_t change = given->change_count;
    size_t to = old + added;
    conn->sent_count = to;
    while (change > 0) {
        const struct sliding_sent *next = &given->changes_owned[change - 1];
        if (old > 0 && sent[old - 1].room > next->room) {
            sent[--to] = sent[--old];
            continue;
        }
        old -= old > 0 && sent[old - 1].room == next->room ? 1 : 0;
        sent[--to] = *next;
        change--;
    }
}

static void drop_forgotten(struct sliding_conn *conn)
{
    size_t kept = 0;
    for (size_t i = 0; i < conn->sent_count; i++) {
        if (!conn->sent_owned[i].forget) {
            conn->sent_owned[kept++] = conn->sent_owned[i];
        }
    }
    conn->sent_count = kept;
}

bool sync_sliding_acknowledge(struct sliding_conn *conn, uint64_t seq)
{
    bool lost = false;
    if (seq == 0) {
        return false;
    }
    for (size_t i = 0; i < COUNT_OF(conn->given); i++) {
        struct sliding_given *given = &conn->given[i];
        if (seq == given->mark.seq) {
            merge_changes(conn, given);
            drop_forgotten(conn);
            drop_mark(&conn->had);
            conn->had = given->mark;
            given->mark = (struct sliding_mark){0};
            drop_all_given(conn);
            return true;
        }
        lost = lost || given->change_count > 0;
    }
    if (seq != conn->had.seq) {
        return false;
    }
    conn->lazy += lost ? 1 : 0; /* members sent with a lost answer were not received */
    return true;
}

bool sync_sliding_config(struct sliding_conn *conn, struct slice text, uint16_t *index_out)
{
    for (size_t i = 0; i < conn->config_count; i++) {
        if (slice_eq(conn->configs_owned[i], text)) {
            *index_out = (uint16_t)i;
            return true;
        }
    }
    if (conn->config_count == SLIDING_CONFIGS_MAX) {
        return false;
    }
    char *copy = mem_alloc_raw(text.len + 1);
    memcpy(copy, text.ptr, text.len);
    conn->configs_owned =
        mem_grow(conn->configs_owned, (conn->config_count + 1) * sizeof *conn->configs_owned);
    conn->configs_owned[conn->config_count] = (struct slice){copy, text.len};
    *index_out = (uint16_t)conn->config_count++;
    return true;
}

uint64_t sync_sliding_answer(struct sliding_conn *conn, const struct sliding_mark *mark,
                             struct slice lists, const struct sliding_sent *changes, size_t count)
{
    struct sliding_given *given = &conn->given[0];
    drop_given(&conn->given[SLIDING_GIVEN_MAX - 1]);
    memmove(given + 1, given, (SLIDING_GIVEN_MAX - 1) * sizeof *given);
    *given = (struct sliding_given){.mark = *mark};
    given->mark.seq = ++conn->seq;
    given->mark.lists_owned = mem_alloc_raw(lists.len + 1);
    given->mark.lists_len = lists.len;
    memcpy(given->mark.lists_owned, lists.ptr, lists.len);
    if (count > 0) {
        given->changes_owned = mem_alloc_raw(count * sizeof *changes);
        memcpy(given->changes_owned, changes, count * sizeof *changes);
        given->change_count = count;
        qsort(given->changes_owned, count, sizeof *changes, by_room);
    }
    return conn->seq;
}

/* --- pos --- */

/* Short: it tells a client that took the pos of another, it keeps no secret. */
static uint64_t owner_of(const struct sliding_key *key)
{
    char bytes[KEY_BYTES_MAX];
    size_t device_len = 0;
    return slice_hash(pack_key(bytes, key, &device_len)) & 0xffffffff;
}

struct slice sync_sliding_pos_encode(struct arena *arena, const struct sliding_key *key,
                                     struct sliding_pos pos)
{
    return arena_printf(arena, "s%llu_%llu_%llu_%llu_%llu", (unsigned long long)pos.pos,
                        (unsigned long long)pos.pos, (unsigned long long)pos.epoch,
                        (unsigned long long)pos.seq, (unsigned long long)owner_of(key));
}

struct err sync_sliding_pos_parse(struct slice text, const struct sliding_key *key,
                                  struct sliding_pos *pos_out)
{
    enum { FIELDS = 5 };
    uint64_t fields[FIELDS] = {0};
    size_t count = 0;
    struct slice rest =
        text.len > 0 && text.ptr[0] == 's' ? slice_from(text, 1) : (struct slice){0};
    while (rest.ptr != NULL && count < FIELDS) {
        struct slice field;
        rest = slice_cut(rest, '_', &field);
        if (!slice_parse_u64(field, &fields[count])) {
            break;
        }
        count++;
    }
    if (count != FIELDS || rest.ptr != NULL || fields[0] != fields[1] ||
        fields[4] != owner_of(key)) {
        return err_public(ERR_M_UNKNOWN_POS,
                          "This pos is not one of this connection; begin again without one.");
    }
    *pos_out = (struct sliding_pos){.pos = fields[0], .epoch = fields[2], .seq = fields[3]};
    return OK;
}
