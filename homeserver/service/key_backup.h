/* Server-side key backups: versions of a user, each with encrypted keys by room and session. They
 * belong to the user, not to a device. Stored in (STORE_USER_KEYS, user), written in the account's
 * lane. Spec: client-server, "Server-side key backups". */
#pragma once
#include "homeserver/base/json_out.h"
#include "homeserver/service/hs.h"

struct key_backup {
    uint64_t version; /* counts up, never used again */
    struct slice algorithm;
    struct slice auth_data; /* JSON */
    uint64_t etag;          /* changes with the keys */
    uint64_t count;         /* keys */
};

/* Makes a new version, which is the current one from now on. */
struct err hs_key_backup_create(struct hs *hs, struct ctx *ctx, uint64_t user,
                                const struct key_backup *draft, uint64_t *version_out) MUST_USE;
/* A version; 0 = the current one. */
struct err hs_key_backup_get(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t version,
                             struct key_backup *backup_out, bool *found_out) MUST_USE;
/* Replaces auth_data; the algorithm must stay (M_INVALID_PARAM). M_NOT_FOUND. */
struct err hs_key_backup_update(struct hs *hs, struct ctx *ctx, uint64_t user,
                                const struct key_backup *draft) MUST_USE;
/* Deletes a version with its keys. M_NOT_FOUND. */
struct err hs_key_backup_delete(struct hs *hs, struct ctx *ctx, uint64_t user,
                                uint64_t version) MUST_USE;

/* --- keys --- */
struct backup_key {
    struct slice room_id, session_id;
    const struct json *data; /* KeyBackupData */
};
/* Stores keys in the current version; of two keys of a session the better one stays.
 * M_WRONG_ROOM_KEYS_VERSION when `version` is not the current one (then backup_out is the current
 * one), M_NOT_FOUND when it does not exist, M_BAD_JSON. */
struct err hs_backup_keys_put(struct hs *hs, struct ctx *ctx, uint64_t user, uint64_t version,
                              const struct backup_key *keys, size_t count,
                              struct key_backup *backup_out) MUST_USE;

/* Which keys: of all rooms, of one room, or of one session. */
struct backup_scope {
    uint64_t user, version;
    struct slice room_id, session_id; /* ptr NULL = all */
};
/* M_NOT_FOUND when the version does not exist. */
struct err hs_backup_keys_delete(struct hs *hs, struct ctx *ctx, const struct backup_scope *scope,
                                 struct key_backup *backup_out) MUST_USE;
/* Writes {"rooms": ...}, {"sessions": ...} or the key itself, as the scope asks. M_NOT_FOUND when
 * the version, or the one session, does not exist. */
struct err hs_backup_keys_write(struct hs *hs, struct ctx *ctx, const struct backup_scope *scope,
                                struct json_out *out) MUST_USE;
