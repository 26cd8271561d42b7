#include "homeserver/service/prefs_priv.h"

#include "crypto/token.h"
#include "homeserver/base/mem.h"
#include "homeserver/service/devices.h"
#include "homeserver/service/room_priv.h"
#include "homeserver/service/users.h"

enum { TYPE_BYTES_MAX = 255 };

static void drop_ref(struct hs_prefs *prefs, struct rules_entry *entry)
{
    pthread_mutex_lock(&prefs->lock);
    bool last = --entry->refs == 0;
    pthread_mutex_unlock(&prefs->lock);
    if (last) {
        arena_free(&entry->arena_owned);
        mem_free(entry);
    }
}

static struct err empty_settings(void *arg, struct ctx *ctx, struct slice old,
                                 struct slice *content_out)
{
    (void)arg;
    (void)ctx;
    if (old.ptr && !slice_eq(old, LIT("{}"))) {
        *content_out = LIT("{}");
    }
    return OK;
}

/* Spec: client-server, "Push Notifications": what a device set for itself goes with it; under the
 * stable and the unstable name of MSC3890. */
static struct err on_device_removed(struct hs *hs, struct ctx *ctx, uint64_t user,
                                    struct slice device_id)
{
    static const struct slice prefixes[] = {
        {"m.local_notification_settings.", 30},
        {"org.matrix.msc3890.local_notification_settings.", 47},
    };
    for (size_t i = 0; i < COUNT_OF(prefixes); i++) {
        struct account_data_edit edit = {.user = user,
                                         .type = arena_concat(ctx->arena, prefixes[i], device_id),
                                         .make = empty_settings};
        TRY(hs_account_data_edit(hs, ctx, &edit));
    }
    return OK;
}

static struct err erase_rows(struct hs *hs, struct ctx *ctx, uint64_t user)
{
    static const char rows[] = {USER_ROW_DATA, USER_ROW_DATA_BY_POS, USER_ROW_FILTER,
                                USER_ROW_THREAD, USER_ROW_THREAD_POS};
    struct store_update *update = store_update_new(ctx, user_object(ctx, user));
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char after = (char)(rows[i] + 1);
        store_delete_range(update, (struct slice){&rows[i], 1},
                           arena_copy(ctx->arena, (struct slice){&after, 1}));
    }
    hs_user_lane_enter(hs, user);
    struct err err = store_write(hs->store, ctx, &update, 1);
    prefs_forget(hs, user, LIT("m.ignored_user_list"));
    prefs_forget(hs, user, LIT("m.push_rules"));
    hs_user_lane_leave(hs, user);
    return err;
}

/* Spec: client-server, POST /account/deactivate, `erase`: "any non-event data associated with the
 * user, such as account data". */
static struct err on_deactivated(struct hs *hs, struct ctx *ctx, uint64_t user,
                                 struct slice user_id)
{
    uint32_t flags = 0;
    bool found = false;
    (void)user_id;
    TRY(hs_account_flags(hs, ctx, user, &flags, &found));
    return found && (flags & ACCOUNT_ERASED) ? erase_rows(hs, ctx, user) : OK;
}

struct hs_prefs *hs_prefs_new(struct hs *hs)
{
    struct hs_prefs *prefs = mem_alloc(sizeof *prefs);
    prefs->hs = hs;
    prefs->users = map_new();
    prefs->counts = map_new();
    prefs->counting = map_new();
    pthread_cond_init(&prefs->back, NULL);
    pthread_mutex_init(&prefs->lock, NULL);
    hs_on_device_removed(hs, on_device_removed);
    hs_on_deactivated(hs, on_deactivated);
    return prefs;
}

/* Under the lock. */
static void forget_rules(struct prefs_user *user)
{
    if (user->rules && --user->rules->refs == 0) {
        arena_free(&user->rules->arena_owned);
        mem_free(user->rules);
    }
    user->rules = NULL;
}

static void free_user(struct prefs_user *user)
{
    map_free(&user->ignored_owned);
    forget_rules(user);
    mem_free(user);
}

static void free_users(struct hs_prefs *prefs)
{
    size_t cursor = 0;
    struct slice key;
    uint64_t value = 0;
    while (map_next(prefs->users, &cursor, &key, &value)) {
        free_user((struct prefs_user *)(uintptr_t)value);
    }
    map_free(&prefs->users);
}

