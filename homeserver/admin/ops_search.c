/* The search index. */
#include "homeserver/admin/ops_priv.h"
#include "homeserver/search/search.h"

/* How far the index is; of a server that does not run only the size of the file is known. */
struct err admin_search_show(struct admin_call *call)
{
    struct search_progress progress = {0};
    bool runs = call->hs->search != NULL;
    if (runs) {
        search_get_progress(call->hs->search, &progress);
    } else {
        progress.bytes = search_file_bytes(call->hs->conf->data_dir);
    }
    json_out_object(call->out);
    json_out_key_bool(call->out, LIT("enabled"), call->hs->conf->search_enabled);
    json_out_key_int(call->out, LIT("file_bytes"), progress.bytes);
    if (runs) {
        json_out_key_bool(call->out, LIT("whole"), !progress.is_walking);
        json_out_key_int(call->out, LIT("rooms"), (int64_t)progress.rooms);
        json_out_key_int(call->out, LIT("rooms_done"), (int64_t)progress.rooms_done);
    }
    json_out_object_end(call->out);
    return OK;
}

struct err admin_search_rebuild(struct admin_call *call)
{
    if (call->hs->search) {
        search_rebuild(call->hs->search);
    } else {
        search_remove(call->hs->conf->data_dir);
    }
    json_out_object(call->out);
    json_out_key_string(call->out, LIT("begun"),
                        call->hs->search ? LIT("now") : LIT("with the next start"));
    json_out_object_end(call->out);
    return OK;
}
