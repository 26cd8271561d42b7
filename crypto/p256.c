#include "crypto/p256.h"

#include "crypto/base64.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 1024, DER_BYTES_MAX = 80, MAKE_TRIES = 4, HALF = P256_SIGNATURE_BYTES / 2 };

/* --- keys as the library has them --- */

static EVP_PKEY *from_params(OSSL_PARAM_BLD *build, int selection)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    EVP_PKEY *key = NULL;
    bool made = params && context && EVP_PKEY_fromdata_init(context) == 1 &&
                EVP_PKEY_fromdata(context, &key, selection, params) == 1;
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(params);
    return made ? key : NULL;
}

/* NULL when the bytes are no point of the curve. */
static EVP_PKEY *open_public(const unsigned char public_key[P256_PUBLIC_BYTES])
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (build && public_key[0] == POINT_CONVERSION_UNCOMPRESSED &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, public_key,
                                         P256_PUBLIC_BYTES) == 1) {
        key = from_params(build, EVP_PKEY_PUBLIC_KEY);
    }
    OSSL_PARAM_BLD_free(build);
    return key;
}

static EVP_PKEY *open_secret(const struct p256_key *from)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *secret = BN_bin2bn(from->secret, P256_SECRET_BYTES, NULL);
    EVP_PKEY *key = NULL;
    if (build && secret &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, secret) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, from->public_key,
                                         P256_PUBLIC_BYTES) == 1) {
        key = from_params(build, EVP_PKEY_KEYPAIR);
    }
    BN_clear_free(secret);
    OSSL_PARAM_BLD_free(build);
    return key;
}

/* --- the curve --- */

static bool multiply(const EC_GROUP *group, const BIGNUM *secret, struct p256_key *key)
{
    EC_POINT *point = EC_POINT_new(group);
    bool fine = point && EC_POINT_mul(group, point, secret, NULL, NULL, NULL) == 1 &&
                EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, key->public_key,
                                   P256_PUBLIC_BYTES, NULL) == P256_PUBLIC_BYTES;
    EC_POINT_free(point);
    return fine;
}

bool p256_from_secret(const unsigned char secret[P256_SECRET_BYTES], struct p256_key *key_out)
{
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    BIGNUM *number = BN_bin2bn(secret, P256_SECRET_BYTES, NULL);
    memcpy(key_out->secret, secret, P256_SECRET_BYTES);
    bool fine = group && number && !BN_is_zero(number) &&
                BN_cmp(number, EC_GROUP_get0_order(group)) < 0 && multiply(group, number, key_out);
    BN_clear_free(number);
    EC_GROUP_free(group);
    return fine;
}

static bool is_in_group(const unsigned char secret[P256_SECRET_BYTES])
{
    static const unsigned char zero[P256_SECRET_BYTES] = {0};
    static const unsigned char order[P256_SECRET_BYTES] = {
        0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF,
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6, 0xFA, 0xAD, 0xA7, 0x17,
        0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51};
    return memcmp(secret, zero, sizeof zero) != 0 && memcmp(secret, order, sizeof order) < 0;
}

/* The library's own generator would load its providers, which takes 2 MB and a millisecond. A
 * number outside the group comes once in four milliards (FIPS 186-5, A.2.2). */
static struct err make_secret(unsigned char secret_out[P256_SECRET_BYTES])
{
    bool fine = false;
    for (int tries = 0; tries < MAKE_TRIES && !fine; tries++) {
        fine = getrandom(secret_out, P256_SECRET_BYTES, 0) == P256_SECRET_BYTES &&
               is_in_group(secret_out);
    }
    return fine ? OK : err_make(ERR_INTERNAL, "a P-256 key cannot be made");
}

struct err p256_make(struct p256_key *key_out)
{
    unsigned char secret[P256_SECRET_BYTES];
    TRY(make_secret(secret));
    bool fine = p256_from_secret(secret, key_out);
    OPENSSL_cleanse(secret, sizeof secret);
    return fine ? OK : err_make(ERR_INTERNAL, "a P-256 key cannot be made");
}

bool p256_is_public(const unsigned char public_key[P256_PUBLIC_BYTES])
{
    EVP_PKEY *key = open_public(public_key);
    EVP_PKEY_free(key);
    return key != NULL;
}

bool p256_agree(const struct p256_key *key, const unsigned char other[P256_PUBLIC_BYTES],
                unsigned char shared_out[P256_SHARED_BYTES])
{
    size_t size = P256_SHARED_BYTES;
    EVP_PKEY *own = open_secret(key);
    EVP_PKEY *peer = open_public(other);
    EVP_PKEY_CTX *context = own ? EVP_PKEY_CTX_new(own, NULL) : NULL;
    bool fine = context && peer && EVP_PKEY_derive_init(context) == 1 &&
                EVP_PKEY_derive_set_peer(context, peer) == 1 &&
                EVP_PKEY_derive(context, shared_out, &size) == 1 && size == P256_SHARED_BYTES;
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(peer);
    EVP_PKEY_free(own);
    return fine;
}

