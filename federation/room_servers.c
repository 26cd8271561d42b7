#include "federation/room_servers.h"

#include "homeserver/base/map.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/intake.h"

#include <string.h>

enum { CHANGES_PER_PAGE = 256 };

struct counted {
    char *name_owned;
    size_t len;
    uint32_t joined;
};

struct entry {
    uint64_t room;
    uint64_t root;         /* of which `items` are the servers */
    struct counted *items; /* sorted by name */
    size_t count, cap;
    uint64_t used;
    uint64_t names_root; /* of which `names` is the list; 0 = none */
    struct slice *names_owned;
    size_t name_count;
};

struct room_servers {
    struct hs *hs;
    room_acl_fn acl;
    struct map *rooms; /* number -> struct entry */
    uint64_t tick;
};

struct room_servers *room_servers_new(struct hs *hs, room_acl_fn acl)
{
    struct room_servers *servers = mem_alloc(sizeof *servers);
    servers->hs = hs;
    servers->acl = acl;
    servers->rooms = map_new();
    return servers;
}

static void entry_free(struct entry *entry)
{
    for (size_t i = 0; i < entry->count; i++) {
        mem_free(entry->items[i].name_owned);
    }
    mem_free(entry->items);
    mem_free(entry->names_owned);
    mem_free(entry);
}

void room_servers_free(struct room_servers **servers)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    if (!*servers) {
        return;
    }
    while (map_next((*servers)->rooms, &cursor, &key, &value)) {
        entry_free((struct entry *)(uintptr_t)value);
    }
    map_free(&(*servers)->rooms);
    mem_free(*servers);
    *servers = NULL;
}

/* --- counting --- */

static struct slice name_of(const struct counted *item)
{
    return (struct slice){item->name_owned, item->len};
}

static size_t place_of(const struct entry *entry, struct slice server)
{
    size_t low = 0;
    size_t high = entry->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slice_cmp(name_of(&entry->items[middle]), server) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void insert(struct entry *entry, size_t at, struct slice server)
{
    if (entry->count == entry->cap) {
        entry->cap = entry->cap ? entry->cap * 2 : 8;
        entry->items = mem_grow(entry->items, entry->cap * sizeof *entry->items);
    }
    memmove(&entry->items[at + 1], &entry->items[at], (entry->count - at) * sizeof *entry->items);
    entry->items[at] = (struct counted){.name_owned = mem_alloc(server.len + 1), .len = server.len};
    memcpy(entry->items[at].name_owned, server.ptr, server.len);
    entry->count++;
}

static void add_one(struct entry *entry, struct slice server)
{
    size_t at = place_of(entry, server);
    if (at == entry->count || !slice_eq(name_of(&entry->items[at]), server)) {
        insert(entry, at, server);
    }
    entry->items[at].joined++;
}

static void take_one(struct entry *entry, struct slice server)
{
    size_t at = place_of(entry, server);
    if (at == entry->count || !slice_eq(name_of(&entry->items[at]), server)) {
        return;
    }
    if (--entry->items[at].joined == 0) {
        mem_free(entry->items[at].name_owned);
        entry->count--;
        memmove(&entry->items[at], &entry->items[at + 1],
                (entry->count - at) * sizeof *entry->items);
    }
}

static struct slice server_of(struct slice user_id)
{
    return ids_user_domain(ids_trust_user(user_id)).s;
}

/* --- following the state --- */

static struct err count_member(void *arg, struct ctx *page, const struct room_member *member)
{
    struct slice server = server_of(member->user_id);
    (void)page;
    if (member->membership == MEMBERSHIP_JOIN && server.len > 0) {
        add_one(arg, server);
    }
    return OK;
}

/* The member index fits the head only while nobody writes: in the room's lane. */
static struct err count_members(struct room_servers *servers, struct ctx *ctx, struct room *room,
                                struct entry *entry)
{
    entry->root = hs_room_head(room).root;
    return hs_room_members_each(servers->hs, ctx, room, count_member, entry);
}

static struct err make_entry(struct room_servers *servers, struct ctx *ctx, struct room *room,
                             struct entry **entry_out)
{
    uint64_t number = hs_room_info(room).number;
    uint64_t lane = lane_of_room(number);
    struct entry *entry = mem_alloc(sizeof *entry);
    entry->room = number;
    workers_lane_enter(servers->hs->workers, lane);
    struct err err = count_members(servers, ctx, room, entry);
    workers_lane_leave(servers->hs->workers, lane);
    if (err.code != 0) {
        entry_free(entry);
        return err;
    }
    map_set_ptr(servers->rooms, map_key_u64(&number), entry);
    *entry_out = entry;
    return OK;
}

static struct err is_join(struct room_servers *servers, struct ctx *ctx, struct room *room,
                          int64_t number, bool *is_out)
{
    struct stored_event event;
    bool found = false;
    *is_out = false;
    if (number == 0) {
        return OK;
    }
    TRY(hs_event_load(servers->hs, ctx, room, number, &event, &found));
    *is_out = found && membership_of(&event.event) == MEMBERSHIP_JOIN;
    return OK;
}

static struct err follow_member(struct room_servers *servers, struct ctx *ctx, struct room *room,
                                struct entry *entry, const struct state_difference *change)
{
    struct slice type;
    struct slice user_id;
    bool was = false;
    bool is = false;
    TRY(hs_state_key_name(servers->hs, ctx, room, change->key, &type, &user_id));
    if (!slice_eq(type, LIT("m.room.member")) || !ids_is_user(user_id)) {
        return OK;
    }
    TRY(is_join(servers, ctx, room, change->left, &was));
    TRY(is_join(servers, ctx, room, change->right, &is));
    if (is && !was) {
        add_one(entry, server_of(user_id));
    } else if (was && !is) {
        take_one(entry, server_of(user_id));
    }
    return OK;
}

static struct err follow_page(struct room_servers *servers, struct ctx *page, struct room *room,
                              struct entry *entry, struct state_page *changes)
{
    TRY(state_diff_page(servers->hs->states, page, entry->room, changes));
    for (size_t i = 0; i < changes->count; i++) {
        TRY(follow_member(servers, page, room, entry, &changes->items[i]));
    }
    return OK;
}

static struct err follow(struct room_servers *servers, struct ctx *ctx, struct room *room,
                         struct entry *entry, uint64_t root)
{
    struct state_page changes = {
        .left = entry->root, .right = root, .limit = CHANGES_PER_PAGE, .more = true};
    while (changes.more) {
        struct ctx page = *ctx;
        page.deferred = NULL;
        page.arena = arena_new();
        struct err err = follow_page(servers, &page, room, entry, &changes);
        err.text = err.text ? arena_cstr(ctx->arena, slice_of(err.text)) : NULL;
        ctx_finish(&page);
        arena_free(&page.arena);
        TRY(err);
    }
    entry->root = root;
    return OK;
}

/* --- the list --- */

static struct err list_names(struct room_servers *servers, struct ctx *ctx, struct room *room,
                             struct entry *entry)
{
    struct stored_event acl;
    bool found = false;
    TRY(hs_state_event(servers->hs, ctx, room, entry->root, LIT("m.room.server_acl"), LIT(""), &acl,
                       &found));
    entry->names_owned =
        mem_grow(entry->names_owned, (entry->count + 1) * sizeof *entry->names_owned);
    entry->name_count = 0;
    for (size_t i = 0; i < entry->count; i++) {
        struct slice name = name_of(&entry->items[i]);
        bool kept_out = found && servers->acl && !servers->acl(acl.event.content, name);
        if (!kept_out && !hs_is_local(servers->hs, name)) {
            entry->names_owned[entry->name_count++] = name;
        }
    }
    entry->names_root = entry->root;
    return OK;
}

/* Makes room by dropping the half that was used longest ago. */
static void drop_old(struct room_servers *servers)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    struct map *kept = map_new();
    uint64_t limit =
        servers->tick > ROOM_SERVERS_KEPT / 2 ? servers->tick - ROOM_SERVERS_KEPT / 2 : 0;
    while (map_next(servers->rooms, &cursor, &key, &value)) {
        struct entry *entry = (struct entry *)(uintptr_t)value;
        if (entry->used > limit) {
            map_set_ptr(kept, map_key_u64(&entry->room), entry);
        } else {
            entry_free(entry);
        }
    }
    map_free(&servers->rooms);
    servers->rooms = kept;
}

