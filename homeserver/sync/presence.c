/* Presence of the caller and of those who share a room. Spec: client-server, "Presence". */
#include "homeserver/sync/priv.h"

static void write_state(const struct presence_state *state, struct json_out *out)
{
    static const struct slice names[] = {{"offline", 7}, {"unavailable", 11}, {"online", 6}};
    json_out_object(out);
    json_out_key_string(out, LIT("type"), LIT("m.presence"));
    json_out_key_string(out, LIT("sender"), state->user_id);
    json_out_key_object(out, LIT("content"));
    json_out_key_string(out, LIT("presence"), names[state->presence]);
    if (state->last_active_ago_ms >= 0) {
        json_out_key_int(out, LIT("last_active_ago"), state->last_active_ago_ms);
    }
    if (state->presence == PRESENCE_ONLINE) {
        json_out_key_bool(out, LIT("currently_active"), state->currently_active);
    }
    if (state->status_msg.ptr != NULL) {
        json_out_key_string(out, LIT("status_msg"), state->status_msg);
    }
    json_out_object_end(out);
    json_out_object_end(out);
}

static bool takes(const struct sync_job *job, const struct presence_state *state)
{
    return sync_filter_takes_event(&job->filter->presence, LIT("m.presence"), state->user_id, NULL);
}

static struct err write_changed(struct sync_job *job, struct json_out *out)
{
    struct presence_state *states = NULL;
    if (job->look.shared_pos <= job->since && !job->request->initial) {
        return OK;
    }
    size_t count = hs_presence_since(job->hs, job->ctx, job->since, job->upto, &states);
    for (size_t i = 0; i < count; i++) {
        bool shares = false;
        if (!takes(job, &states[i])) {
            continue;
        }
        TRY(sync_job_shares(job, states[i].user, &shares));
        /* New room mates follow below. */
        if (shares && !sync_users_has(&job->arrived, states[i].user)) {
            write_state(&states[i], out);
        }
    }
    return OK;
}

static void write_arrived(struct sync_job *job, struct json_out *out)
{
    for (size_t i = 0; i < job->arrived.count; i++) {
        struct presence_state state;
        if (hs_presence_get(job->hs, job->ctx, job->arrived.items[i], &state) &&
            takes(job, &state)) {
            write_state(&state, out);
        }
    }
}

struct err sync_write_presence(struct sync_job *job, struct json_out *out)
{
    struct sync_undo undo = sync_undo_mark(out);
    json_out_key_object(out, LIT("presence"));
    json_out_key_array(out, LIT("events"));
    size_t before = out->buf->len;
    sync_users_finish(&job->arrived);
    TRY(write_changed(job, out));
    write_arrived(job, out);
    bool any = out->buf->len > before;
    json_out_array_end(out);
    json_out_object_end(out);
    if (!any) {
        sync_undo_to(out, undo);
    }
    job->news = job->news || any;
    return OK;
}

struct err sync_write_everyones_presence(struct sync *sync, struct ctx *ctx, uint64_t user,
                                         struct json_out *out)
{
    struct presence_state *states = NULL;
    uint64_t upto = positions_newest(sync->hs->positions);
    size_t count = hs_presence_since(sync->hs, ctx, 0, upto, &states);
    json_out_array(out);
    for (size_t i = 0; i < count; i++) {
        bool shares = states[i].user == user;
        if (!shares) {
            TRY(hs_users_share_room(sync->hs, ctx, user, states[i].user, &shares));
        }
        if (shares) {
            write_state(&states[i], out);
        }
    }
    json_out_array_end(out);
    return OK;
}
