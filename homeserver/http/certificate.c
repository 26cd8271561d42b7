#include "homeserver/http/certificate.h"

#include "homeserver/base/arena.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SOON_S = 14 * 86400, DATE_BYTES = 32 };

struct files {
    struct arena *arena;
    const char *certificate, *key; /* paths */
};

static struct err read_file(struct arena *arena, const char *path, gnutls_datum_t *bytes_out)
{
    if (access(path, R_OK) != 0) {
        return err_publicf(arena, ERR_IO, "%s: the file cannot be opened: %s", path,
                           strerror(errno));
    }
    if (gnutls_load_file(path, bytes_out) != 0) {
        return err_publicf(arena, ERR_IO, "%s: the file cannot be read", path);
    }
    return OK;
}

static struct err read_certificate(const struct files *files, gnutls_x509_crt_t **list_out,
                                   unsigned *count_out)
{
    gnutls_datum_t bytes = {0};
    TRY(read_file(files->arena, files->certificate, &bytes));
    int code = gnutls_x509_crt_list_import2(list_out, count_out, &bytes, GNUTLS_X509_FMT_PEM, 0);
    gnutls_free(bytes.data);
    return code >= 0 && *count_out
               ? OK
               : err_publicf(files->arena, ERR_IO,
                             "%s: the file holds no certificate in PEM form: %s",
                             files->certificate, gnutls_strerror(code));
}

static struct err read_key(const struct files *files, gnutls_privkey_t key)
{
    gnutls_datum_t bytes = {0};
    TRY(read_file(files->arena, files->key, &bytes));
    int code = gnutls_privkey_import_x509_raw(key, &bytes, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_memset(bytes.data, 0, bytes.size);
    gnutls_free(bytes.data);
    return code >= 0 ? OK
                     : err_publicf(files->arena, ERR_IO,
                                   "%s: the file holds no private key in PEM form: %s", files->key,
                                   gnutls_strerror(code));
}

static struct err hold_together(const struct files *files, gnutls_x509_crt_t certificate,
                                gnutls_privkey_t key)
{
    unsigned char ids[2][64];
    size_t sizes[2] = {sizeof ids[0], sizeof ids[1]};
    gnutls_pubkey_t public = NULL;
    int code = gnutls_pubkey_init(&public);
    code = code < 0 ? code : gnutls_pubkey_import_privkey(public, key, 0, 0);
    code = code < 0 ? code : gnutls_pubkey_get_key_id(public, 0, ids[0], &sizes[0]);
    code = code < 0 ? code : gnutls_x509_crt_get_key_id(certificate, 0, ids[1], &sizes[1]);
    gnutls_pubkey_deinit(public);
    if (code < 0) {
        return err_publicf(files->arena, ERR_IO, "%s: the key cannot be used: %s", files->key,
                           gnutls_strerror(code));
    }
    bool same = sizes[0] == sizes[1] && memcmp(ids[0], ids[1], sizes[0]) == 0;
    return same ? OK
                : err_publicf(files->arena, ERR_IO,
                              "%s: this is not the key of the certificate %s (of a chain, the "
                              "server's own certificate stands first)",
                              files->key, files->certificate);
}

static struct slice say_when(struct arena *arena, const char *before, time_t when,
                             const char *behind)
{
    char date[DATE_BYTES];
    struct tm parts;
    gmtime_r(&when, &parts);
    strftime(date, sizeof date, "%Y-%m-%d", &parts);
    return arena_printf(arena, "the certificate %s %s%s", before, date, behind);
}

static struct slice warn_of_dates(struct arena *arena, gnutls_x509_crt_t certificate, time_t now)
{
    time_t from = gnutls_x509_crt_get_activation_time(certificate);
    time_t until = gnutls_x509_crt_get_expiration_time(certificate);
    if (now < from) {
        return say_when(arena, "is not valid before", from, ": is the clock right?");
    }
    if (now >= until) {
        return say_when(arena, "expired on", until, ": clients and servers refuse it");
    }
    return now + SOON_S >= until ? say_when(arena, "expires on", until, "") : (struct slice){0};
}

struct err http_certificate_check(struct arena *arena, struct slice certificate, struct slice key,
                                  int64_t wall_ms, struct slice *warning_out)
{
    struct files files = {arena, arena_cstr(arena, certificate), arena_cstr(arena, key)};
    gnutls_x509_crt_t *chain = NULL;
    unsigned count = 0;
    gnutls_privkey_t private = NULL;
    *warning_out = (struct slice){0};
    TRY(read_certificate(&files, &chain, &count));
    struct err err = OK;
    if (gnutls_privkey_init(&private) < 0) {
        err = err_make(ERR_INTERNAL, "there is no memory for a key");
    }
    err = err.code ? err : read_key(&files, private);
    err = err.code ? err : hold_together(&files, chain[0], private);
    if (err.code == 0) {
        *warning_out = warn_of_dates(arena, chain[0], (time_t)(wall_ms / 1000));
    }
    gnutls_privkey_deinit(private);
    for (unsigned i = 0; i < count; i++) {
        gnutls_x509_crt_deinit(chain[i]);
    }
    gnutls_free(chain);
    return err;
}