void hs_prefs_free(struct hs_prefs **prefs)
{
    if (*prefs) {
        free_users(*prefs);
        counts_free_all(*prefs);
        map_free(&(*prefs)->counts);
        map_free(&(*prefs)->counting);
        pthread_cond_destroy(&(*prefs)->back);
        pthread_mutex_destroy(&(*prefs)->lock);
        mem_free(*prefs);
        *prefs = NULL;
    }
}

/* Under the lock. */
static struct prefs_user *user_entry(struct hs_prefs *prefs, uint64_t user)
{
    struct prefs_user *entry = map_get_ptr(prefs->users, map_key_u64(&user));
    if (!entry) {
        if (map_count(prefs->users) >= PREFS_USERS_MAX) {
            free_users(prefs);
            prefs->users = map_new();
        }
        entry = mem_alloc(sizeof *entry);
        entry->ignored_version = ++prefs->version;
        map_set_ptr(prefs->users, map_key_u64(&user), entry);
    }
    return entry;
}

void prefs_forget(struct hs *hs, uint64_t user, struct slice type)
{
    struct hs_prefs *prefs = hs->prefs;
    bool ignored = slice_eq(type, LIT("m.ignored_user_list"));
    if (!ignored && !slice_eq(type, LIT("m.push_rules"))) {
        return;
    }
    pthread_mutex_lock(&prefs->lock);
    struct prefs_user *entry = user_entry(prefs, user);
    prefs->version++;
    if (ignored) {
        map_free(&entry->ignored_owned);
        entry->has_ignored = false;
        entry->ignored_version = prefs->version;
    } else {
        forget_rules(entry);
    }
    pthread_mutex_unlock(&prefs->lock);
}

uint64_t prefs_ignored_version(struct hs *hs, uint64_t user)
{
    pthread_mutex_lock(&hs->prefs->lock);
    uint64_t version = user_entry(hs->prefs, user)->ignored_version;
    pthread_mutex_unlock(&hs->prefs->lock);
    return version;
}

/* What is read to fill a cache is kept only if this is the same afterwards. */
static uint64_t changes_now(struct hs_prefs *prefs)
{
    pthread_mutex_lock(&prefs->lock);
    uint64_t version = prefs->version;
    pthread_mutex_unlock(&prefs->lock);
    return version;
}

/* --- account data --- */

static struct slice data_key(struct ctx *ctx, uint64_t room, struct slice type)
{
    return arena_concat(ctx->arena, key_u64(ctx, USER_ROW_DATA, room), type);
}

static struct err read_datum(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice key,
                             struct account_datum *datum_out, bool *found_out)
{
    struct user_row_of_room row;
    TRY(user_row_of_room_load(hs, ctx, user, key, &row, found_out));
    if (!*found_out) {
        return OK;
    }
    datum_out->pos = unpack_u64(&row.value);
    datum_out->room = row.room;
    datum_out->type = row.name;
    datum_out->content = row.value.rest;
    return unpack_check(&row.value);
}

/* MSC3391: a datum is removed by an empty object, which stays so that clients learn of it. */
static bool is_removed(const struct account_datum *datum)
{
    return slice_eq(datum->content, LIT("{}"));
}

static struct err write_datum(struct hs *hs, struct ctx *ctx, uint64_t user,
                              const struct account_datum *datum, const struct account_datum *old)
{
    struct slice key = data_key(ctx, datum->room, datum->type);
    struct store_update *update = store_update_new(ctx, user_object(ctx, user));
    struct buf row;
    buf_init_arena(&row, ctx->arena, SIZE_MAX / 2);
    pack_u64(&row, datum->pos);
    buf_add(&row, datum->content);
    store_put(update, key, buf_slice(&row));
    store_put(update, key_u64(ctx, USER_ROW_DATA_BY_POS, datum->pos), slice_from(key, 1));
    if (old) {
        store_delete(update, key_u64(ctx, USER_ROW_DATA_BY_POS, old->pos));
    }
    return store_write(hs->store, ctx, &update, 1);
}

/* Writes the datum under a new position and publishes it. */
static struct err replace_datum(struct hs *hs, struct ctx *ctx,
                                const struct account_data_edit *edit, struct slice content,
                                const struct account_datum *old)
{
    bool rules = slice_eq(edit->type, LIT("m.push_rules"));
    struct account_datum datum = {.pos = positions_reserve(hs->positions),
                                  .room = edit->room,
                                  .type = edit->type,
                                  .content = content};
    struct err err = write_datum(hs, ctx, edit->user, &datum, old);
    prefs_forget(hs, edit->user, edit->type);
    if (err.code != 0) {
        positions_abandon(hs->positions, datum.pos);
        return err;
    }
    struct change change = {.pos = datum.pos,
                            .kind = rules ? CHANGE_PUSH_RULES : CHANGE_ACCOUNT_DATA,
                            .room = edit->room,
                            .user = edit->user};
    positions_complete(hs->positions, &change, ctx->write_ticket);
    return OK;
}

