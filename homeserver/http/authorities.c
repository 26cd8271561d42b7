#include "homeserver/http/authorities.h"

#include "homeserver/base/mem.h"
#include "homeserver/base/now.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string.h>

enum {
    CHAIN_MAX = 16,
    SEEN = 256,
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
}

void http_authorities_deinit(struct http_authorities *authorities)
{
    drop_list(authorities);
    for (size_t i = 0; i < authorities->file_count; i++) {
        mem_free(authorities->files[i]);
    }
    mem_free(authorities->files);
    mem_free(authorities->seen);
    pthread_rwlock_destroy(&authorities->lock);
    pthread_mutex_destroy(&authorities->seen_lock);
    *authorities = (struct http_authorities){0};
}

struct err http_authorities_init(struct http_authorities *authorities, const struct slice *files,
                                 size_t count)
{
    *authorities = (struct http_authorities){.file_count = count};
    authorities->seen = mem_alloc(SEEN * sizeof(struct seen));
    pthread_rwlock_init(&authorities->lock, NULL);
    pthread_mutex_init(&authorities->seen_lock, NULL);
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

static bool is_fresh(const struct http_authorities *authorities)
{
    return authorities->list && now_mono_us() - authorities->loaded_us < LIST_US;
}

/* Without the system's authorities those of the operator still count, and the other way round. Lock
 * held for writing. */
static void load(struct http_authorities *authorities)
{
    if (is_fresh(authorities)) { /* another thread was here before */
        return;
    }
    drop_list(authorities);
    authorities->list = new_list();
    if (authorities->list) {
        gnutls_x509_trust_list_add_system_trust(authorities->list, 0, 0);
        add_files(authorities, authorities->list);
        authorities->loaded_us = now_mono_us();
    }
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

/* Chains are checked by as many threads as have one; the list does not change meanwhile. */
static bool verify_now(struct http_authorities *authorities, const gnutls_datum_t *chain,
                       unsigned count)
{
    pthread_rwlock_rdlock(&authorities->lock);
    if (!is_fresh(authorities)) {
        pthread_rwlock_unlock(&authorities->lock);
        pthread_rwlock_wrlock(&authorities->lock);
        load(authorities);
    }
    bool good = authorities->list && verify(authorities, chain, count);
    pthread_rwlock_unlock(&authorities->lock);
    return good;
}

static struct seen *seen_at(struct http_authorities *authorities, const struct seen *leaf)
{
    return (struct seen *)authorities->seen + leaf->digest[0] % SEEN;
}

static bool was_seen(struct http_authorities *authorities, const struct seen *leaf)
{
    pthread_mutex_lock(&authorities->seen_lock);
    struct seen seen = *seen_at(authorities, leaf);
    pthread_mutex_unlock(&authorities->seen_lock);
    return seen.checked_us && leaf->checked_us - seen.checked_us < SEEN_US &&
           memcmp(seen.digest, leaf->digest, sizeof seen.digest) == 0;
}

static void remember(struct http_authorities *authorities, const struct seen *leaf)
{
    pthread_mutex_lock(&authorities->seen_lock);
    *seen_at(authorities, leaf) = *leaf;
    pthread_mutex_unlock(&authorities->seen_lock);
}

bool http_authorities_vouch(struct http_authorities *authorities, void *session)
{
    unsigned count = 0;
    struct seen leaf = {.checked_us = now_mono_us()};
    size_t size = sizeof leaf.digest;
    bool x509 = gnutls_certificate_type_get2(session, GNUTLS_CTYPE_SERVER) == GNUTLS_CRT_X509;
    const gnutls_datum_t *chain = x509 ? gnutls_certificate_get_peers(session, &count) : NULL;
    if (!chain || count == 0 ||
        gnutls_fingerprint(GNUTLS_DIG_SHA256, &chain[0], leaf.digest, &size) != 0) {
        return false;
    }
    if (was_seen(authorities, &leaf)) {
        return true;
    }
    bool good = verify_now(authorities, chain, count);
    if (good) {
        remember(authorities, &leaf);
    }
    return good;
}
