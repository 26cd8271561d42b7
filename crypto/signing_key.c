#include "crypto/signing_key.h"

#include "crypto/base64.h"
#include "crypto/token.h"
#include "homeserver/base/buf.h"
#include "homeserver/base/mem.h"
#include "spec/errcodes.h"

#include <errno.h>
#include <stdio.h>
#include <fcntl.h>

#include <sys/stat.h>
#include <unistd.h>

enum { OLD_KEYS_MAX = 64, FILE_BYTES_MAX = 64 * 1024, NAME_BYTES_MAX = 64, NAME_RANDOM_BYTES = 6 };

struct signing_key {
    struct arena *arena; /* names */
    struct ed25519_key key;
    struct slice key_id;
    struct signing_key_old olds[OLD_KEYS_MAX];
    size_t old_count;
};

static bool is_key_name(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool fine =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        if (!fine) {
            return false;
        }
    }
    return name.len > 0 && name.len <= NAME_BYTES_MAX;
}

static struct slice next_word(struct slice *line)
{
    struct slice word;
    *line = slice_trim(slice_cut(*line, ' ', &word));
    return word;
}

static struct slice make_id(struct arena *arena, struct slice name)
{
    return arena_concat(arena, LIT("ed25519:"), name);
}

static bool parse_current(struct signing_key *key, struct slice line)
{
    unsigned char seed[ED25519_SEED_BYTES];
    struct slice name = next_word(&line);
    if (key->key_id.ptr || !is_key_name(name) ||
        !base64_decode_exact(next_word(&line), seed, sizeof seed)) {
        return false;
    }
    key->key = ed25519_from_seed(seed);
    key->key_id = make_id(key->arena, name);
    ed25519_wipe(seed, sizeof seed);
    return true;
}

static bool parse_old(struct signing_key *key, struct slice line)
{
    struct slice name = next_word(&line);
    if (key->old_count == OLD_KEYS_MAX || !is_key_name(name)) {
        return false;
    }
    struct signing_key_old *old = &key->olds[key->old_count];
    if (!ed25519_parse_public(next_word(&line), &old->public_key) ||
        !slice_parse_i64(line, &old->expired_ms)) {
        return false;
    }
    old->key_id = make_id(key->arena, name);
    key->old_count++;
    return true;
}

static struct err parse_file(struct signing_key *key, struct slice text)
{
    while (text.len > 0) {
        struct slice line;
        text = slice_cut(text, '\n', &line);
        line = slice_trim(line);
        if (line.len == 0 || line.ptr[0] == '#') {
            continue;
        }
        struct slice kind = next_word(&line);
        bool fine = slice_eq(kind, LIT("ed25519"))       ? parse_current(key, line)
                    : slice_eq(kind, LIT("old_ed25519")) ? parse_old(key, line)
                                                         : false;
        if (!fine) {
            return err_make(ERR_CORRUPT, "a line of the signing key file is malformed; restore the "
                                         "file from a copy");
        }
    }
    return key->key_id.ptr ? OK : err_make(ERR_CORRUPT, "the signing key file holds no key");
}

