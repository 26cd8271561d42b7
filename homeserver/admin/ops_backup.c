/* A copy of all that a server cannot do without, while it runs or not. */
#include "homeserver/admin/ops_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* Keys and the certificate that the server has made itself. The search index and the token of the
 * admin listener are made anew. */
static const char *const beside_the_store[] = {"signing.key", "vapid.key", "tls.crt", "tls.key"};

static struct err copy_keys(struct admin_call *call, struct slice folder)
{
    struct arena *arena = call->ctx->arena;
    const char *from = arena_cstr(arena, call->hs->conf->data_dir);
    const char *to = arena_cstr(arena, folder);
    for (size_t i = 0; i < COUNT_OF(beside_the_store); i++) {
        struct slice source = arena_printf(arena, "%s/%s", from, beside_the_store[i]);
        struct slice copy = arena_printf(arena, "%s/%s", to, beside_the_store[i]);
        TRY(store_copy_file(arena, source.ptr, copy.ptr));
    }
    return OK;
}

struct err admin_backup(struct admin_call *call)
{
    struct arena *arena = call->ctx->arena;
    struct store_copied copied;
    struct slice folder;
    TRY(admin_text(call, LIT("path"), &folder));
    if (!slice_has_prefix(folder, LIT("/"))) {
        return err_public(ERR_M_INVALID_PARAM, "The path of the copy must begin with /.");
    }
    if (mkdir(arena_cstr(arena, folder), 0700) != 0) {
        return err_publicf(arena, ERR_M_INVALID_PARAM,
                           "%s: the folder of the copy cannot be made: %s",
                           arena_cstr(arena, folder), strerror(errno));
    }
    TRY(copy_keys(call, folder));
    struct slice store = arena_concat(arena, folder, LIT("/store"));
    TRY(store_backup(call->hs->store, arena, store, &copied));
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("path"), folder);
    json_out_key_int(call->out, LIT("media_files"), (int64_t)copied.files);
    json_out_key_int(call->out, LIT("media_bytes"), (int64_t)copied.bytes);
    json_out_object_end(call->out);
    return OK;
}