static void forget(struct room_servers *servers, struct entry *entry)
{
    map_remove(servers->rooms, map_key_u64(&entry->room));
    entry_free(entry);
}

static struct err whole_room(struct room_servers *servers, struct ctx *ctx, struct room *room,
                             uint64_t root, struct server_names *names_out)
{
    uint64_t number = hs_room_info(room).number;
    struct entry *entry = map_get_ptr(servers->rooms, map_key_u64(&number));
    struct err err = OK;
    if (!entry) {
        if (map_count(servers->rooms) >= ROOM_SERVERS_KEPT) {
            drop_old(servers);
        }
        TRY(make_entry(servers, ctx, room, &entry));
    }
    entry->used = ++servers->tick;
    if (entry->root != root) {
        err = follow(servers, ctx, room, entry, root);
    }
    if (err.code == 0 && entry->names_root != entry->root) {
        err = list_names(servers, ctx, room, entry);
    }
    if (err.code != 0) {
        forget(servers, entry);
        return err;
    }
    *names_out = (struct server_names){entry->names_owned, entry->name_count};
    return OK;
}

struct err room_servers_at(struct room_servers *servers, struct ctx *ctx, struct room *room,
                           uint64_t root, struct server_names *names_out)
{
    *names_out = (struct server_names){0};
    if (hs_room_is_partial(room)) {
        struct slice *names = NULL;
        TRY(hs_room_servers(servers->hs, ctx, room, &names, &names_out->count));
        names_out->items = names;
        return OK;
    }
    return whole_room(servers, ctx, room, root, names_out);
}

bool room_servers_none(const struct room_servers *servers, struct room *room, uint64_t root)
{
    uint64_t number = hs_room_info(room).number;
    const struct entry *entry = map_get_ptr(servers->rooms, map_key_u64(&number));
    return entry && root != 0 && entry->names_root == root && entry->name_count == 0 &&
           !hs_room_is_partial(room);
}

bool server_names_has(struct server_names names, struct slice server)
{
    size_t low = 0;
    size_t high = names.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = slice_cmp(names.items[middle], server);
        if (order == 0) {
            return true;
        }
        low = order < 0 ? middle + 1 : low;
        high = order > 0 ? middle : high;
    }
    return false;
}
