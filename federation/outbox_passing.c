/* EDUs that are not durable: a destination that is down never gets them, a newer one takes the
 * place of an older one that says less, and what fits is merged into one EDU.
 * Spec: server-server, "EDUs". */
#include "federation/outbox_priv.h"
#include "homeserver/base/mem.h"

#include <string.h>

enum { PUSH_MAX = 100 /* users in one m.presence */ };

static struct slice put_bytes(struct passing *passing, size_t *at, struct slice from)
{
    char *to = passing->bytes + *at;
    if (from.len > 0) {
        memcpy(to, from.ptr, from.len);
    }
    *at += from.len;
    return (struct slice){to, from.len};
}

struct passing *passing_new(const struct passing_draft *draft)
{
    size_t at = 0;
    struct passing *passing = mem_alloc(sizeof *passing + draft->key.len + draft->room.len +
                                        draft->user.len + draft->json.len);
    passing->refs = 1;
    passing->kind = draft->kind;
    passing->key = put_bytes(passing, &at, draft->key);
    passing->room = put_bytes(passing, &at, draft->room);
    passing->user = put_bytes(passing, &at, draft->user);
    passing->json = put_bytes(passing, &at, draft->json);
    return passing;
}

void passing_release(struct passing *passing)
{
    if (--passing->refs == 0) {
        mem_free(passing);
    }
}

static void remove_at(struct dest *dest, size_t at)
{
    passing_release(dest->passing[at]);
    dest->passing_count--;
    memmove(&dest->passing[at], &dest->passing[at + 1],
            (dest->passing_count - at) * sizeof(struct passing *));
}

static void drop_same(struct dest *dest, struct slice key)
{
    for (size_t i = 0; key.len > 0 && i < dest->passing_count; i++) {
        if (slice_eq(dest->passing[i]->key, key)) {
            remove_at(dest, i);
            return;
        }
    }
}

void dest_pass(struct dest *dest, struct passing *passing)
{
    if (dest->state == DEST_WAITING) {
        return;
    }
    drop_same(dest, passing->key);
    if (dest->passing_count == OUTBOX_PASSING_MAX) {
        remove_at(dest, 0);
    }
    if (dest->passing_count == dest->passing_cap) {
        dest->passing_cap = dest->passing_cap ? dest->passing_cap * 2 : 4;
        dest->passing = mem_grow(dest->passing, dest->passing_cap * sizeof(struct passing *));
    }
    passing->refs++;
    dest->passing[dest->passing_count++] = passing;
}

void dest_drop_passing(struct dest *dest)
{
    for (size_t i = 0; i < dest->passing_count; i++) {
        passing_release(dest->passing[i]);
    }
    mem_free(dest->passing);
    dest->passing = NULL;
    dest->passing_count = 0;
    dest->passing_cap = 0;
}

/* --- into a transaction --- */

struct take {
    struct dest *dest;
    struct ctx *ctx;
    struct buf *out;
    bool *taken;
    size_t edus; /* written */
};

static void begin_edu(struct take *take)
{
    if (take->out->len > 0) {
        buf_add_byte(take->out, ',');
    }
    take->edus++;
}

static void take_presence(struct take *take)
{
    size_t users = 0;
    begin_edu(take);
    buf_add(take->out, LIT("{\"content\":{\"push\":["));
    for (size_t i = 0; i < take->dest->passing_count && users < PUSH_MAX; i++) {
        const struct passing *passing = take->dest->passing[i];
        if (passing->kind == PASSING_PRESENCE && !take->taken[i]) {
            if (users++ > 0) {
                buf_add_byte(take->out, ',');
            }
            buf_add(take->out, passing->json);
            take->taken[i] = true;
        }
    }
    buf_add(take->out, LIT("]},\"edu_type\":\"m.presence\"}"));
}

static bool names_user(struct take *take, const size_t *members, size_t count, struct slice user)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(take->dest->passing[members[i]]->user, user)) {
            return true;
        }
    }
    return false;
}

/* All receipts of the first one's room, but each user once: a user's receipts of several threads do
 * not fit into one EDU. */
static void take_receipts(struct take *take, size_t first)
{
    struct dest *dest = take->dest;
    struct slice room = dest->passing[first]->room;
    size_t *members = arena_array(take->ctx->arena, dest->passing_count, sizeof *members);
    size_t count = 0;
    for (size_t i = first; i < dest->passing_count; i++) {
        const struct passing *passing = dest->passing[i];
        if (passing->kind == PASSING_RECEIPT && !take->taken[i] && slice_eq(passing->room, room) &&
            !names_user(take, members, count, passing->user)) {
            members[count++] = i;
            take->taken[i] = true;
        }
    }
    struct json_out out = json_out_to(take->out);
    begin_edu(take);
    json_out_object(&out);
    json_out_key_object(&out, LIT("content"));
    json_out_key_object(&out, room);
    json_out_key_object(&out, LIT("m.read"));
    struct json users = json_object();
    for (size_t i = 0; i < count; i++) {
        /* the index stands in for the value until the users are in canonical order */
        json_set(take->ctx->arena, &users, dest->passing[members[i]]->user,
                 json_int((int64_t)members[i]));
    }
    for (uint32_t i = 0; i < users.count; i++) {
        json_out_key_raw(&out, users.members[i].key,
                         dest->passing[users.members[i].value.integer]->json);
    }
    json_out_object_end(&out);
    json_out_object_end(&out);
    json_out_object_end(&out);
    json_out_key_string(&out, LIT("edu_type"), LIT("m.receipt"));
    json_out_object_end(&out);
}

static void drop_taken(struct dest *dest, const bool *taken)
{
    size_t kept = 0;
    for (size_t i = 0; i < dest->passing_count; i++) {
        if (taken[i]) {
            passing_release(dest->passing[i]);
        } else {
            dest->passing[kept++] = dest->passing[i];
        }
    }
    dest->passing_count = kept;
}

size_t dest_take_passing(struct dest *dest, struct ctx *ctx, size_t max, struct buf *out)
{
    struct take take = {.dest = dest,
                        .ctx = ctx,
                        .out = out,
                        .taken = arena_array(ctx->arena, dest->passing_count + 1, sizeof(bool))};
    for (size_t i = 0; i < dest->passing_count && take.edus < max; i++) {
        const struct passing *passing = dest->passing[i];
        if (take.taken[i]) {
            continue;
        }
        if (passing->kind == PASSING_PRESENCE) {
            take_presence(&take);
        } else if (passing->kind == PASSING_RECEIPT) {
            take_receipts(&take, i);
        } else {
            begin_edu(&take);
            buf_add(out, passing->json);
            take.taken[i] = true;
        }
    }
    drop_taken(dest, take.taken);
    return take.edus;
}

struct err outbox_pass(struct outbox *outbox, struct ctx *ctx, struct server_names servers,
                       const struct passing_draft *draft)
{
    struct passing *passing = passing_new(draft);
    struct err err = OK;
    for (size_t i = 0; i < servers.count && err.code == 0; i++) {
        struct dest *dest = NULL;
        bool is_near = outbox_sees_near(outbox, servers.items[i]);
        err = outbox_lock_dest(outbox, ctx, servers.items[i], &dest);
        if (err.code == 0) {
            dest->is_near = is_near;
            dest_pass(dest, passing);
            if (dest->passing_count > 0) {
                outbox_wake(outbox, dest);
            }
            pthread_mutex_unlock(&outbox->lock);
        }
    }
    pthread_mutex_lock(&outbox->lock);
    passing_release(passing);
    pthread_mutex_unlock(&outbox->lock);
    outbox_pump(outbox);
    return err;
}