/* --- signatures: the library writes DER, RFC 7518 wants r and s --- */

static bool from_der(const unsigned char *der, size_t size,
                     unsigned char signature_out[P256_SIGNATURE_BYTES])
{
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &der, (long)size);
    bool fine = pair && BN_bn2binpad(ECDSA_SIG_get0_r(pair), signature_out, HALF) == HALF &&
                BN_bn2binpad(ECDSA_SIG_get0_s(pair), signature_out + HALF, HALF) == HALF;
    ECDSA_SIG_free(pair);
    return fine;
}

struct err p256_sign(const struct p256_key *key, struct slice message,
                     unsigned char signature_out[P256_SIGNATURE_BYTES])
{
    unsigned char der[DER_BYTES_MAX];
    size_t size = sizeof der;
    EVP_PKEY *own = open_secret(key);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool fine =
        own && context && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, own) == 1 &&
        EVP_DigestSign(context, der, &size, (const unsigned char *)message.ptr, message.len) == 1 &&
        from_der(der, size, signature_out);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(own);
    return fine ? OK : err_make(ERR_INTERNAL, "a P-256 signature cannot be made");
}

static int to_der(const unsigned char signature[P256_SIGNATURE_BYTES], unsigned char *der)
{
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature, HALF, NULL);
    BIGNUM *s = BN_bin2bn(signature + HALF, HALF, NULL);
    int size = 0;
    if (pair && r && s && ECDSA_SIG_set0(pair, r, s) == 1) {
        size = i2d_ECDSA_SIG(pair, &der);
    } else {
        BN_free(r);
        BN_free(s);
    }
    ECDSA_SIG_free(pair);
    return size;
}

bool p256_check(const unsigned char public_key[P256_PUBLIC_BYTES], struct slice message,
                const unsigned char signature[P256_SIGNATURE_BYTES])
{
    unsigned char der[DER_BYTES_MAX];
    int size = to_der(signature, der);
    EVP_PKEY *key = open_public(public_key);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool fine = size > 0 && key && context &&
                EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
                EVP_DigestVerify(context, der, (size_t)size, (const unsigned char *)message.ptr,
                                 message.len) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    return fine;
}

/* --- the file --- */

static struct err read_key(int fd, unsigned char secret_out[P256_SECRET_BYTES])
{
    char text[FILE_BYTES_MAX];
    ssize_t size = read(fd, text, sizeof text);
    struct slice line = {text, size > 0 ? (size_t)size : 0};
    bool fine = base64_decode_exact(slice_trim(line), secret_out, P256_SECRET_BYTES) &&
                is_in_group(secret_out);
    OPENSSL_cleanse(text, sizeof text);
    return fine ? OK
                : err_make(ERR_CORRUPT, "the web push key file is malformed; restore it from a "
                                        "copy, or remove it and have all clients subscribe anew");
}

/* The file appears whole or not at all, and never over another. */
static struct err write_key(struct arena *arena, struct slice path,
                            const unsigned char secret[P256_SECRET_BYTES])
{
    char *draft = arena_cstr(arena, arena_concat(arena, path, LIT(".new")));
    char text[BASE64_LEN(P256_SECRET_BYTES) + 1];
    base64_encode_into(text, (struct slice){(const char *)secret, P256_SECRET_BYTES}, BASE64_URL);
    text[sizeof text - 1] = '\n';
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool fine = fd >= 0 && write(fd, text, sizeof text) == (ssize_t)sizeof text && fsync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    OPENSSL_cleanse(text, sizeof text);
    fine = fine && link(draft, arena_cstr(arena, path)) == 0;
    unlink(draft);
    return fine ? OK : err_make(ERR_IO, "the web push key file cannot be written");
}

static struct err load_or_make(struct arena *arena, struct slice path,
                               unsigned char secret_out[P256_SECRET_BYTES])
{
    int fd = open(arena_cstr(arena, path), O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        struct err err = read_key(fd, secret_out);
        close(fd);
        return err;
    }
    if (errno != ENOENT) {
        return err_make(ERR_IO, "the web push key file cannot be opened");
    }
    TRY(make_secret(secret_out));
    return write_key(arena, path, secret_out);
}

struct err p256_load(struct slice path, unsigned char secret_out[P256_SECRET_BYTES])
{
    struct arena *arena = arena_new();
    struct err err = load_or_make(arena, path, secret_out);
    arena_free(&arena);
    return err;
}
