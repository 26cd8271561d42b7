/* Sizes the protocol fixes. Spec: client-server, "Size limits"; server-server, "PDUs". */
#pragma once

enum {
    LIMIT_EVENT_BYTES = 65536, /* canonical federation form with signatures */
    LIMIT_ID_BYTES = 255,      /* user, room, event ids and aliases, sigil and domain included */
    LIMIT_TYPE = 255,          /* event type; bytes, before version 11 code points */
    LIMIT_STATE_KEY = 255,     /* the same */
    LIMIT_EVENT_LEVELS = 90,   /* our own: with what is around it in answers json_parse reads it */
    LIMIT_PREV_EVENTS = 20,
    LIMIT_AUTH_EVENTS = 10,
    LIMIT_PDUS = 50,         /* per transaction */
    LIMIT_EDUS = 100,        /* per transaction */
    LIMIT_ROOM_VERSION = 32, /* code points */
    LIMIT_SERVER_NAME = 255,
    LIMIT_TAG_BYTES = 255,
    LIMIT_PUSHKEY_BYTES = 512,
    LIMIT_APP_ID_BYTES = 64,
    LIMIT_PROFILE_BYTES = 65536,
    LIMIT_PROFILE_KEY_BYTES = 255,
    LIMIT_OPAQUE_ID_BYTES = 255,
    LIMIT_THREEPID_SECRET_BYTES = 255,
    LIMIT_REGISTRATION_TOKEN_BYTES = 64,
};
