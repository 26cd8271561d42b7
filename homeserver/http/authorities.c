#include "homeserver/http/authorities.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string.h>

enum {
    CHAIN_MAX = 16,
    SEEN = 256, /* a power of two */
    DIGEST_BYTES = 32,
};

static const int64_t LIST_US = INT64_C(24) * 3600 * 1000000, SEEN_US = INT64_C(60) * 1000000;

/* A leaf certificate that was found good; checked anew after a while, for its end may come. */
struct seen {
    unsigned char digest[DIGEST_BYTES];
    int64_t checked_us; /* 0 = empty */
};

static bool add_files(const struct http_authorities *authorities, gnutls_x509_trust_list_t list)
{
    bool good = true;
    for (size_t i = 0; i < authorities->file_count; i++) {
        good = gnutls_x509_trust_list_add_trust_file(list, authorities->files[i], NULL,
                                                     GNUTLS_X509_FMT_PEM, 0, 0) > 0 &&
               good;
    }
    return good;
}

static gnutls_x509_trust_list_t new_list(void)
{
    gnutls_x509_trust_list_t list = NULL;
    return gnutls_x509_trust_list_init(&list, 0) == 0 ? list : NULL;
}

static void drop_list(struct http_authorities *authorities)
{
    if (authorities->list) {
        gnutls_x509_trust_list_deinit(authorities->list, 1);
        authorities->list = NULL;
    }
    mem_free(authorities->seen);
    authorities->seen = NULL;
}

void http_authorities_deinit(struct http_authorities *authorities)
{
    drop_list(authorities);
    for (size_t i = 0; i < authorities->file_count; i++) {
        mem_free(authorities->files[i]);
    }
    mem_free(authorities->files);
    *authorities = (struct http_authorities){0};
}

struct err http_authorities_init(struct http_authorities *authorities, const struct slice *files,
                                 size_t count)
{
    *authorities = (struct http_authorities){.file_count = count};
    if (count == 0) {
        return OK;
    }
    authorities->files = mem_alloc(count * sizeof *authorities->files);
    for (size_t i = 0; i < count; i++) {
        authorities->files[i] = mem_alloc(files[i].len + 1);
        memcpy(authorities->files[i], files[i].ptr, files[i].len);
    }
    gnutls_x509_trust_list_t list = new_list();
    bool good = list && add_files(authorities, list);
    if (list) {
        gnutls_x509_trust_list_deinit(list, 1);
    }
    if (good) {
        return OK;
    }
    http_authorities_deinit(authorities);
    return err_public(ERR_IO, "a file of tls.trusted_ca has no certificate that can be read");
}

/* Without the system's authorities those of the operator still count, and the other way round. */
static bool load(struct http_authorities *authorities)
{
    int64_t now_us = now_mono_us();
    if (authorities->list && now_us - authorities->loaded_us < LIST_US) {
        return true;
    }
    drop_list(authorities);
    authorities->list = new_list();
    if (!authorities->list) {
        return false;
    }
    gnutls_x509_trust_list_add_system_trust(authorities->list, 0, 0);
    add_files(authorities, authorities->list);
    authorities->seen = mem_alloc(SEEN * sizeof(struct seen));
    authorities->loaded_us = now_us;
    return true;
}

static bool verify(const struct http_authorities *authorities, const gnutls_datum_t *chain,
                   unsigned count)
{
    gnutls_x509_crt_t certificates[CHAIN_MAX];
    unsigned made = 0, problems = 0;
    bool good = count <= CHAIN_MAX;
    for (; made < count && good; made += good) {
        good = gnutls_x509_crt_init(&certificates[made]) == 0;
        if (good &&
            gnutls_x509_crt_import(certificates[made], &chain[made], GNUTLS_X509_FMT_DER) != 0) {
            gnutls_x509_crt_deinit(certificates[made]);
            good = false;
        }
    }
    good = good && gnutls_x509_trust_list_verify_crt2(authorities->list, certificates, made, NULL,
                                                      0, 0, &problems, NULL) == 0;
    for (unsigned i = 0; i < made; i++) {
        gnutls_x509_crt_deinit(certificates[i]);
    }
    return good && problems == 0;
}

bool http_authorities_vouch(struct http_authorities *authorities, void *session)
{
    unsigned count = 0;
    struct seen now = {.checked_us = now_mono_us()};
    size_t size = sizeof now.digest;
    bool x509 = gnutls_certificate_type_get2(session, GNUTLS_CTYPE_SERVER) == GNUTLS_CRT_X509;
    const gnutls_datum_t *chain = x509 ? gnutls_certificate_get_peers(session, &count) : NULL;
    if (!chain || count == 0 || !load(authorities) ||
        gnutls_fingerprint(GNUTLS_DIG_SHA256, &chain[0], now.digest, &size) != 0) {
        return false;
    }
    struct seen *seen = (struct seen *)authorities->seen + now.digest[0] % SEEN;
    if (seen->checked_us && now.checked_us - seen->checked_us < SEEN_US &&
        memcmp(seen->digest, now.digest, sizeof now.digest) == 0) {
        return true;
    }
    if (!verify(authorities, chain, count)) {
        return false;
    }
    *seen = now;
    return true;
}
