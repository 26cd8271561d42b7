/* Inside of the sync engine: one job computes one answer. */
#pragma once
#include "homeserver/service/device_keys.h"
#include "homeserver/service/ephemeral.h"
#include "homeserver/service/prefs.h"
#include "homeserver/service/to_device.h"
#include "homeserver/sync/filter_ids.h"
#include "homeserver/sync/lazy.h"
#include "homeserver/sync/room_watch.h"
#include "homeserver/sync/sync.h"

struct sync_sliding;

struct sync {
    struct hs *hs;
    struct sync_sliding *sliding;
    struct sync_sessions *sessions;
    struct sync_lazy *lazy;
    struct sync_filter_ids *filter_ids;
    struct sync_streams *streams;
    struct sync_room_watch *watch;
};

/* Users by number, in the arena; duplicates allowed until sync_users_finish. */
struct sync_users {
    uint64_t *items;
    size_t count, cap;
};
void sync_users_add(struct ctx *ctx, struct sync_users *users, uint64_t user);
/* Sorts and drops duplicates. */
void sync_users_finish(struct sync_users *users);
bool sync_users_has(const struct sync_users *users, uint64_t user); /* finished ones */

struct sync_job {
    struct sync *sync;
    struct hs *hs;
    struct ctx *ctx;
    struct ctx *room_ctx; /* what is needed for one room only; dropped after it */
    struct arena *room_arena;
    const struct sync_request *request;
    const struct sync_filter *filter;
    struct viewer viewer;
    struct view_memo memo;
    struct sync_look look;
    uint64_t since; /* 0 when initial */
    uint64_t upto;
    struct sync_token next;
    bool news;
    struct user_rooms rooms;     /* where to look */
    struct account_data account; /* changed since; everything when initial */
    bool account_read;
    struct to_device_messages inbox;
    struct sync_users arrived; /* began to share a room */
    struct sync_users gone;    /* stopped sharing one */
    struct sync_users sharing; /* everybody sharing a room now; read when asked for */
    bool sharing_read;
    bool keys_alone; /* rooms are looked at for who came and who went */
};

/* One top-level member of the answer. It writes its key itself, or nothing. */
struct sync_section {
    const char *name;
    struct err (*write)(struct sync_job *job, struct json_out *out);
};
struct err sync_write_rooms(struct sync_job *job, struct json_out *out) MUST_USE;
struct err sync_write_presence(struct sync_job *job, struct json_out *out) MUST_USE;
struct err sync_write_account_data(struct sync_job *job, struct json_out *out) MUST_USE;
struct err sync_write_to_device(struct sync_job *job, struct json_out *out) MUST_USE;
struct err sync_write_device_lists(struct sync_job *job, struct json_out *out) MUST_USE;
/* The same users as an object by itself. */
struct err sync_write_key_changes(struct sync_job *job, struct json_out *out) MUST_USE;
struct err sync_write_key_counts(struct sync_job *job, struct json_out *out) MUST_USE;

/* Whether another user shares a room with the caller now. */
struct err sync_job_shares(struct sync_job *job, uint64_t user, bool *shares_out) MUST_USE;

/* What was written after a mark can be taken back. */
struct sync_undo {
    size_t len;
    bool need_comma;
};
struct sync_undo sync_undo_mark(const struct json_out *out);
void sync_undo_to(struct json_out *out, struct sync_undo undo);

/* --- one room --- */
enum sync_standing {
    SYNC_NOT_SHOWN,
    SYNC_JOINED,
    SYNC_INVITED,
    SYNC_KNOCKED,
    SYNC_LEFT,        /* a stay ended: timeline up to it */
    SYNC_TURNED_AWAY, /* left without having been in: own event only */
};

struct sync_room {
    struct room *room;
    struct room_info info;
    struct user_room entry;
    enum sync_standing standing;
    struct room_head head;
    bool fresh;      /* shown as if for the first time */
    bool full_state; /* fresh, or asked for */
    /* timeline.c */
    int64_t end_number, since_number;
    uint64_t end_root, since_root;
    struct stored_events timeline; /* oldest first */
    bool limited;
    /* state.c */
    struct stored_events state;
    bool members_changed;
};

/* First event number after the stay that began at entry.joined_number; 0 = there was none. */
int64_t sync_stay_end(const struct sync_room *room);
/* Fills the timeline part. */
struct err sync_room_timeline(struct sync_job *job, struct sync_room *room) MUST_USE;
/* Fills state; notes who came and went in job->arrived and job->gone. */
struct err sync_room_state(struct sync_job *job, struct sync_room *room) MUST_USE;
struct err sync_write_summary(struct sync_job *job, struct sync_room *room,
                              struct json_out *out) MUST_USE;
/* Everybody in a room that the caller joined or left: they begin or may cease to share one. */
struct err sync_note_everybody(struct sync_job *job, struct sync_room *room,
                               struct sync_users *users) MUST_USE;
/* The stripped state of an invite or knock. Needs room->room and ->entry. */
struct err sync_find_stripped(struct sync_job *job, struct sync_room *room,
                              struct slice *stripped_out) MUST_USE;
/* Whether the caller's settings hide an invite with this stripped state. */
struct err sync_hides_invite(struct sync_job *job, struct slice stripped,
                             bool *hidden_out) MUST_USE;
/* User ids for a room's name: at most five, never the caller's. */
struct sync_heroes {
    struct slice user_ids[5];
    size_t count;
    bool wanted; /* the room has neither name nor alias */
};
struct err sync_room_heroes(struct sync_job *job, struct sync_room *room,
                            struct sync_heroes *heroes_out) MUST_USE;
/* The same, of whatever room. */
struct err sync_pick_heroes(struct sync_job *job, struct sync_room *room,
                            struct sync_heroes *heroes_out) MUST_USE;
/* Each writes its members; *news_out is set (never cleared) when they carry something. */
struct err sync_write_ephemeral(struct sync_job *job, struct sync_room *room, struct json_out *out,
                                bool *news_out) MUST_USE;
struct err sync_write_room_account_data(struct sync_job *job, struct sync_room *room,
                                        struct json_out *out, bool *news_out) MUST_USE;
struct err sync_write_unread(struct sync_job *job, struct sync_room *room,
                             struct json_out *out) MUST_USE;
/* The unread counts behind it. */
struct err sync_count_unread(struct sync_job *job, struct sync_room *room,
                             struct unread_counts *counts_out) MUST_USE;
/* The content of m.receipt, as an object's members. Sorts the list. */
void sync_write_receipts(const struct receipt **list, size_t count, struct json_out *out);
/* A list of events as clients see them. */
struct err sync_write_events(struct sync_job *job, struct sync_room *room,
                             const struct stored_events *events, uint32_t flags,
                             struct json_out *out) MUST_USE;
