/* What the commands share: the session, the connection to the server, rooms by name, printing. */
#pragma once
#include "tools/myelin-chat/api.h"
#include "tools/myelin-chat/conf.h"

struct chat {
    struct arena *arena; /* of the whole command */
    struct api *api;
    struct api_options options;
    struct slice profile;
    struct session session;
    const char *password_file;       /* NULL = ask */
    struct slice registration_token; /* empty = none */
};

enum chat_exit { CHAT_DONE = 0, CHAT_FAILED = 1, CHAT_USAGE = 2 };

/* The room id of "!id", "#alias:server" or the (start of the) name of a joined room. */
struct err chat_find_room(struct chat *chat, struct slice name, struct slice *room_out) MUST_USE;
/* ERR_UNAVAILABLE when the room is encrypted: this client would write in the clear. */
struct err chat_check_plain(struct chat *chat, struct slice room) MUST_USE;
/* A sync of the joined rooms' names; JSON as /sync answers. */
struct err chat_read_rooms(struct chat *chat, struct json *sync_out) MUST_USE;
/* Name, alias, or members of a room of chat_read_rooms. */
struct slice chat_room_name(struct chat *chat, const struct json *room, struct slice room_id);
/* Prints a room's event as one line; nothing for events that people do not read. */
void chat_print_event(const struct json *event, struct slice room_label);
/* Prints text without control characters, which could drive the terminal. */
void chat_print_text(struct slice text);

/* Commands; `words` are what follows the command's name. */
struct err auth_register(struct chat *chat, char **words) MUST_USE;
struct err auth_login(struct chat *chat, char **words) MUST_USE;
struct err auth_logout(struct chat *chat, char **words) MUST_USE;
struct err auth_whoami(struct chat *chat, char **words) MUST_USE;
struct err room_list(struct chat *chat, char **words) MUST_USE;
struct err room_create(struct chat *chat, char **words) MUST_USE;
struct err room_join(struct chat *chat, char **words) MUST_USE;
struct err room_leave(struct chat *chat, char **words) MUST_USE;
struct err room_invite(struct chat *chat, char **words) MUST_USE;
struct err room_send(struct chat *chat, char **words) MUST_USE;
struct err room_history(struct chat *chat, char **words) MUST_USE;
struct err follow_rooms(struct chat *chat, char **words) MUST_USE;
struct err follow_talk(struct chat *chat, char **words) MUST_USE;