static struct err edit_in_lane(struct hs *hs, struct ctx *ctx, const struct account_data_edit *edit)
{
    struct account_datum old = {0};
    struct slice content = {0};
    bool found = false;
    TRY(read_datum(hs, ctx, edit->user, data_key(ctx, edit->room, edit->type), &old, &found));
    TRY(edit->make(edit->arg, ctx, found ? old.content : (struct slice){0}, &content));
    return content.ptr ? replace_datum(hs, ctx, edit, content, found ? &old : NULL) : OK;
}

struct err hs_account_data_edit(struct hs *hs, struct ctx *ctx,
                                const struct account_data_edit *edit)
{
    if (edit->type.len == 0 || edit->type.len > TYPE_BYTES_MAX) {
        return err_public(ERR_M_INVALID_PARAM, "The type must have 1 to 255 bytes.");
    }
    hs_user_lane_enter(hs, edit->user);
    struct err err = edit_in_lane(hs, ctx, edit);
    hs_user_lane_leave(hs, edit->user);
    return err;
}

static struct err take_new(void *arg, struct ctx *ctx, struct slice old, struct slice *content_out)
{
    (void)ctx;
    (void)old;
    *content_out = *(const struct slice *)arg;
    return OK;
}

struct err hs_account_data_put(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                               struct slice type, struct slice content)
{
    struct account_data_edit edit = {
        .user = user, .room = room, .type = type, .make = take_new, .arg = &content};
    return hs_account_data_edit(hs, ctx, &edit);
}

struct err hs_account_data_get(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                               struct slice type, struct slice *content_out, bool *found_out)
{
    struct account_datum datum;
    *found_out = false;
    if (type.len > TYPE_BYTES_MAX) {
        return OK;
    }
    TRY(read_datum(hs, ctx, user, data_key(ctx, room, type), &datum, found_out));
    *found_out = *found_out && !is_removed(&datum);
    *content_out = *found_out ? datum.content : (struct slice){0};
    return OK;
}

/* m.push_rules is shown with the default rules in it, stored or not. */
static struct err complete_rules(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t since,
                                 struct account_data *data)
{
    struct account_datum *rules = NULL;
    for (size_t i = 0; i < data->count; i++) {
        if (data->items[i].room == 0 && slice_eq(data->items[i].type, LIT("m.push_rules"))) {
            rules = &data->items[i];
        }
    }
    if (!rules && since == 0) {
        rules = &data->items[data->count++];
        *rules = (struct account_datum){.type = LIT("m.push_rules")};
    }
    if (rules) {
        struct json document;
        TRY(hs_push_rules_read(hs, ctx, user, &document));
        rules->content = json_canonical(ctx->arena, &document);
    }
    return OK;
}

struct err hs_account_data_since(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t since,
                                 uint64_t upto, struct account_data *data_out)
{
    struct store_rows rows;
    struct account_data data = {0};
    struct store_range range = {.from = key_u64(ctx, USER_ROW_DATA_BY_POS, since + 1),
                                .to = key_u64(ctx, USER_ROW_DATA_BY_POS, upto + 1)};
    TRY(store_read_range(hs->store, ctx, user_object(ctx, user), range, &rows));
    data.items = arena_array(ctx->arena, rows.count + 1, sizeof *data.items);
    for (size_t i = 0; i < rows.count; i++) {
        bool found = false;
        char prefix = USER_ROW_DATA;
        struct slice key = arena_concat(ctx->arena, (struct slice){&prefix, 1}, rows.rows[i].value);
        TRY(read_datum(hs, ctx, user, key, &data.items[data.count], &found));
        found = found && (since > 0 || !is_removed(&data.items[data.count]));
        data.count += found ? 1 : 0;
    }
    TRY(complete_rules(hs, ctx, user, since, &data));
    *data_out = data;
    return OK;
}

