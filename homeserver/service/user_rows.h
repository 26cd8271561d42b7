/* First bytes of the keys in object (STORE_USER, user number): which rows a user has. */
#pragma once

enum user_row {
    USER_ROW_ACCOUNT = 'a',     /* "a": the account record (users.c) */
    USER_ROW_DEVICE = 'd',      /* "d" device id: the device and its tokens (devices.c) */
    USER_ROW_DEVICE_SEEN = 's', /* "s" device id: when and from where it was last seen */
    USER_ROW_PROFILE = 'p',     /* "p" field: JSON value (profiles.c) */
    USER_ROW_ROOM = 'r',        /* memberships (user_rooms.c) */
    USER_ROW_DATA = 'c',        /* account data (prefs.c) */
    USER_ROW_DATA_BY_POS = 'C', /* account data by position */
    USER_ROW_FILTER = 'f',      /* filters */
    USER_ROW_PUSHER = 'u',      /* pushers */
    USER_ROW_NOTICES = 'n',     /* "n": the room of server notices (notices.c) */
    USER_ROW_THREAD = 't',      /* threads followed (thread_subs.c) */
    USER_ROW_THREAD_POS = 'T',  /* the same by position */
    USER_ROW_DEHYDRATED = 'h',  /* "h": which device is dehydrated (dehydrated.c) */
};
