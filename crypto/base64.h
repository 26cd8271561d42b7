/* Base64 without padding, in the standard and the URL-safe alphabet. Spec: appendices, "Unpadded
 * Base64". Decoding accepts both alphabets, optional padding and any value of unused bits, because
 * keys and signatures of older servers have them. */
#pragma once
#include "homeserver/base/arena.h"

enum base64_alphabet {
    BASE64_STANDARD,
    BASE64_URL,
};

/* Characters for `size` bytes. */
#define BASE64_LEN(size) (((size)*4 + 2) / 3)

struct slice base64_encode(struct arena *arena, struct slice data, enum base64_alphabet alphabet);
/* Writes BASE64_LEN(data.len) characters, no NUL. */
void base64_encode_into(char *to, struct slice data, enum base64_alphabet alphabet);
/* False when a character is outside both alphabets or the length is impossible. */
bool base64_decode(struct arena *arena, struct slice text, struct slice *data_out);
/* Decodes exactly `size` bytes; false otherwise. */
bool base64_decode_exact(struct slice text, void *to, size_t size);