struct err hs_account_data_of_room(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t room,
                                   uint64_t upto, struct account_data *data_out)
{
    struct store_rows rows;
    struct account_data data = {0};
    struct store_range range = {.from = key_u64(ctx, USER_ROW_DATA, room),
                                .to = key_u64(ctx, USER_ROW_DATA, room + 1)};
    TRY(store_read_range(hs->store, ctx, user_object(ctx, user), range, &rows));
    data.items = arena_array(ctx->arena, rows.count + 1, sizeof *data.items);
    for (size_t i = 0; i < rows.count; i++) {
        bool found = false;
        TRY(read_datum(hs, ctx, user, rows.rows[i].key, &data.items[data.count], &found));
        found = found && !is_removed(&data.items[data.count]);
        data.count += found && data.items[data.count].pos <= upto ? 1 : 0;
    }
    if (room == 0) {
        TRY(complete_rules(hs, ctx, user, 0, &data));
    }
    *data_out = data;
    return OK;
}

/* --- ignored users --- */

static struct err read_ignored(struct hs *hs, struct ctx *ctx, uint64_t user,
                               struct map **ignored_out)
{
    struct slice content;
    struct slice own_id;
    struct json tree;
    bool found = false;
    *ignored_out = NULL;
    TRY(hs_account_data_get(hs, ctx, user, 0, LIT("m.ignored_user_list"), &content, &found));
    if (!found) {
        return OK;
    }
    TRY(json_parse(ctx->arena, content, &tree));
    TRY(hs_user_id_of(hs, ctx, user, &own_id));
    const struct json *users = json_get_object(&tree, LIT("ignored_users"));
    for (uint32_t i = 0; users && i < users->count; i++) {
        if (slice_eq(users->members[i].key, own_id)) { /* nobody loses his own messages */
            continue;
        }
        *ignored_out = *ignored_out ? *ignored_out : map_new();
        map_set(*ignored_out, users->members[i].key, 1);
    }
    return OK;
}

/* Keeps the list, which it takes, unless a change came in between. */
static void keep_ignored(struct hs_prefs *prefs, uint64_t user, struct map *ignored,
                         uint64_t version)
{
    pthread_mutex_lock(&prefs->lock);
    struct prefs_user *entry = user_entry(prefs, user);
    if (prefs->version == version && !entry->has_ignored) {
        entry->ignored_owned = ignored;
        entry->has_ignored = true;
        ignored = NULL;
    }
    pthread_mutex_unlock(&prefs->lock);
    map_free(&ignored);
}

/* One look under the lock. known false: the list must be loaded first. */
static bool look_up_ignored(struct hs *hs, uint64_t user, struct slice other, bool *known_out)
{
    uint64_t value = 0;
    pthread_mutex_lock(&hs->prefs->lock);
    struct prefs_user *entry = user_entry(hs->prefs, user);
    *known_out = entry->has_ignored;
    bool ignored = entry->ignored_owned && map_get(entry->ignored_owned, other, &value);
    pthread_mutex_unlock(&hs->prefs->lock);
    return ignored;
}

struct err hs_is_ignored(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice other_user_id,
                         bool *ignored_out)
{
    bool known = false;
    uint64_t value = 0;
    struct map *list = NULL;
    *ignored_out = look_up_ignored(hs, user, other_user_id, &known);
    if (known) {
        return OK;
    }
    uint64_t version = changes_now(hs->prefs);
    TRY(read_ignored(hs, ctx, user, &list));
    *ignored_out = list && map_get(list, other_user_id, &value);
    keep_ignored(hs->prefs, user, list, version);
    return OK;
}

struct err prefs_ignores_anybody(struct hs *hs, struct ctx *ctx, uint64_t user, bool *any_out)
{
    bool ignored = false;
    TRY(hs_is_ignored(hs, ctx, user, LIT(""), &ignored));
    pthread_mutex_lock(&hs->prefs->lock);
    const struct prefs_user *entry = user_entry(hs->prefs, user);
    *any_out = !entry->has_ignored || entry->ignored_owned;
    pthread_mutex_unlock(&hs->prefs->lock);
    return OK;
}

struct err hs_drop_ignored(struct hs *hs, struct ctx *ctx, uint64_t user,
                           struct stored_events *events)
{
    size_t kept = 0;
    for (size_t i = 0; user && i < events->count; i++) {
        bool ignored = false;
        if (!events->items[i].event.has_state_key) {
            TRY(hs_is_ignored(hs, ctx, user, events->items[i].event.sender.s, &ignored));
        }
        if (!ignored) {
            events->items[kept++] = events->items[i];
        }
    }
    events->count = user ? kept : events->count;
    return OK;
}

/* --- filters --- */

