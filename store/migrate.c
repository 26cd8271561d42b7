/* Schema version and forward migrations. The version is the row "schema" of object (META, ""). A
 * migration is one numbered step, written together with the new version; steps are never changed
 * once released. */
#include "store/store_priv.h"

/* What brings the schema from version (index + 1) to (index + 2). */
typedef struct err (*migrate_fn)(struct store *store, struct ctx *ctx);

static const migrate_fn steps[] = {NULL}; /* ends the list: this is the first schema */
enum { SCHEMA_VERSION = COUNT_OF(steps) };

static const struct store_object meta = {.kind = STORE_META};

static struct err load_version(struct store *store, struct ctx *ctx, uint64_t *version_out)
{
    struct slice value = {0};
    bool found = false;
    *version_out = 0;
    TRY(store_get(store, ctx, meta, LIT("schema"), &value, &found));
    if (!found) {
        return OK;
    }
    struct unpack in = unpack_of(value);
    *version_out = unpack_u64(&in);
    return unpack_check(&in);
}

static struct err save_version(struct store *store, struct ctx *ctx, uint64_t version)
{
    struct buf out;
    buf_init_arena(&out, ctx->arena, 16);
    pack_u64(&out, version);
    struct store_update *update = store_update_new(ctx, meta);
    store_put(update, LIT("schema"), buf_slice(&out));
    return store_write(store, ctx, &update, 1);
}

struct err migrate_run(struct store *store, struct ctx *ctx)
{
    uint64_t version = 0;
    TRY(load_version(store, ctx, &version));
    if (version > SCHEMA_VERSION) {
        return err_make(ERR_IO, "the data folder was written by a newer version of this program: "
                                "install that version or a later one");
    }
    if (version == SCHEMA_VERSION) {
        return OK;
    }
    if (store->read_only) {
        return err_make(ERR_IO, "the data folder has an older schema: start the server once, so "
                                "that it is brought up to date");
    }
    for (; version != 0 && version < SCHEMA_VERSION; version++) {
        log_info(store->log, "store_migrate", .pos = (int64_t)version);
        TRY(steps[version - 1](store, ctx));
        TRY(save_version(store, ctx, version + 1));
    }
    return version == 0 ? save_version(store, ctx, SCHEMA_VERSION) : OK;
}
