#include "tools/myelin-chat/conf.h"

#include "homeserver/base/json_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SESSION_BYTES_MAX = 65536 };

static struct err make_folder(struct arena *arena, struct slice path)
{
    if (mkdir(arena_cstr(arena, path), 0700) != 0 && errno != EEXIST) {
        return err_publicf(arena, ERR_IO, "cannot create the folder %.*s: %s", (int)path.len,
                           path.ptr, strerror(errno));
    }
    return OK;
}

/* The session file's path; its folder exists afterwards. */
static struct err find_path(struct arena *arena, struct slice profile, struct slice *path_out)
{
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    struct slice folder = slice_of(base);
    if (folder.len == 0) {
        if (!home) {
            return err_public(ERR_IO, "neither XDG_CONFIG_HOME nor HOME is set");
        }
        folder = arena_concat(arena, slice_of(home), LIT("/.config"));
    }
    if (profile.len == 0 || slice_find(profile, '/') < profile.len || profile.ptr[0] == '.') {
        return err_public(ERR_SYNTAX, "a profile's name holds no slash and begins with no dot");
    }
    TRY(make_folder(arena, folder));
    folder = arena_concat(arena, folder, LIT("/myelin-chat"));
    TRY(make_folder(arena, folder));
    *path_out = arena_printf(arena, "%.*s/%.*s.json", (int)folder.len, folder.ptr, (int)profile.len,
                             profile.ptr);
    return OK;
}

static struct err read_file(struct arena *arena, struct slice path, struct slice *text_out)
{
    int fd = open(arena_cstr(arena, path), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? OK
                               : err_publicf(arena, ERR_IO, "cannot read %.*s: %s", (int)path.len,
                                             path.ptr, strerror(errno));
    }
    char *text = arena_alloc(arena, SESSION_BYTES_MAX);
    ssize_t got = read(fd, text, SESSION_BYTES_MAX);
    close(fd);
    *text_out = (struct slice){text, got > 0 ? (size_t)got : 0};
    return OK;
}

struct err conf_load(struct arena *arena, struct slice profile, struct session *session_out)
{
    struct slice path, text = {0};
    struct json json;
    *session_out = (struct session){0};
    TRY(find_path(arena, profile, &path));
    TRY(read_file(arena, path, &text));
    if (text.len == 0) {
        return OK;
    }
    if (json_parse(arena, text, &json).code != 0) {
        return err_publicf(arena, ERR_CORRUPT, "%.*s is damaged; log in again", (int)path.len,
                           path.ptr);
    }
    *session_out = (struct session){
        .server = json_get_string(&json, LIT("server")),
        .user_id = json_get_string(&json, LIT("user_id")),
        .device_id = json_get_string(&json, LIT("device_id")),
        .access_token = json_get_string(&json, LIT("access_token")),
    };
    return OK;
}

struct err conf_save(struct arena *arena, struct slice profile, const struct session *session)
{
    struct slice path;
    TRY(find_path(arena, profile, &path));
    struct buf text;
    buf_init_arena(&text, arena, SESSION_BYTES_MAX);
    struct json_out out = json_out_to(&text);
    json_out_object(&out);
    json_out_key_string(&out, LIT("server"), session->server);
    json_out_key_string(&out, LIT("user_id"), session->user_id);
    json_out_key_string(&out, LIT("device_id"), session->device_id);
    json_out_key_string(&out, LIT("access_token"), session->access_token);
    json_out_object_end(&out);
    const char *name = arena_cstr(arena, path);
    const char *fresh = arena_cstr(arena, arena_concat(arena, path, LIT(".new")));
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool written = fd >= 0 && write(fd, text.ptr, text.len) == (ssize_t)text.len;
    if (fd >= 0) {
        written = close(fd) == 0 && written;
    }
    if (!written || rename(fresh, name) != 0) {
        return err_publicf(arena, ERR_IO, "cannot write %s: %s", name, strerror(errno));
    }
    return OK;
}

struct err conf_remove(struct arena *arena, struct slice profile)
{
    struct slice path;
    TRY(find_path(arena, profile, &path));
    if (unlink(arena_cstr(arena, path)) != 0 && errno != ENOENT) {
        return err_publicf(arena, ERR_IO, "cannot remove %.*s: %s", (int)path.len, path.ptr,
                           strerror(errno));
    }
    return OK;
}