struct err hs_filter_put(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice json,
                         struct slice *filter_id_out)
{
    /* Equal filters share an id: clients upload the same one at every start. */
    struct sha256 hash = token_hash(json);
    uint64_t name = 0;
    for (size_t i = 0; i < 8; i++) {
        name = name << 8 | hash.bytes[i];
    }
    *filter_id_out = arena_printf(ctx->arena, "%016llx", (unsigned long long)name);
    struct store_update *update = store_update_new(ctx, user_object(ctx, user));
    store_put(update, key_bytes(ctx, USER_ROW_FILTER, *filter_id_out), json);
    return store_write(hs->store, ctx, &update, 1);
}

struct err hs_filter_get(struct hs *hs, struct ctx *ctx, uint64_t user, struct slice filter_id,
                         struct slice *json_out, bool *found_out)
{
    *found_out = false;
    if (filter_id.len == 0 || filter_id.len > 64) {
        return OK;
    }
    return store_get(hs->store, ctx, user_object(ctx, user),
                     key_bytes(ctx, USER_ROW_FILTER, filter_id), json_out, found_out);
}

/* --- push rules --- */

struct err hs_push_rules_read(struct hs *hs, struct ctx *ctx, uint64_t user, struct json *rules_out)
{
    bool found = false;
    struct slice content;
    struct slice user_id;
    struct json stored;
    TRY(hs_user_id_of(hs, ctx, user, &user_id));
    TRY(hs_account_data_get(hs, ctx, user, 0, LIT("m.push_rules"), &content, &found));
    if (found) {
        TRY(json_parse(ctx->arena, content, &stored));
    }
    *rules_out = push_rules_merge(ctx->arena, ids_trust_user(user_id), found ? &stored : NULL);
    return OK;
}

struct rules_edit {
    push_rules_fn change;
    void *arg;
};

static struct err edit_rules(void *arg, struct ctx *ctx, struct slice old,
                             struct slice *content_out)
{
    const struct rules_edit *edit = arg;
    struct json stored = json_object();
    if (old.ptr) {
        TRY(json_parse(ctx->arena, old, &stored));
    }
    TRY(edit->change(edit->arg, ctx, &stored));
    struct slice content = json_canonical(ctx->arena, &stored);
    bool changed = !slice_eq(content, old.ptr ? old : LIT("{}"));
    *content_out = changed ? content : (struct slice){0};
    return OK;
}

struct err hs_push_rules_edit(struct hs *hs, struct ctx *ctx, uint64_t user, push_rules_fn change,
                              void *arg)
{
    struct rules_edit rules = {change, arg};
    struct account_data_edit edit = {
        .user = user, .type = LIT("m.push_rules"), .make = edit_rules, .arg = &rules};
    return hs_account_data_edit(hs, ctx, &edit);
}

static void release_rules(void *owner, void *thing)
{
    drop_ref(owner, thing);
}

static struct rules_entry *take_cached(struct hs_prefs *prefs, uint64_t user)
{
    pthread_mutex_lock(&prefs->lock);
    struct rules_entry *entry = user_entry(prefs, user)->rules;
    if (entry) {
        entry->refs++;
    }
    pthread_mutex_unlock(&prefs->lock);
    return entry;
}

/* Who has changed nothing has the rules of everybody. Compiles outside the lock; whoever comes
 * first is kept, unless a change came in between. */
static struct err compile_rules(struct hs *hs, struct ctx *ctx, uint64_t user,
                                struct rules_entry **entry_out)
{
    struct json document;
    struct slice content;
    bool changed = false;
    uint64_t version = changes_now(hs->prefs);
    TRY(hs_account_data_get(hs, ctx, user, 0, LIT("m.push_rules"), &content, &changed));
    if (changed) {
        TRY(hs_push_rules_read(hs, ctx, user, &document));
    }
    struct rules_entry *entry = mem_alloc(sizeof *entry);
    entry->arena_owned = changed ? arena_new() : NULL;
    entry->rules =
        changed ? push_rules_compile(entry->arena_owned, &document) : hs->rooms->everybody;
    entry->refs = 1;
    pthread_mutex_lock(&hs->prefs->lock);
    struct prefs_user *cached = user_entry(hs->prefs, user);
    if (!cached->rules && hs->prefs->version == version) {
        cached->rules = entry;
        entry->refs++;
    }
    pthread_mutex_unlock(&hs->prefs->lock);
    *entry_out = entry;
    return OK;
}

struct err hs_push_rules_get(struct hs *hs, struct ctx *ctx, uint64_t user,
                             const struct push_rules **rules_out)
{
    struct rules_entry *entry = take_cached(hs->prefs, user);
    if (!entry) {
        TRY(compile_rules(hs, ctx, user, &entry));
    }
    ctx_defer(ctx, release_rules, hs->prefs, entry);
    *rules_out = entry->rules;
    return OK;
}
