/* Accounts: register, log in, log out. Spec: client-server, "Client Authentication". */
#include "homeserver/base/json_out.h"
#include "tools/myelin-chat/chat.h"

#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { PASSWORD_BYTES_MAX = 512, BODY_BYTES_MAX = 65536, STAGES_MAX = 8 };

static struct slice read_line(struct arena *arena, FILE *file)
{
    char line[PASSWORD_BYTES_MAX];
    if (!fgets(line, sizeof line, file)) {
        return (struct slice){0};
    }
    line[strcspn(line, "\r\n")] = 0;
    return arena_copy(arena, slice_of(line));
}

/* From the file given, from the terminal without echo, or the first line of a pipe. */
static struct err read_password(struct chat *chat, struct slice *password_out)
{
    struct termios shown, hidden;
    bool terminal = !chat->password_file && tcgetattr(STDIN_FILENO, &shown) == 0;
    FILE *file = chat->password_file ? fopen(chat->password_file, "r") : stdin;
    if (!file) {
        return err_publicf(chat->arena, ERR_IO, "cannot read %s", chat->password_file);
    }
    if (terminal) {
        hidden = shown;
        hidden.c_lflag &= (tcflag_t)~ECHO;
        fputs("Password: ", stderr);
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
    }
    *password_out = read_line(chat->arena, file);
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
        fputs("\n", stderr);
    }
    if (chat->password_file) {
        fclose(file);
    }
    return password_out->len > 0 ? OK : err_public(ERR_SYNTAX, "a password is needed");
}

static struct err keep_session(struct chat *chat, const struct json *reply)
{
    struct session session = {
        .server = chat->options.server,
        .user_id = json_get_string(reply, LIT("user_id")),
        .device_id = json_get_string(reply, LIT("device_id")),
        .access_token = json_get_string(reply, LIT("access_token")),
    };
    if (!session.access_token.ptr) {
        return err_public(ERR_SYNTAX, "the server gave no access token");
    }
    TRY(conf_save(chat->arena, chat->profile, &session));
    printf("Logged in as %.*s on %.*s\n", (int)session.user_id.len, session.user_id.ptr,
           (int)session.server.len, session.server.ptr);
    return OK;
}

struct registration {
    struct slice user, password, session;
};

static struct slice registration_body(struct chat *chat, const struct registration *wanted,
                                      struct slice stage)
{
    struct buf *text = arena_alloc(chat->arena, sizeof *text);
    buf_init_arena(text, chat->arena, BODY_BYTES_MAX);
    struct json_out out = json_out_to(text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("username"), wanted->user);
    json_out_key_string(&out, LIT("password"), wanted->password);
    json_out_key_string(&out, LIT("initial_device_display_name"), LIT("myelin-chat"));
    if (stage.len > 0) {
        json_out_key_object(&out, LIT("auth"));
        json_out_key_string(&out, LIT("type"), stage);
        json_out_key_string(&out, LIT("session"), wanted->session);
        if (chat->registration_token.len > 0) {
            json_out_key_string(&out, LIT("token"), chat->registration_token);
        }
        json_out_object_end(&out);
    }
    json_out_object_end(&out);
    return buf_slice(text);
}

static bool can_do(const struct chat *chat, struct slice stage)
{
    return slice_eq(stage, LIT("m.login.dummy")) ||
           (slice_eq(stage, LIT("m.login.registration_token")) && chat->registration_token.len > 0);
}

/* The stages of the first flow that this client can go through. */
static size_t choose_flow(const struct chat *chat, const struct json *reply, struct slice *stages)
{
    const struct json *flows = json_get_array(reply, LIT("flows"));
    for (uint32_t i = 0; flows && i < flows->count; i++) {
        const struct json *list = json_get_array(&flows->items[i], LIT("stages"));
        bool possible = list && list->count > 0 && list->count <= STAGES_MAX;
        for (uint32_t j = 0; possible && j < list->count; j++) {
            stages[j] = list->items[j].type == JSON_STRING ? list->items[j].text : LIT("");
            possible = can_do(chat, stages[j]);
        }
        if (possible) {
            return list->count;
        }
    }
    return 0;
}

static struct err refused(struct chat *chat, const struct json *reply)
{
    struct slice text = json_get_string(reply, LIT("error"));
    return err_publicf(chat->arena, ERR_UNAVAILABLE, "the server refused: %.*s", (int)text.len,
                       text.ptr ? text.ptr : "");
}

struct err auth_register(struct chat *chat, char **words)
{
    struct registration wanted = {.user = slice_of(words[0])};
    struct slice stages[STAGES_MAX], path = LIT("/v3/register");
    struct api_reply reply;
    TRY(read_password(chat, &wanted.password));
    TRY(api_request(chat->api, chat->arena, "POST", path, registration_body(chat, &wanted, LIT("")),
                    &reply));
    if (reply.status == 401 && json_get_array(&reply.json, LIT("flows"))) {
        wanted.session = json_get_string(&reply.json, LIT("session"));
        size_t count = choose_flow(chat, &reply.json, stages);
        if (count == 0) {
            return err_public(ERR_UNAVAILABLE,
                              "the server asks for steps that this client does not know; register "
                              "with another client, or give --registration-token");
        }
        for (size_t i = 0; i < count && reply.status == 401; i++) {
            TRY(api_request(chat->api, chat->arena, "POST", path,
                            registration_body(chat, &wanted, stages[i]), &reply));
        }
    }
    return reply.status == 200 ? keep_session(chat, &reply.json) : refused(chat, &reply.json);
}

struct err auth_login(struct chat *chat, char **words)
{
    struct slice password;
    struct buf text;
    struct json reply;
    TRY(read_password(chat, &password));
    buf_init_arena(&text, chat->arena, BODY_BYTES_MAX);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("type"), LIT("m.login.password"));
    json_out_key_object(&out, LIT("identifier"));
    json_out_key_string(&out, LIT("type"), LIT("m.id.user"));
    json_out_key_string(&out, LIT("user"), slice_of(words[0]));
    json_out_object_end(&out);
    json_out_key_string(&out, LIT("password"), password);
    json_out_key_string(&out, LIT("initial_device_display_name"), LIT("myelin-chat"));
    json_out_object_end(&out);
    TRY(api_call(chat->api, chat->arena, "POST", LIT("/v3/login"), buf_slice(&text), &reply));
    return keep_session(chat, &reply);
}

struct err auth_logout(struct chat *chat, char **words)
{
    struct api_reply reply;
    (void)words;
    TRY(api_request(chat->api, chat->arena, "POST", LIT("/v3/logout"), LIT("{}"), &reply));
    if (reply.status != 200 && reply.status != 401) {
        return refused(chat, &reply.json);
    }
    return conf_remove(chat->arena, chat->profile);
}

struct err auth_whoami(struct chat *chat, char **words)
{
    struct json reply;
    (void)words;
    TRY(api_call(chat->api, chat->arena, "GET", LIT("/v3/account/whoami"), (struct slice){0},
                 &reply));
    chat_print_text(json_get_string(&reply, LIT("user_id")));
    fputs(" ", stdout);
    chat_print_text(json_get_string(&reply, LIT("device_id")));
    printf(" on %.*s\n", (int)chat->session.server.len, chat->session.server.ptr);
    return OK;
}