static struct err read_file(struct arena *arena, const char *path, struct slice *text_out,
                            bool *found_out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    *found_out = fd >= 0;
    if (fd < 0) {
        return errno == ENOENT ? OK : err_make(ERR_IO, "the signing key file cannot be opened");
    }
    char *bytes = arena_alloc(arena, FILE_BYTES_MAX);
    size_t size = 0;
    ssize_t got = 1;
    while (got > 0 && size < FILE_BYTES_MAX) {
        got = read(fd, bytes + size, FILE_BYTES_MAX - size);
        size += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    *text_out = (struct slice){bytes, size};
    return got < 0 || size == FILE_BYTES_MAX
               ? err_make(ERR_IO, "the signing key file is unreadable")
               : OK;
}

static bool write_all(int fd, struct slice text)
{
    while (text.len > 0) {
        ssize_t wrote = write(fd, text.ptr, text.len);
        if (wrote <= 0) {
            return false;
        }
        text = slice_from(text, (size_t)wrote);
    }
    return fsync(fd) == 0;
}

/* Makes the rename durable, too. */
static void sync_folder(struct arena *arena, struct slice path)
{
    size_t slash = slice_find_last(path, '/');
    struct slice folder = slash < path.len ? slice_sub(path, 0, slash ? slash : 1) : LIT(".");
    int fd = open(arena_cstr(arena, folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

/* A reader sees the old file or the new one, never half of one. */
static struct err write_file(struct arena *arena, struct slice path, struct slice text)
{
    char *temporary = arena_cstr(arena, arena_concat(arena, path, LIT(".new")));
    unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_make(ERR_IO, "the signing key file cannot be created");
    }
    bool written = write_all(fd, text);
    close(fd);
    if (!written || rename(temporary, arena_cstr(arena, path)) != 0) {
        unlink(temporary);
        return err_make(ERR_IO, "the signing key file cannot be written");
    }
    sync_folder(arena, path);
    return OK;
}

static void write_new_key(struct buf *out, struct arena *arena)
{
    struct ed25519_key key = ed25519_generate();
    unsigned char seed[ED25519_SEED_BYTES];
    ed25519_seed(&key, seed);
    struct slice text =
        base64_encode(arena, (struct slice){(const char *)seed, sizeof seed}, BASE64_STANDARD);
    struct slice name = token_random_letters(arena, NAME_RANDOM_BYTES);
    buf_printf(out, "ed25519 a_%.*s %.*s\n", (int)name.len, name.ptr, (int)text.len, text.ptr);
    ed25519_wipe(seed, sizeof seed);
    ed25519_wipe(&key, sizeof key);
}

static struct err load(struct signing_key *key, struct slice path)
{
    struct slice text = {0};
    bool found = false;
    TRY(read_file(key->arena, arena_cstr(key->arena, path), &text, &found));
    if (!found) {
        struct buf fresh;
        buf_init_arena(&fresh, key->arena, FILE_BYTES_MAX);
        write_new_key(&fresh, key->arena);
        text = buf_slice(&fresh);
        TRY(write_file(key->arena, path, text));
    }
    return parse_file(key, text);
}

struct err signing_key_load(struct slice path, struct signing_key **key_out)
{
    struct signing_key *key = mem_alloc(sizeof *key);
    key->arena = arena_new();
    struct err err = load(key, path);
    if (err.code != 0) {
        signing_key_free(&key);
    }
    *key_out = key;
    return err;
}

void signing_key_free(struct signing_key **key)
{
    if (*key) {
        arena_free(&(*key)->arena);
        ed25519_wipe(&(*key)->key, sizeof(*key)->key);
        mem_free(*key);
        *key = NULL;
    }
}

struct json_signer signing_key_signer(const struct signing_key *key, struct server_name server)
{
    return (struct json_signer){.server = server, .key_id = key->key_id, .key = &key->key};
}

struct ed25519_public signing_key_public(const struct signing_key *key)
{
    return ed25519_public_of(&key->key);
}

struct slice signing_key_id(const struct signing_key *key)
{
    return key->key_id;
}

const struct signing_key_old *signing_key_olds(const struct signing_key *key, size_t *count_out)
{
    *count_out = key->old_count;
    return key->olds;
}

static void write_old(struct buf *out, struct arena *arena, const struct signing_key_old *old)
{
    struct slice name = slice_from(old->key_id, sizeof "ed25519:" - 1);
    struct slice text = base64_encode(
        arena, (struct slice){(const char *)old->public_key.bytes, ED25519_PUBLIC_BYTES},
        BASE64_STANDARD);
    buf_printf(out, "old_ed25519 %.*s %.*s %lld\n", (int)name.len, name.ptr, (int)text.len,
               text.ptr, (long long)old->expired_ms);
}

struct err signing_key_rotate(struct slice path, int64_t now_wall_ms)
{
    struct signing_key *key = NULL;
    struct buf text;
    TRY(signing_key_load(path, &key));
    struct err err = OK;
    if (key->old_count == OLD_KEYS_MAX) {
        err = err_make(ERR_LIMIT, "there are 64 old keys already; delete the oldest lines");
    } else {
        buf_init_arena(&text, key->arena, FILE_BYTES_MAX);
        write_new_key(&text, key->arena);
        struct signing_key_old present = {key->key_id, signing_key_public(key), now_wall_ms};
        write_old(&text, key->arena, &present);
        for (size_t i = 0; i < key->old_count; i++) {
            write_old(&text, key->arena, &key->olds[i]);
        }
        err = write_file(key->arena, path, buf_slice(&text));
    }
    signing_key_free(&key);
    return err;
}
