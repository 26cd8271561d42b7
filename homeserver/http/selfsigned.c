#include "homeserver/http/selfsigned.h"

#include "homeserver/base/arena.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { VALID_DAYS = 3650, DAY_S = 86400, SERIAL_BYTES = 16 };

static struct err library_err(int code)
{
    return code < 0 ? err_make(ERR_INTERNAL, gnutls_strerror(code)) : OK;
}

/* Adds an address or a DNS name, whichever the text is. */
static int add_name(gnutls_x509_crt_t crt, const char *name)
{
    unsigned char bytes[16];
    if (inet_pton(AF_INET, name, bytes) == 1) {
        return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, bytes, 4,
                                                    GNUTLS_FSAN_APPEND);
    }
    if (inet_pton(AF_INET6, name, bytes) == 1) {
        return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, bytes, 16,
                                                    GNUTLS_FSAN_APPEND);
    }
    return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name,
                                                (unsigned)strlen(name), GNUTLS_FSAN_APPEND);
}

/* The host of `host[:port]` or `[v6]:port`. */
static struct slice host_of(struct slice server_name)
{
    if (server_name.len && server_name.ptr[0] == '[') {
        return slice_sub(server_name, 1, slice_find(server_name, ']') - 1);
    }
    return slice_sub(server_name, 0, slice_find(server_name, ':'));
}

static struct err fill(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key, const char *host)
{
    unsigned char serial[SERIAL_BYTES];
    time_t now = time(NULL);
    if (getrandom(serial, sizeof serial, 0) != (ssize_t)sizeof serial) {
        return err_make(ERR_IO, "no random bytes");
    }
    serial[0] &= 0x7F; /* a serial number is positive */
    TRY(library_err(gnutls_x509_crt_set_version(crt, 3)));
    TRY(library_err(gnutls_x509_crt_set_serial(crt, serial, sizeof serial)));
    TRY(library_err(gnutls_x509_crt_set_activation_time(crt, now - DAY_S)));
    TRY(library_err(gnutls_x509_crt_set_expiration_time(crt, now + (time_t)VALID_DAYS * DAY_S)));
    TRY(library_err(
        gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, "Myelin", 6)));
    TRY(library_err(add_name(crt, "localhost")));
    TRY(library_err(add_name(crt, "127.0.0.1")));
    TRY(library_err(add_name(crt, "::1")));
    bool known = !*host || strcmp(host, "localhost") == 0 || strcmp(host, "127.0.0.1") == 0;
    if (!known) {
        TRY(library_err(add_name(crt, host)));
    }
    /* A certificate authority of its own: programs can be told to trust this one file. */
    TRY(library_err(gnutls_x509_crt_set_basic_constraints(crt, 1, 0)));
    TRY(library_err(gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE |
                                                           GNUTLS_KEY_KEY_CERT_SIGN)));
    TRY(library_err(gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_SERVER, 0)));
    TRY(library_err(gnutls_x509_crt_set_key(crt, key)));
    return library_err(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0));
}

static struct err write_file(const char *path, mode_t mode, const gnutls_datum_t *data)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0) {
        return err_make(ERR_IO, "cannot create the TLS certificate or key file");
    }
    bool written =
        fchmod(fd, mode) == 0 && write(fd, data->data, data->size) == (ssize_t)data->size;
    written = fsync(fd) == 0 && written;
    close(fd);
    return written ? OK : err_make(ERR_IO, "cannot write the TLS certificate or key file");
}

static struct err make(gnutls_x509_crt_t crt, gnutls_x509_privkey_t key, struct arena *arena,
                       struct slice paths[2], struct slice host)
{
    gnutls_datum_t pem = {0};
    TRY(library_err(gnutls_x509_privkey_generate(
        key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0)));
    TRY(fill(crt, key, arena_cstr(arena, host)));
    TRY(library_err(gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL,
                                                      GNUTLS_PKCS_PLAIN, &pem)));
    struct err err = write_file(arena_cstr(arena, paths[1]), 0600, &pem);
    gnutls_memset(pem.data, 0, pem.size);
    gnutls_free(pem.data);
    TRY(err);
    TRY(library_err(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem)));
    err = write_file(arena_cstr(arena, paths[0]), 0644, &pem);
    gnutls_free(pem.data);
    return err;
}

struct err http_selfsigned_make(struct slice certificate_path, struct slice key_path,
                                struct slice server_name)
{
    struct arena *arena = arena_new();
    gnutls_x509_crt_t crt = NULL;
    gnutls_x509_privkey_t key = NULL;
    struct slice paths[2] = {certificate_path, key_path};
    struct err err = library_err(gnutls_x509_crt_init(&crt));
    if (!err.code) {
        err = library_err(gnutls_x509_privkey_init(&key));
    }
    if (!err.code) {
        err = make(crt, key, arena, paths, host_of(server_name));
    }
    gnutls_x509_privkey_deinit(key);
    gnutls_x509_crt_deinit(crt);
    arena_free(&arena);
    return err;
}
