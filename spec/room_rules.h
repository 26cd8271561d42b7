/* What each room version does, as data: one row per version in room_rules.def, written as the
 * change against the row before it. A version string is opaque: never parsed, never ordered. Spec:
 * room versions 1 to 12. */
#pragma once
#include "homeserver/base/slice.h"

enum event_format {
    EVENT_FORMAT_1,  /* event_id on the wire; references are [id, hashes] pairs */
    EVENT_FORMAT_3,  /* id = '$' + standard base64 of the reference hash */
    EVENT_FORMAT_4,  /* id = '$' + URL-safe base64 of the reference hash */
    EVENT_FORMAT_12, /* as 4; the create event has no room_id and is never in auth_events */
};

enum stateres {
    STATERES_1,
    STATERES_2,
    STATERES_2_1,
};

enum redaction_set {
    REDACTION_A, /* versions 1 to 5 */
    REDACTION_B, /* 6, 7: aliases lose their content */
    REDACTION_C, /* 8: join rules keep `allow` */
    REDACTION_D, /* 9, 10: members keep `join_authorised_via_users_server` */
    REDACTION_E, /* 11, 12 */
};

struct room_rules {
    struct slice version;
    enum event_format event_format;
    enum stateres stateres;
    enum redaction_set redaction_set;
    bool strict_canonical;    /* events must be canonical JSON; depth is at most 2^53 - 1 */
    bool key_validity;        /* keys are judged at origin_server_ts */
    bool signed_by_id_domain; /* also signed by the server in event_id */
    bool aliases_auth;        /* special rule for m.room.aliases */
    bool redaction_auth;      /* special rule for m.room.redaction */
    bool limit_notifications; /* changes of `notifications` levels are checked */
    bool float_levels;        /* power levels may be floating point */
    bool int_levels_only;     /* power levels must be integers; else integer strings count */
    bool knock;               /* join rule and membership `knock` */
    bool restricted;          /* join rule `restricted` */
    bool knock_restricted;    /* join rule `knock_restricted` */
    bool implicit_creator;    /* the creator is the sender of m.room.create */
    bool redacts_in_content;  /* `redacts` stands in content */
    bool byte_limits;         /* 255 is counted in bytes, not code points */
    bool hash_room_id;        /* the room id is the hash of the create event */
    bool creator_infinite;    /* creators outrank every power level */
    bool owned_state;         /* state keys that begin with a user id belong to that user */
    bool is_unstable;         /* of a proposal; not offered as stable */
};

/* NULL when the version is not supported. The row lives forever. */
const struct room_rules *room_rules_get(struct slice version);
/* For new rooms: version 12. */
const struct room_rules *room_rules_default(void);
/* Rows in ascending order, for capabilities; NULL past the end. */
const struct room_rules *room_rules_at(size_t index);
